"""Actions after an inner loop: the bar's numbers, and which step a stop names."""

import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tf_pixpro.train.actions import Progress, StopAtNonFinite


def test_the_bar_shows_loss_rate_and_steps_and_leaves_other_work_out(capsys):
    step = tf.Variable(10)
    with Progress(step, 40, global_batch=8) as bar:
        step.assign(20)
        first = {"training_loss": tf.constant(1.5)}
        bar(first)
        assert "images_per_second" not in first  # it compiled
        time.sleep(0.5)  # an evaluation
        bar.restart()
        time.sleep(0.1)
        step.assign(30)
        second = {"training_loss": tf.constant(1.25)}
        bar(second)
    assert 80 / 0.25 < second["images_per_second"] <= 80 / 0.1
    shown = capsys.readouterr().err
    assert "30/40" in shown and "loss=1.250" in shown and "images/s=" in shown


def test_a_silent_bar(capsys):
    step = tf.Variable(0)
    with Progress(step, 4, 8, show=False) as bar:
        bar({"training_loss": 1.0})
    assert capsys.readouterr().err == ""


def test_the_stop_names_the_first_bad_step():
    stop = StopAtNonFinite(tf.Variable(40), "/runs/a")
    good = {"nonfinite_steps": 0.0, "training_loss": 1.0}
    stop(good)
    assert good == {"training_loss": 1.0}
    with pytest.raises(FloatingPointError, match=r"not at step 38\..* /runs/a are from before"):
        stop({"nonfinite_steps": 3.0})


def test_the_stop_sees_a_bad_mean_where_steps_are_not_looked_at():
    stop = StopAtNonFinite(tf.Variable(40), "/runs/a")
    stop({"training_loss": 1.0})
    with pytest.raises(FloatingPointError, match="not by step 40"):
        stop({"training_loss": float("nan")})


@pytest.mark.parametrize("modules", ["tf_evonorm", "tf_pixpro", "tf_pixpro.train.pretext_task"])
def test_training_imports_neither_matplotlib_nor_optuna_nor_vision(modules):
    """A task that draws nothing does not pay for what draws; only the figures of a run import matplotlib."""
    code = (
        f"import sys, {modules}; print(*(n for n in ('matplotlib', 'optuna', 'official.vision') if n in sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.split() == []
