"""Trains a detector or a segmenter from an encoder: records of annotated images in, checkpoints and scores out.

python -m experiments.transfer --config=experiments/configs/transfer/bccd_retinanet_r18.py --workdir=workdir/bccd
python -m experiments.transfer --config=experiments/configs/transfer/camvid_fcn_r18.py \
    --config.init=workdir/photos/backbone --workdir=workdir/camvid
"""

from __future__ import annotations

import tensorflow as tf

from experiments.builders import detector
from experiments.launch import session as sessions
from tf_pixpro.train import loop


def main(session: sessions.Session) -> tuple[tf.keras.Model, dict[str, float]]:
    """Runs one experiment, see `experiments.builders.detector.experiment`.

    Mode 'export' writes the best checkpoint as `saved_model` into the working folder.

    Returns:
      (model, results of the last evaluation).
    """
    if session.mode == "export":
        return detector.export(session), {}
    return detector.experiment(session).start()


if __name__ == "__main__":
    sessions.launch(main, (*loop.MODES, "export"))
