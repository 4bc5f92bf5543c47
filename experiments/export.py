"""Writes what a run has trained, or the encoder of any checkpoint, as a SavedModel that answers without this project;
or, with --format, as one file for ONNX, TFLite, Keras or safetensors.

Of a pre-training run it is the encoder, which gives features (of one with a pyramid its backbone); of a classification
run the classifier, which gives classes; of a run of `experiments.synthesize` the averaged generator, which gives
images.

python -m experiments.export --workdir=workdir/photos --output=workdir/photos/saved_model
python -m experiments.export --checkpoint=backbone --config=experiments/configs/pretrain/pixpro_r50_imagenet.py \
    --output=saved_model
python -m experiments.export --workdir=workdir/photos --format=tflite --representative=photos.zip --output=small.tflite
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments.builders.classifier import restored
from experiments.builders.generator import export_synthesis
from experiments.builders.pretext import pretext_encoder
from experiments.launch import session as sessions
from tf_evonorm.mistakes import Mistake
from tf_pixpro import data, export_encoder
from tf_pixpro.export import FORMATS, export_classifier
from tf_pixpro.views.augment import centre_view

_REPRESENTATIVE = 200  # images from which the ranges of integers are taken


def export(
    output: str,
    workdir: str | None = None,
    best: bool = False,
    checkpoint: str | None = None,
    config: Any = None,
    image_size: Sequence[int] | None = None,
    format: str = "saved_model",
    batch: int | None = None,
    representative: str | None = None,
) -> str:
    """Builds the model that a config describes, reads its weights and writes the SavedModel, or another format.

    Args:
      output: folder to be made, or file that ends in the format's name.
      workdir: folder of a run; its config.json is taken.
      best: the run's best checkpoint instead of its latest.
      checkpoint: with `config`, instead of `workdir`: any checkpoint with that encoder.
      config: an experiment's `ConfigDict`.
      image_size: pixels that encoded images are brought to, [side] or [height, width]; by default the size of the run's
        views.
      format, batch: see `tf_pixpro.export_encoder`.
      representative: source of images, as of `tf_pixpro.data.source`, for TFLite with integers of 8 bits.

    Returns:
      One line about what was written.

    Raises:
      FileNotFoundError: if the folder is not that of a run, or there is no checkpoint.
      Mistake: if the arguments contradict each other, the weights do not fit, or `output` is taken.
    """
    if bool(workdir) == bool(checkpoint) or bool(checkpoint) != (config is not None) or (best and checkpoint):
        options = {"workdir": workdir, "best": best, "checkpoint": checkpoint, "config": config is not None}
        given = " ".join(f"--{name}" for name, value in options.items() if value)
        raise Mistake(
            f"--workdir (with --best), or --checkpoint with --config, is needed. Received {given or 'neither'}."
        )
    if workdir:
        config = sessions.recorded(workdir)
        if "generator" in config:
            if format != "saved_model":
                raise Mistake(f"a generator is exported as a saved_model. Received --format={format}. Leave it out.")
            return export_synthesis(output, os.path.join(workdir, "best") if best else workdir, config)
        if "head" in config:
            folder = os.path.join(workdir, "best") if best else workdir
            return _export_classifier(output, folder, config, image_size, format, batch, representative)
        checkpoint = os.path.join(workdir, "best", "backbone") if best else workdir
    if "views" not in config:
        raise Mistake(
            "--workdir must be the folder of a run of pretrain, classify or synthesize. Received "
            f"{workdir!r}, whose config.json has no "
            "views. `transfer --mode=export` writes detectors and segmenters, `search --mode=export` layers."
        )
    size = _sides(image_size or config.views.size)
    encoder = pretext_encoder(config)
    encoder = getattr(encoder, "backbone", encoder)  # a pyramid is for detectors, which have a serving of their own
    path = export_encoder(
        checkpoint,
        output,
        encoder=encoder,
        image_size=size,
        format=format,
        batch=batch,
        representative=_images(representative, size, 1.0),
    )
    return f"{path}: {_takes(format, size)}; levels {', '.join(sorted(encoder.output))} and pooled"


def _export_classifier(output, folder, config, image_size, format, batch, representative):
    classifier, class_names = restored(config, folder)
    size = _sides(image_size or config.evaluation.get("size") or config.views.size)
    margin = config.evaluation.get("margin", 256 / 224)
    path = export_classifier(
        classifier,
        output,
        class_names=class_names,
        image_size=size,
        margin=margin,
        format=format,
        batch=batch,
        representative=_images(representative, size, margin),
    )
    return f"{path}: {_takes(format, size)}; {len(class_names)} classes"


def _takes(format, size):
    if format == "saved_model":
        return "signatures serving_default (image_bytes) and images"
    if format in ("onnx", "tflite"):
        return f"images of {size[0]} x {size[1]}, float32 in 0..255"
    return "normalized images"


def _images(path, size, margin):
    """Some images of a source, cut as those that will be served; None without a path."""
    if path is None:
        return None
    source = data.source(path)

    def prepared(example, seed):
        return {"image": centre_view(example["bytes"], size, margin, exif=True)}

    count = min(_REPRESENTATIVE, source.num_examples)
    return data.training_dataset(source, prepared, global_batch=1).take(count)


def _sides(size):
    try:
        sides = tuple(int(side) for side in size)
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2):
        raise Mistake(f"--image_size must be SIDE or HEIGHT,WIDTH in pixels. Received {','.join(map(str, size))}.")
    return sides if len(sides) == 2 else sides * 2


def _run():
    flags.DEFINE_string("workdir", None, "Folder of a run: its config.json and its latest checkpoint are taken.")
    flags.DEFINE_bool("best", False, "Take the run's best checkpoint instead of its latest.")
    flags.DEFINE_string("checkpoint", None, "A checkpoint, with --config instead of --workdir.")
    config_flags.DEFINE_config_file("config", help_string="Experiment of --checkpoint: FILE.py or FILE.py:VARIANT.")
    flags.DEFINE_string("output", None, "Folder or file to be made.", required=True)
    flags.DEFINE_list("image_size", None, "Pixels that encoded images are brought to, SIDE or HEIGHT,WIDTH.")
    flags.DEFINE_enum("format", "saved_model", FORMATS, "What to write; for all but the first, --output=NAME.FORMAT.")
    flags.DEFINE_integer("batch", None, "Images of each request, of onnx and tflite; any number by default.")
    flags.DEFINE_string("representative", None, "Images (folder, zip, ...) for tflite with integers of 8 bits.")
    names = ("workdir", "best", "checkpoint", "config", "output", "image_size", "format", "batch", "representative")
    sessions.run(lambda _: print(export(**{name: getattr(flags.FLAGS, name) for name in names})))


if __name__ == "__main__":
    _run()
