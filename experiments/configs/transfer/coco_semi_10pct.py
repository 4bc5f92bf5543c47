"""COCO with 10 % of its labels (about 11,800 images), Faster R-CNN on ResNet-50 with FPN: semi-supervised detection.

The paper has such an experiment; its detector, schedule and numbers could not be read (UNCONFIRMED), so 45,000 steps
are a choice. The share is drawn by the SHA-256 of image ids, the same everywhere; 1 % is a part of 10 %.

python -m experiments.prepare --format=coco --images=coco/train2017 \
    --annotations=coco/annotations/instances_train2017.json --split=train \\
    --share=0.1 --name=train_10pct --output=records/coco
python -m experiments.transfer --config=experiments/configs/transfer/coco_semi_10pct.py \
    --config.init=workdir/pixpro/backbone --workdir=W
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_fpn_1x.get_config()
    config.train_data.input_path = "records/coco/train_10pct-*.tfrecord"
    config.model.include_mask = False
    config.schedule.update(steps=45000, drops=(30000, 40000), warmup_steps=500)
    config.trainer.update(checkpoint_interval=1000, validation_interval=15000)
    return shrink(config) if variant == "smoke" else config
