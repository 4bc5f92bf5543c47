"""Brings PyTorch checkpoints into this project and back: the authors' `.pth`, and ResNets in torchvision's layout.

python -m experiments.convert --input=pixpro_base_r50_400ep.pth --output=workdir/official
python -m experiments.convert --input=workdir/official --output=again.pth
python -m experiments.convert --input=moco_v2_800ep.pth --prefix=encoder_q. --output=workdir/moco

The folder then is that of a run: `experiments.export`, `transfer` and `classify` read it, `experiments.pretrain`
resumes it. A ResNet of another method (MoCo, SimCLR, lightly, timm, torchvision, detectron2) becomes a backbone that
`transfer` and `classify` read. PyTorch is not needed, and nothing in a file is run.
"""

from __future__ import annotations

import functools
import os

import tensorflow as tf
from absl import flags
from ml_collections import ConfigDict, config_flags
from official.core import config_definitions
from official.modeling import performance

from experiments.builders.pretext import optimizer, pretext_model
from experiments.configs.pretrain import pixpro_r50_imagenet
from experiments.launch import session as sessions
from experiments.launch.schedule import Schedule
from tf_evonorm.atomic import atomic_path
from tf_evonorm.backbones import resnet
from tf_evonorm.mistakes import Mistake
from tf_pixpro import save_backbone
from tf_pixpro.checkpoints import pth, pytorch_names, state_dicts
from tf_pixpro.train.pretext_task import PixProTask

IMAGENET = 1281167  # images of its training set
# Options of the authors' training files, and where they stand in a config.
OPTIONS = {
    "pixpro_p": "propagation.sharpness",
    "pixpro_clamp_value": "propagation.clamp",
    "pixpro_pos_ratio": "model.distance",
    "pixpro_momentum": "model.momentum",
    "epochs": "schedule.epochs",
    "base_learning_rate": "schedule.base_rate",
    "warmup_epoch": "schedule.warmup_epochs",
    "weight_decay": "optimizer.weight_decay",
    "aug": "views.recipe",
}
# Options that have one value here; another is reported and ignored.
FIXED = {"optimizer": "lars", "lr_scheduler": "cosine"}


