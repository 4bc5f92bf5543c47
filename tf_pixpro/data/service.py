"""Batches made on other machines, by tf.data's service: the same ones in the same order as here.

The dispatcher knows its workers by their places in a list. Of n workers, number i makes every n-th batch from the i-th
on, in order, and the trainer takes one batch of each in turn: no batch depends on which worker is faster.
"""

from __future__ import annotations

import queue
import re
import socket
import threading
from typing import Any, Callable

import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.interface import Source

_SECONDS = 60
_MOST_WORKERS = 4096


def served(make: Callable[[tf.data.Dataset], tf.data.Dataset], first: int, address: str) -> tf.data.Dataset:
    """Endless batches that workers make.

    Args:
      make: dataset of int64 numbers of batches -> dataset of (number, batch); it runs on the workers, so it must not
        call Python.
      first: number of the first batch.
      address: of the dispatcher, such as 'grpc://host:5000'.

    Returns:
      Dataset of (number, batch), number = first, first + 1, ...; one that a worker has made a second time, because it
      was started again, comes with another number: see `check_number`.

    Raises:
      Mistake: within two minutes, if no dispatcher or no worker answers there.
    """
    workers = _number_of_workers(address)

    def made_by(worker):
        own = tf.data.Dataset.range(workers).shard(tf.data.experimental.SHARD_HINT, tf.data.experimental.SHARD_HINT)
        own = own.filter(lambda number: number == worker)
        numbers = own.flat_map(lambda number: tf.data.Dataset.range(first + number, tf.int64.max, workers))
        return _distributed(make(numbers), address)

    lanes = [made_by(worker) for worker in range(workers)]
    return tf.data.Dataset.choose_from_datasets(lanes, tf.data.Dataset.range(workers).repeat())


def check_number(number: int, expected: int) -> None:
    """Refuses a batch that is not the next one.

    Raises:
      Mistake: it is not.
    """
    if number != expected:
        raise Mistake(
            f"workers must run for as long as the training. Received batch {number} in place of {expected}: a worker "
            "was started again. Start the training again: it resumes."
        )


def check_served(source: Source) -> None:
    """Refuses a source that workers cannot read.

    Raises:
      Mistake: images come in a row, or by Python code of this process: zips, synthetic scenes, array_record.
    """
    if source.read is not None:
        graph = tf.function(source.read, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int64)).graph
        if not any("PyFunc" in operation.type for operation in graph.get_operations()):
            return
    raise Mistake(
        "tf_data_service_address needs a folder, uncompressed TFRecords, or a TFDS set written as tfrecord, which all "
        f"workers reach by the same path. Received {source.name!r}. Write it as TFRecords, or leave the address out."
    )


def _distributed(dataset, address):
    service = tf.data.experimental.service
    return dataset.apply(service.distribute(service.ShardingPolicy.HINT, address, compression=None))


def _number_of_workers(address):
    """Asks the workers: worker i of n is given the numbers i, i + n, ..."""
    _check_reachable(address)
    answers: queue.Queue[Any] = queue.Queue()

    def ask():
        try:
            numbers = tf.data.Dataset.range(2 * _MOST_WORKERS)
            numbers = numbers.shard(tf.data.experimental.SHARD_HINT, tf.data.experimental.SHARD_HINT)
            one, two = next(iter(_distributed(numbers.batch(2), address))).numpy()
            answers.put(int(two - one))
        except (tf.errors.OpError, ValueError) as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # the question itself waits for ever
    try:
        answer = answers.get(timeout=_SECONDS)
    except queue.Empty:
        answer = TimeoutError(f"no worker has answered in {_SECONDS} s")
    if isinstance(answer, int):
        return answer
    why = re.sub(r"\{\{.*?\}\} *| *\[Op:.*", "", str(answer).splitlines()[0])
    raise Mistake(
        "tf_data_service_address must be that of a dispatcher whose worker_addresses are running workers. "
        f"Received {address!r}: {why.rstrip(' .')}. Start it, and them, first."
    )


def _check_reachable(address):
    protocol, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if not (protocol and host and port.isdigit()):
        raise Mistake(f"tf_data_service_address must be like 'grpc://host:5000'. Received {address!r}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        raise Mistake(
            f"tf_data_service_address must be that of a dispatcher that runs. Received {address!r}: {error}. "
            "Start it, and its workers, first."
        ) from error
