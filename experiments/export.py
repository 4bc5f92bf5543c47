"""Writes the encoder of a run, or of any checkpoint, as a SavedModel that serves features without this project.

python -m experiments.export --workdir=workdir/photos --output=workdir/photos/saved_model
python -m experiments.export --checkpoint=backbone --config=experiments/configs/pixpro_r50_imagenet.py --output=saved_model
"""

from __future__ import annotations

import json
import os

from experiments import session as sessions

import tensorflow as tf  # isort: skip  (after session, which sets what must be set before it)
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.pretrain import pretext_model
from tf_pixpro import export_encoder

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run: its config.json and its latest checkpoint are taken.")
_BEST = flags.DEFINE_bool("best", False, "Take the run's best checkpoint instead of its latest.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "A checkpoint, with --config instead of --workdir.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Experiment whose encoder is in --checkpoint: FILE.py or FILE.py:VARIANT."
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to be made.", required=True)
_SIZE = flags.DEFINE_list(
    "image_size", None, "Pixels that encoded images are brought to, SIDE or HEIGHT,WIDTH; default: that of training."
)


def main(_):
    config, checkpoint = _source()
    encoder = pretext_model(config, steps=None).encoder
    path = export_encoder(checkpoint, _OUTPUT.value, encoder=encoder, image_size=_image_size(config))
    print(
        f"{path}: signatures serving_default (image_bytes) and images; levels {', '.join(sorted(encoder.output))} and pooled"
    )


def _source():
    """(config, path of the checkpoint) that the flags ask for."""
    workdir, checkpoint, config = _WORKDIR.value, _CHECKPOINT.value, _CONFIG.value
    if bool(workdir) == bool(checkpoint) or bool(checkpoint) != (config is not None):
        given = [
            f"--{name}"
            for name, value in (("workdir", workdir), ("checkpoint", checkpoint), ("config", config))
            if value
        ]
        raise ValueError(
            f"--workdir, or --checkpoint with --config, is needed. Received {' '.join(given) or 'neither'}."
        )
    if checkpoint:
        return config, checkpoint
    recorded = os.path.join(workdir, "config.json")
    if not tf.io.gfile.exists(recorded):
        raise FileNotFoundError(f"--workdir must be the folder of a run. Received {workdir!r}, without config.json.")
    with tf.io.gfile.GFile(recorded) as file:
        return ConfigDict(json.load(file)), os.path.join(workdir, "best") if _BEST.value else workdir


def _image_size(config):
    size = _SIZE.value or config.views.get("size", 224)
    try:
        sides = [int(side) for side in ([size] if isinstance(size, (int, str)) else size)]
    except ValueError:
        raise ValueError(f"--image_size must be SIDE or HEIGHT,WIDTH in pixels. Received {_SIZE.value}.") from None
    return tuple(sides * 2) if len(sides) == 1 else tuple(sides)


if __name__ == "__main__":
    sessions.run(main)