def convert(
    input: str,
    output: str,
    config: ConfigDict | None = None,
    images: int | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> str:
    """Converts one checkpoint, in the direction that the names say.

    Args:
      input: a `.pth`, `.safetensors` or detectron2's `.pkl` file; or the folder of a run or of a conversion.
      output: a folder to be made, whatever its name; or, for a folder, a `.pth` file.
      config: the experiment's `ConfigDict`, in place of what the file, or the folder's config.json, says.
      images: in the training set, which gives the length of the run; what the file says, or ImageNet's number.
      key: entries of the file that lead to the weights, joined by dots; found where there is one such entry.
      prefix: what the names of the ResNet's weights begin with; found where there is one ResNet. With a prefix only
        the ResNet is read.

    Returns:
      One line about what was written.

    Raises:
      FileNotFoundError: if there is no input.
      Mistake: if the file is no checkpoint or another model's, or `output` is taken.
    """
    of_file = tf.io.gfile.exists(input) and not tf.io.gfile.isdir(input)
    if output.endswith((".pth", ".pt")) and not of_file:
        with atomic_path(output) as partial:
            return f"{output}: {_to_pth(input, partial, config, images or IMAGENET)}"
    if tf.io.gfile.exists(output) and tf.io.gfile.listdir(output):
        raise Mistake(f"--output must be a folder to be made. Received {output!r}, which holds something.")
    if tf.io.gfile.isdir(input):
        raise Mistake(f"--output must be a .pth file where --input is a folder. Received {output!r} and {input!r}.")
    tree = state_dicts.read(input)
    try:
        state = state_dicts.state_dict(tree, key)
        with atomic_path(output) as partial:
            if prefix is not None or not _of_authors(state):
                return f"{output}: {_encoder(state, partial, prefix)}"
            opt = _opt(tree)
            config = config or _config(pytorch_names.model_arguments(state), opt)
            return f"{output}: {_run_folder(state, {**tree, 'opt': opt}, partial, config, images)}"
    except ValueError as error:
        raise Mistake(
            f"--input must hold an encoder, or a model of the authors' code. Received {input!r}: {error}"
        ) from error


def _of_authors(state):
    """Whether these are the weights of the authors' pretext model."""
    names = ("encoder_k.", "projector_k.", "projector.linear1.", "value_transform.")
    return any(name.startswith("encoder.") for name in state) and any(name.startswith(names) for name in state)


def _opt(tree):
    """The options of a training file; none of a published one."""
    opt = tree.get("opt") or {}
    if not isinstance(opt, dict):
        raise Mistake(f"its options must be a namespace. Received {type(opt).__name__}.")
    return opt


def _encoder(state, output, prefix):
    """A ResNet alone; heads and followers by momentum are left out, by name."""
    state, prefix, others = state_dicts.encoder_state(state, prefix)
    encoder = resnet(**pytorch_names.encoder_arguments(state))
    pytorch_names.load(pytorch_names.encoder_names(encoder), state)
    save_backbone(encoder, os.path.join(output, "backbone"))
    below = f" below {prefix!r}" if prefix else ""
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    left = f"; left out: {', '.join(others[:4])}{more}" if others else ""
    return f"{encoder.name}{below}, {encoder.count_params():,} numbers{left}"


def _run_folder(state, others, output, config, images):
    opt = others["opt"]
    schedule = _schedule(config, images or _option(opt, "num_instances", IMAGENET))
    model, rule = _objects(config, schedule)
    pytorch_names.load(pytorch_names.names(model), state)
    step = _step(others, schedule)
    what = "weights"
    left = [f"{name}={opt[name]}" for name, ours in FIXED.items() if opt.get(name, ours) != ours]
    inner = getattr(rule, "inner_optimizer", rule)
    if "optimizer" in others and not left and hasattr(inner, "buffer_of"):
        pytorch_names.load_buffers(model, inner, others["optimizer"])
        what = "weights and momentum buffers"
    model.momentum_step.assign(step)
    rule.iterations.assign(step)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=rule, global_step=tf.Variable(step, dtype=tf.int64))
    manager = tf.train.CheckpointManager(checkpoint, output, max_to_keep=1)
    manager.save(checkpoint_number=step)
    save_backbone(model.encoder, os.path.join(output, "backbone"))
    with tf.io.gfile.GFile(os.path.join(output, "config.json"), "w") as file:
        file.write(config.to_json_best_effort(indent=1) + "\n")
    note = f"; not taken over: {', '.join(left)}" if left else ""
    return f"{what} at step {step} of {schedule.steps}{note}"


