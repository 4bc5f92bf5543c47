"""Where a run computes: the strategy of `config.runtime`, its GPUs, TPU and workers checked before they are used."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict
from official.common import distribute_utils

from tf_evonorm.mistakes import Mistake

KINDS = ("one_device", "mirrored", "multi_worker_mirrored", "parameter_server", "tpu", "off")
WAIT_MINUTES = 10
CONNECT_SECONDS = 20


def strategy_of(runtime: ConfigDict, tpu: str | None = None) -> tf.distribute.Strategy:
    """The strategy of a config's section `runtime`.

    Args:
      runtime: distribution_strategy, num_gpus (-1 takes all and is replaced by their number), ...; changed in place.
      tpu: name or address of a TPU, or 'local'; it takes the place of distribution_strategy.

    Raises:
      Mistake: if the strategy is unknown, or its devices are not there.
    """
    there = len(tf.config.list_physical_devices("GPU"))
    if runtime.get("num_gpus", -1) < 0:
        with runtime.unlocked():
            runtime.num_gpus = there
    if runtime.num_gpus > there:
        raise Mistake(
            f"config.runtime.num_gpus must be at most the number of GPUs. Received num_gpus={runtime.num_gpus}, but "
            f"there are {there}. Pass -1 for all of them."
        )
    if tpu:
        with runtime.unlocked():
            runtime.distribution_strategy, runtime.tpu = "tpu", tpu
    kind = runtime.get("distribution_strategy", "mirrored")
    if kind not in KINDS:
        raise Mistake(f"config.runtime.distribution_strategy must be one of {', '.join(KINDS)}. Received {kind!r}.")
    if kind == "mirrored" and runtime.num_gpus <= 1:
        kind = "one_device"  # the same, and XLA can compile it
    if kind == "tpu":
        return _tpu_strategy(runtime.get("tpu"))
    others = check_tf_config() if kind == "multi_worker_mirrored" else []
    with _waiting(", ".join(others), "TF_CONFIG", "all workers of TF_CONFIG must start"):
        return distribute_utils.get_distribution_strategy(
            kind,
            num_gpus=runtime.num_gpus,
            all_reduce_alg=runtime.get("all_reduce_alg"),
            num_packs=runtime.get("num_packs", 1),
        )


def check_tf_config() -> list[str]:
    """Checks the environment variable TF_CONFIG of a run on several workers; returns the addresses of the others.

    Raises:
      Mistake: if it is no JSON, or names no cluster, or not this worker.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return []
    example = '{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        described: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise Mistake(f"TF_CONFIG must be JSON such as {example}. Received {text[:200]!r}: {error}.") from error
    try:
        workers = [*described["cluster"].get("chief", []), *described["cluster"].get("worker", [])]
        kind, index = described["task"]["type"], int(described["task"]["index"])
        own = described["cluster"][kind][index]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Mistake(
            f"TF_CONFIG must name the workers and which of them this one is: {example}. Received {text[:200]!r}."
        ) from error
    return [address for address in workers if address != own]


@contextlib.contextmanager
def _waiting(names: str, origin: str, rule: str) -> Iterator[None]:
    """Says for whom a program waits, and ends it where they do not come: TensorFlow itself would wait without a word.

    Args:
      names: of those who must answer; nothing is done without any.
      origin: where the names are from.
      rule: what must be, for the message that ends the program.
    """
    if not names:
        yield
        return
    print(f"Waiting for {names} ({origin}), at most {WAIT_MINUTES} minutes", file=sys.stderr, flush=True)

    def give_up() -> None:
        waited = f"Received no answer of {names} in {WAIT_MINUTES} minutes."
        print(f"{rule}. {waited}", file=sys.stderr, flush=True)
        os._exit(1)

    timer = threading.Timer(60 * WAIT_MINUTES, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tpu_strategy(address: str | None) -> tf.distribute.Strategy:
    if not address:
        raise Mistake(
            "distribution_strategy=tpu needs a TPU. Received none. Pass --tpu=NAME, or --tpu=local on its host."
        )
    _reach(address)
    remote = "" if address == "local" else address
    try:
        with _waiting(remote, "--tpu", "--tpu must be a TPU that is up"):
            return distribute_utils.get_distribution_strategy("tpu", tpu_address=address)
    except (ValueError, OSError, RuntimeError, tf.errors.OpError) as error:
        reason = " ".join(str(error).split())[:300]
        raise Mistake(
            f"--tpu must be the name or address of a TPU, or local. Received {address!r}: {reason}"
        ) from error


def _reach(address):
    """Raises Mistake where nothing listens at a grpc:// address; TensorFlow would wait there for half an hour."""
    place = urllib.parse.urlsplit(address)
    if place.scheme != "grpc":
        return
    try:
        socket.create_connection((place.hostname or "", place.port or 8470), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise Mistake(
            f"--tpu must be the address of a TPU that is up. Received {address!r}, where nothing answered within "
            f"{CONNECT_SECONDS} seconds: {error}. Start the TPU, or correct the address: grpc://HOST:8470."
        ) from error
