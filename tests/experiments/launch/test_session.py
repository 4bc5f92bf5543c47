"""Sessions: one log per run, one program and one experiment per folder."""

import json

import pytest
from absl import logging
from ml_collections import ConfigDict

from experiments.launch import session
from tf_evonorm.mistakes import Mistake


def config_of():
    return ConfigDict({"seed": 0, "runtime": {"distribution_strategy": "mirrored", "num_gpus": -1}})


def test_three_runs_in_one_process_log_once_each(tmp_path):
    before = list(logging.get_absl_logger().handlers)
    for number in range(3):
        with session.start_session(config_of(), str(tmp_path / str(number))):
            logging.info("run %d", number)
    assert logging.get_absl_logger().handlers == before
    for number in range(3):
        text = (tmp_path / str(number) / "log.txt").read_text()
        assert [line.split()[-2:] for line in text.splitlines() if " run " in line] == [["run", str(number)]]


def test_the_log_has_the_traceback_of_what_ended_the_run(tmp_path):
    with pytest.raises(Mistake), session.start_session(config_of(), str(tmp_path)):
        raise Mistake("wrong")
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_folder_holds_the_run_of_one_program(tmp_path, monkeypatch):
    session.start_session(config_of(), str(tmp_path), program="classify").close()
    assert json.loads((tmp_path / "config.json").read_text())["program"] == "classify"
    monkeypatch.setattr(session.tf.train, "latest_checkpoint", lambda folder: "ckpt-1")
    session.start_session(config_of(), str(tmp_path), program="classify").close()
    with pytest.raises(Mistake, match=r"Received .* with a run of classify, not pretrain"):
        session.start_session(config_of(), str(tmp_path), program="pretrain")