def _to_pth(folder, path, config, images):
    latest = tf.train.latest_checkpoint(folder)
    if not latest or not (config or tf.io.gfile.exists(os.path.join(folder, "config.json"))):
        raise FileNotFoundError(
            f"--input must be the --workdir of a run, with a checkpoint and config.json. Received {folder!r}."
        )
    config = config or sessions.recorded(folder)
    schedule = _schedule(config, images)
    model, rule = _objects(config, schedule)
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=rule, global_step=step)
    checkpoint.read(latest).expect_partial().assert_existing_objects_matched()
    rule, step = getattr(rule, "inner_optimizer", rule), int(step)
    tree = {"opt": _options(config, images), "model": pytorch_names.state(model, batches=2 * step)}
    tree |= {"epoch": step // schedule.epoch, "scheduler": {"last_epoch": step}}
    if hasattr(rule, "buffer_of"):
        rate = float(schedule.learning_rate(step))
        tree["optimizer"] = pytorch_names.buffers(model, rule, lr=rate, initial_lr=schedule.peak)
    pth.write(path, tree)
    return f"{len(tree['model'])} entries at step {step}"


def _objects(config, schedule):
    """Model and optimizer, new, exactly as a run of that config makes and saves them."""
    dtype = config.runtime.get("mixed_precision_dtype") or "float32"
    runtime = config_definitions.RuntimeConfig(mixed_precision_dtype=dtype)
    task = PixProTask(
        functools.partial(pretext_model, config, schedule.steps), functools.partial(optimizer, config, schedule), None
    )
    performance.set_mixed_precision_policy(tf.as_dtype(dtype))
    try:
        return task.build_model(), task.create_optimizer(None, runtime)
    finally:
        performance.set_mixed_precision_policy(tf.float32)


def _schedule(config, images):
    return sessions.build(Schedule, "schedule", config.schedule, images=images)


def _config(arguments, opt):
    """The authors' recipe with what the file says."""
    config = pixpro_r50_imagenet.get_config("100")
    config.backbone, config.projection = {"name": "resnet", **arguments["encoder"]}, arguments["projection"]
    config.propagation.update(arguments["propagation"])
    if "instance" in arguments:
        config.instance = {"name": "byol", **arguments["instance"]}
        config.model.instance_weight = _option(opt, "pixpro_ins_loss_weight", 1.0) or 1.0
    if opt.get("arch") == "resnet50_16s":
        config.backbone.output_stride = 16
    for option, place in OPTIONS.items():
        section, key = place.split(".")
        if key in config[section] or opt.get(option):
            config[section][key] = _option(opt, option, config[section].get(key))
    config.views.scale = (_option(opt, "crop", config.views.scale[0]), 1.0)
    config.views.size = (_option(opt, "image_size", config.views.size[0]),) * 2
    return config


def _options(config, images):
    """What `_config` reads."""
    opt = {"num_instances": images, "optimizer": config.optimizer.name}
    opt |= {"crop": config.views.scale[0], "image_size": config.views.size[0]}
    if "instance" in config:
        opt["pixpro_ins_loss_weight"] = config.model.get("instance_weight", 1.0)
    if config.backbone.get("output_stride") == 16:
        opt["arch"] = "resnet50_16s"
    for option, place in OPTIONS.items():
        section, key = place.split(".")
        if key in config[section]:
            opt[option] = config[section][key]
    return opt


def _option(opt, name, default):
    """An option of the file, of the kind that the default has; the default where there is none."""
    if name not in opt:
        return default
    value, kind = opt[name], float if default is None else type(default)
    if isinstance(value, str) != (kind is str) or not isinstance(value, (str, int, float)):
        raise Mistake(f"its option {name} must be of {kind.__name__}. Received {value!r}.")
    return kind(value)


def _step(others, schedule):
    """Steps made, as the file's scheduler counted them, else by its epochs; 0 of a published file."""
    scheduler = others.get("scheduler")
    if isinstance(scheduler, dict) and isinstance(scheduler.get("last_epoch"), int):
        return scheduler["last_epoch"]
    return int(others.get("epoch") or 0) * schedule.epoch if "optimizer" in others else 0


def _run():
    flags.DEFINE_string("input", None, "A .pth, .safetensors or .pkl file, or the folder of a run.", required=True)
    flags.DEFINE_string("output", None, "A folder to be made, or a .pth file.", required=True)
    config_flags.DEFINE_config_file("config", help_string="Experiment, in place of what the input says: FILE.py.")
    flags.DEFINE_integer("images", None, "Images in the training set.", lower_bound=1)
    flags.DEFINE_string("key", None, "Entries of the file that lead to the weights, such as state_dict.")
    flags.DEFINE_string("prefix", None, "What the ResNet's names begin with, such as encoder_q. (with the dot).")
    names = ("input", "output", "config", "images", "key", "prefix")
    sessions.run(lambda _: print(convert(**{name: getattr(flags.FLAGS, name) for name in names})))


if __name__ == "__main__":
    _run()
