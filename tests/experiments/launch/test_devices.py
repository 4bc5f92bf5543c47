"""Devices that are not there, and clusters that are described wrongly, are mistakes in one line."""

import json
import socket
import threading

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from experiments.launch import devices
from tf_evonorm.mistakes import Mistake


def runtime(**settings):
    section = ConfigDict({"distribution_strategy": "mirrored", "num_gpus": -1, **settings})
    return section.lock()


def test_more_gpus_than_there_are():
    with pytest.raises(
        Mistake, match=r"num_gpus must be at most the number of GPUs\. Received num_gpus=64, but there are \d"
    ):
        devices.strategy_of(runtime(num_gpus=64))


def test_gpus_that_the_config_does_not_mention_are_all_taken():
    section = ConfigDict({"distribution_strategy": "mirrored"}).lock()
    devices.strategy_of(section)
    assert section.num_gpus == len(tf.config.list_physical_devices("GPU")) and section.is_locked


def test_a_tpu_that_is_not_there(monkeypatch):
    section = runtime()

    def without(kind, tpu_address):
        raise ValueError(f"no {kind} at {tpu_address}")

    monkeypatch.setattr(devices.distribute_utils, "get_distribution_strategy", without)
    with pytest.raises(Mistake, match=r"--tpu must be .* Received 'local': no tpu at local"):
        devices.strategy_of(section, "local")
    assert (section.distribution_strategy, section.tpu) == ("tpu", "local") and section.is_locked
    with pytest.raises(Mistake, match=r"needs a TPU\. Received none\. Pass --tpu"):
        devices.strategy_of(runtime(distribution_strategy="tpu"))


WORKERS = {"worker": ["a:1", "b:2"]}


@pytest.mark.parametrize(
    "text, words",
    [
        ("{'cluster': 1}", "TF_CONFIG must be JSON such as"),
        ("[]", "TF_CONFIG must name the workers"),
        (json.dumps({"cluster": WORKERS}), "TF_CONFIG must name the workers"),
        (json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": 2}}), "TF_CONFIG must name the workers"),
    ],
)
def test_a_broken_tf_config_is_named(text, words, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(Mistake, match=words):
        devices.strategy_of(runtime(distribution_strategy="multi_worker_mirrored"))


def test_a_worker_says_for_whom_it_waits(monkeypatch, capsys):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": WORKERS, "task": {"type": "worker", "index": 1}}))
    monkeypatch.setattr(devices.distribute_utils, "get_distribution_strategy", lambda *_, **__: "strategy")
    assert devices.strategy_of(runtime(distribution_strategy="multi_worker_mirrored")) == "strategy"
    assert capsys.readouterr().err == "Waiting for a:1 (TF_CONFIG), at most 10 minutes\n"


def test_a_tpu_that_does_not_answer_is_reported_at_once(monkeypatch):
    with socket.socket() as nobody:  # bound, so that no other process has the port, and deaf
        nobody.bind(("localhost", 0))
        address = f"grpc://localhost:{nobody.getsockname()[1]}"
        monkeypatch.setattr(devices, "CONNECT_SECONDS", 2)
        with pytest.raises(Mistake, match=rf"--tpu .* Received '{address}', where nothing answered within 2 seconds"):
            devices.strategy_of(runtime(), address)


def test_waiting_for_a_tpu_is_bounded_and_said(monkeypatch, capsys):
    """One that answers the connection and then says nothing."""
    ended = threading.Event()
    monkeypatch.setattr(devices.os, "_exit", lambda status: ended.set())
    monkeypatch.setattr(devices, "WAIT_MINUTES", 0.001)
    monkeypatch.setattr(devices.distribute_utils, "get_distribution_strategy", lambda *_, **__: ended.wait(30))
    with socket.create_server(("localhost", 0)) as silent:
        address = f"grpc://localhost:{silent.getsockname()[1]}"
        assert devices.strategy_of(runtime(), address)
    printed = capsys.readouterr().err
    assert f"Waiting for {address} (--tpu), at most 0.001 minutes" in printed
    assert f"--tpu must be a TPU that is up. Received no answer of {address} in 0.001 minutes." in printed
