"""The authors' state, as the reference archives hold it, put into our pretext model."""

from reference import notes

from tf_pixpro.checkpoints import pytorch_names
from tf_pixpro.checkpoints.state_dicts import state_dict


def load(model, archive, prefix="state/") -> dict:
    """Assigns the archive's state to the model; returns name -> variable. Entries and variables must match one to one.

    A model without an instance term takes what belongs to the pixel task.
    """
    named = pytorch_names.names(model)
    state = {name.removeprefix(prefix): archive[name] for name in archive if name.startswith(prefix)}
    state = state_dict({"model": state})
    if model.instance is None:
        state = {name: value for name, value in state.items() if is_pixel_part(name)}
    pytorch_names.load(named, state)
    return named


def is_pixel_part(name: str) -> bool:
    """Whether a state entry belongs to the pixel task and is a number that we keep."""
    parts = ("encoder.", "encoder_k.", "projector.", "projector_k.", "value_transform.")
    return name.startswith(parts) and not name.endswith("num_batches_tracked")


def published(archive) -> dict:
    """A published file of a reference case, with its options."""
    from experiments import convert

    state = {f"module.{n.removeprefix('state/')}": archive[n] for n in archive if n.startswith("state/")}
    recipe = {"aug": "BYOL", "base_learning_rate": 1.0, "warmup_epoch": 1, "weight_decay": 1e-5, "arch": "resnet50"}
    return {"opt": {**notes(archive)["args"], "num_instances": convert.IMAGENET, **recipe}, "model": state}
