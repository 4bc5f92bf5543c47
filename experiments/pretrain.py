"""Pre-trains an encoder with PixPro: images in, checkpoints, a Model Garden backbone and summaries out.

python -m experiments.pretrain --config=experiments/configs/pretrain/pixpro_r18_photos.py \
    --config.source.path=photos.zip --workdir=workdir/photos
"""

from __future__ import annotations

import tensorflow as tf

from experiments.builders import pretext
from experiments.launch import session as sessions


def main(session: sessions.Session) -> tuple[tf.keras.Model, dict[str, float]]:
    """Runs one experiment of `experiments.builders.pretext`; returns (model, results of the last evaluation)."""
    return pretext.experiment(session).start()


if __name__ == "__main__":
    sessions.launch(main)
