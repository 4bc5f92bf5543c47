"""tf.data's service: a dispatcher and two workers, each a process of its own, give the batches of one process."""

import contextlib
import pathlib
import re
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from image_sources import assert_same, batches, compressed, jpeg, labels, write, zip_of
from tensorflow.data.experimental import service as servers

from tf_evonorm.mistakes import Mistake
from tf_pixpro import data
from tf_pixpro.data import service

GUIDE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "pretrain.md"


def free_port():
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def started(stack, program, port):
    """Starts a server and waits until it listens."""
    process = stack.enter_context(subprocess.Popen([sys.executable, "-c", program]))
    stack.callback(process.kill)
    until = time.monotonic() + 120
    while socket.socket().connect_ex(("localhost", port)):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.2)
    return process


@contextlib.contextmanager
def running_service():
    """Gives (address, workers, function that starts one): a dispatcher and two workers, by the guide's commands."""
    dispatcher, worker = re.findall(r'^\.venv/bin/python -c "(.*)"$', GUIDE.read_text(), re.M)
    port, others = free_port(), [free_port(), free_port()]
    hosts = {"HOST1:5001": f"localhost:{others[0]}", "HOST2:5001": f"localhost:{others[1]}", "5000": str(port)}
    for name, here in hosts.items():
        dispatcher = dispatcher.replace(name, here)
    worker = worker.replace("DISPATCHER:5000", f"localhost:{port}").replace("THIS_HOST", "localhost")
    with contextlib.ExitStack() as stack:

        def start(other):
            return started(stack, worker.replace("5001", str(other)), other)

        started(stack, dispatcher, port)
        yield f"grpc://localhost:{port}", {other: start(other) for other in others}, start


@pytest.fixture(scope="module")
def address():
    with running_service() as (address, _, _):
        yield address


@pytest.mark.slow
def test_two_workers_give_the_batches_of_one_process(address, folder):
    source = data.source(folder)
    whole = batches(source, 7)
    assert_same(batches(source, 7, tf_data_service_address=address), whole)
    assert_same(batches(source, 3, start_step=4, tf_data_service_address=address), whole[4:])


@pytest.mark.slow
def test_each_image_comes_once_per_epoch_on_every_host(address, tmp_path):
    source = compressed(tmp_path, [50, 14], "")
    whole = labels(source, 16)
    assert sorted(whole[:64]) == sorted(whole[64:]) == list(range(64))
    for _ in range(5):  # whichever worker is the faster one
        assert labels(source, 16, tf_data_service_address=address) == whole
    parts = [labels(source, 16, 2, part, tf_data_service_address=address) for part in range(2)]
    assert np.reshape(parts, [2, 16, 4]).transpose(1, 0, 2).ravel().tolist() == whole


@pytest.mark.slow
def test_bad_images_are_replaced_counted_and_end_the_run(address, tmp_path, files, caplog):
    source = data.source(write(tmp_path / "images", {**files, "train/cat/bad.jpg": jpeg(99)[:-400]}))
    assert_same(batches(source, 9, tf_data_service_address=address), batches(source, 9))
    assert caplog.text.count("bad.jpg") == 2  # once here, once on the workers
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 0\.00% of the images may.*bad\.jpg"):
        batches(source, 9, tf_data_service_address=address, max_bad_share=0.0)


@pytest.mark.slow
def test_a_worker_that_was_started_again_ends_the_run(tmp_path):
    source = compressed(tmp_path, [50, 14], "")
    with running_service() as (address, workers, start):
        options = {"global_batch": 8, "tf_data_service_address": address}
        steps = iter(data.training_dataset(source, lambda example, seed: example["label"], **options))
        for _ in range(20):
            next(steps)
        port, process = next(iter(workers.items()))
        process.kill()
        process.wait()
        start(port)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"Received batch \d+ in place of \d+: a worker was"):
            for _ in range(1000):
                next(steps)


def test_what_workers_cannot_read_is_refused(tmp_path, files):
    zipped = data.source(zip_of(tmp_path / "a.zip", files))
    rows = compressed(tmp_path / "rows", [4, 4])
    for source in (zipped, rows, data.source("scenes", num_examples=8)):
        with pytest.raises(Mistake, match="needs a folder, uncompressed TFRecords"):
            batches(source, 1, tf_data_service_address="grpc://localhost:5000")


def test_services_that_are_not_there_are_one_line_in_a_bounded_time(folder, monkeypatch):
    source = data.source(folder)
    nobody, port = f"grpc://localhost:{free_port()}", free_port()
    without = servers.DispatchServer(servers.DispatcherConfig(worker_addresses=[f"localhost:{port}"]))
    unknown = servers.DispatchServer()
    worker = servers.WorkerServer(servers.WorkerConfig(unknown.target.split("://")[1]))
    monkeypatch.setattr(service, "_SECONDS", 2)
    for address, message in {
        "localhost:5000": "must be like 'grpc://host:5000'",
        nobody: "of a dispatcher that runs",
        without.target: "whose worker_addresses are running.*no worker has answered in 2 s",
        unknown.target: "whose worker_addresses are running.*not in the workers list",
    }.items():
        started_at = time.monotonic()
        with pytest.raises(Mistake, match=message) as raised:
            batches(source, 1, tf_data_service_address=address)
        assert len(str(raised.value).splitlines()) == 1 and time.monotonic() - started_at < 30
    worker = servers.WorkerServer(servers.WorkerConfig(without.target.split("://")[1], f"localhost:{port}", port))
    assert len(batches(source, 1, tf_data_service_address=without.target)) == 1  # it has come
    del worker
