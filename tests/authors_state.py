"""The authors' state dict laid beside the variables of our pretext model, by name."""

from reference import kernel

ATTRIBUTES = {
    "weight": ("kernel", "gamma"),
    "bias": ("bias", "beta"),
    "running_mean": ("moving_mean",),
    "running_var": ("moving_variance",),
}


def variables(model) -> dict:
    """Names of the authors' modules -> our variables: encoder, projector, their key copies, value transform, instance branch."""
    heads = {"linear1": "expand", "bn1": "norm", "linear2": "reduce"}
    layers = {}
    for prefix, encoder, head in (
        ("", model.encoder, model.projection),
        ("_k", model.momentum_encoder, model.momentum_projection),
    ):
        layers.update({f"encoder{prefix}.{layer.name}": layer for layer in encoder.layers})
        layers.update({f"projector{prefix}.{theirs}": getattr(head, ours) for theirs, ours in heads.items()})
    values = model.propagation.value
    if len(values) == 1:
        layers["value_transform"] = values[0]
    elif values:
        layers.update({"value_transform.linear1": values[0], "value_transform.linear2": values[1]})
        layers["value_transform.bn1"] = model.propagation.norm
    if model.instance is not None:
        parts = {"projector_instance": model.instance.projection, "projector_instance_k": model.momentum_instance}
        for prefix, head in {**parts, "predictor": model.instance.prediction}.items():
            layers.update({f"{prefix}.{theirs}": getattr(head, ours) for theirs, ours in heads.items()})
    named = {}
    for module, layer in layers.items():
        for theirs, ours in ATTRIBUTES.items():
            found = [getattr(layer, name) for name in ours if getattr(layer, name, None) is not None]
            if found and hasattr(found[0], "assign"):
                named[f"{module}.{theirs}"] = found[0]
    return named


def load(model, archive, prefix="state/") -> dict:
    """Assigns the archive's state to the model; returns name -> variable. Every entry of either side must have its partner."""
    named = variables(model)
    state = {name.removeprefix(prefix): archive[name] for name in archive if name.startswith(prefix)}
    state = {name: value for name, value in state.items() if name in named or is_pixel_part(name)}
    if set(state) != set(named):
        raise ValueError(f"unmatched: {sorted(set(state) ^ set(named))[:8]}")
    for name, value in state.items():
        named[name].assign(kernel(value))
    return named


def is_pixel_part(name: str) -> bool:
    """Whether a state entry belongs to the pixel task and is a number that we keep."""
    parts = ("encoder.", "encoder_k.", "projector.", "projector_k.", "value_transform.")
    return name.startswith(parts) and not name.endswith("num_batches_tracked")
