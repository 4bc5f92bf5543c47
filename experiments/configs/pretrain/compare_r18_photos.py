"""Pretext tasks side by side: ResNet-18 at 96 pixels on a zip of photos, one budget and one recipe for all.

Expected (paper, at its scale): pixel tasks ahead on dense tasks, instance tasks on classification, both together good
at both.

for task in simclr byol pixcontrast pixpro instance fpn; do for seed in 0 1 2; do
  python -m experiments.pretrain --config=experiments/configs/pretrain/compare_r18_photos.py:$task --config.seed=$seed \
    --config.source.path=caltech101.zip --mode=train --workdir=workdir/compare/$task-$seed
  python -m experiments.transfer --config=experiments/configs/transfer/camvid_fcn_r18.py --config.seed=$seed \
    --config.init=workdir/compare/$task-$seed/backbone --workdir=workdir/compare/$task-$seed/camvid
done; done

Scratch is the second command without --config.init. Variants: the six tasks, each also as TASK-smoke.
"""

from experiments.configs.pretrain import pixpro_r18_photos

TASKS = ("simclr", "byol", "pixcontrast", "pixpro", "instance", "fpn")


def get_config(variant="pixpro"):
    task, _, size = variant.partition("-")
    if task not in TASKS or size not in ("", "smoke"):
        raise ValueError(f"the variant must be one of {', '.join(TASKS)}, or it with -smoke. Received {variant!r}.")
    config = pixpro_r18_photos.get_config(size or "labelled")
    if task in ("simclr", "byol"):
        config.instance = {"name": task, **config.projection}
        config.model.pixel_weight = 0.0
        del config.projection, config.propagation
    if task == "instance":
        config.instance = {"name": "simclr", **config.projection}
    if task == "pixcontrast":
        config.model.name = task
        del config.propagation
    if task == "fpn":
        config.pyramid = {"min_level": 2, "max_level": 6, "filters": 16 if size else 128}
        config.model = {**config.model, "level": ("3", "4", "5", "6")}
    return config
