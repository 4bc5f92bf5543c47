"""Pascal VOC 07+12, Faster R-CNN R50-C4, 24k: PixPro's protocol.

Expected AP / AP50 / AP75 on VOC 2007 test (the authors' README): 58.8 / 83.0 / 66.5 from 100 epochs, 60.2 / 83.8 / 67.7
from 400, 53.5 / 81.3 / 58.8 supervised, 33.8 / 60.2 / 33.1 from scratch. Short sides of 480 to 800 in training become
0.6 to 1.0 of the frame; other differences as in `coco_mask_rcnn_r50_fpn_1x`. With --config.scores.kind=voc07 precision
is averaged at eleven recalls.

python -m experiments.prepare --format=voc --root=VOCdevkit/VOC2007,VOCdevkit/VOC2012 --split=trainval \
    --output=records/voc
python -m experiments.prepare --format=voc --root=VOCdevkit/VOC2007 --split=test --output=records/voc
python -m experiments.transfer --config=experiments/configs/transfer/voc_faster_rcnn_r50_c4_24k.py \
    --config.init=workdir/pixpro/backbone --workdir=W
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_c4_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_c4_1x.get_config()
    config.train_data.input_path = "records/voc/trainval-*.tfrecord"
    config.train_data.parser.aug_scale_min = 0.6
    config.validation_data.input_path = "records/voc/test-*.tfrecord"
    config.scores = {"kind": "voc", "annotation_file": "records/voc/test_annotations.json"}
    config.model.update(num_classes=21, include_mask=False)
    config.schedule.update(steps=24000, drops=(18000, 22000), warmup_steps=100)
    config.trainer.update(checkpoint_interval=2000, validation_interval=8000)
    return shrink(config) if variant == "smoke" else config
