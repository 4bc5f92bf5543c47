"""What happens after each inner loop of training: the progress bar, the stop at a non-finite loss, the figures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_pixpro.pretext.pictures import PictureWriter
from tf_pixpro.pretext.stop import non_finite


class Progress:
    """A bar with loss, images/s and time left; it also writes images/s into the train summaries.

    Args:
      global_step: variable, the step reached.
      steps: step at which the run ends.
      global_batch: images per step.
      show: whether to draw the bar (on stderr).

    It is a train action, a context manager, and `restart` is an eval action: time spent in evaluation is no training
    time. The first inner loop compiles and gives no rate.
    """

    def __init__(self, global_step: tf.Variable, steps: int, global_batch: int, show: bool = True):
        self._step, self._steps, self._batch, self._show = global_step, steps, global_batch, show
        self._since = None

    def __enter__(self):
        self._done = int(self._step.numpy())
        options = {"unit": "step", "dynamic_ncols": True, "smoothing": 0.1}
        self._bar = tqdm(total=self._steps, initial=self._done, disable=not self._show, **options)
        return self

    def __exit__(self, *_):
        self._bar.close()

    def __call__(self, output):
        now, done = time.monotonic(), int(self._step.numpy())
        shown = {"loss": f"{float(output['training_loss']):.3f}"}
        if self._since is not None:
            output["images_per_second"] = (done - self._done) * self._batch / (now - self._since)
            shown["images/s"] = f"{output['images_per_second']:.1f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(done - self._done)
        self._done, self._since = done, now

    def restart(self, _: Any = None) -> None:
        """Restarts the clock after work that was not training."""
        self._since = time.monotonic() if self._since is not None else None


class StopAtNonFinite:
    """Stops a run whose loss or gradient is no longer finite, before anything of it is saved."""

    def __init__(self, global_step: tf.Variable, workdir: str):
        self._step, self._workdir = global_step, workdir

    def __call__(self, output):
        counted = "nonfinite_steps" in output  # else no task counted each step, and the mean loss decides
        behind = int(output.pop("nonfinite_steps") if counted else not np.isfinite(float(output["training_loss"])))
        if behind:
            kept = f" The checkpoints in {self._workdir} are from before that step."
            raise non_finite("at" if counted else "by", int(self._step.numpy()) - behind + 1, kept)


class Pictures:
    """Writes pictures of a few images after inner loops, see `PictureWriter`.

    Args:
      model: a `PixPro`.
      views: a batch {'view1', 'view2', 'box1', 'box2'} of the images to draw.
      folder: where the summaries go; None computes and writes nothing (every worker must take part).
      global_step: variable, the step reached.
      every: steps between two drawings, the first after the first inner loop.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        views: Mapping[str, tf.Tensor],
        folder: str | None,
        global_step: tf.Variable,
        every: int,
    ):
        self._pictures = PictureWriter(model, views, folder)
        self._step, self._every, self._next = global_step, every, 0

    def __call__(self, _):
        if self._step.numpy() < self._next:
            return
        self._next = self._step.numpy() + self._every
        self._pictures.write(self._step)
