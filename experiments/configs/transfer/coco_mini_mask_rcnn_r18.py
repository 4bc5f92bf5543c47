"""A few COCO images, Mask R-CNN on ResNet-18 with FPN, small enough for two processor cores.

256 pixels, narrow pyramid and heads, few regions. It is there to see that all parts learn: the training images
themselves are evaluated, which it must come to know by heart.

python -m experiments.prepare --format=coco --images=coco_sub/images/train \
    --annotations=coco_sub/annotations/instances_train.json \\
    --split=train --share=0.2 --output=records/coco_mini
python -m experiments.transfer --config=experiments/configs/transfer/coco_mini_mask_rcnn_r18.py \
    --workdir=workdir/coco_mini

Variants: c4 (Faster R-CNN R18-C4); s0, b0 (EvoNorm everywhere) and bn, which train with batches of 2; smoke.
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_c4_1x, coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "c4", "s0", "b0", "bn", "smoke"):
        raise ValueError(f"the variant must be c4, s0, b0, bn, smoke or none. Received {variant!r}.")
    config = (coco_mask_rcnn_r50_c4_1x if variant == "c4" else coco_mask_rcnn_r50_fpn_1x).get_config()
    config.train_data.update(input_path="records/coco_mini/train-*.tfrecord", shuffle_buffer_size=32)
    config.train_data.parser = {"mask_crop_size": 56}
    config.validation_data.update(input_path="records/coco_mini/train-*.tfrecord", parser={"mask_crop_size": 56})
    config.scores.annotation_file = "records/coco_mini/train_annotations.json"
    config.backbone.depth = 18
    config.model.input_size = [256, 256, 3]
    config.model.roi_generator = {"pre_nms_top_k": 300, "num_proposals": 100}
    config.model.roi_generator.update({"test_pre_nms_top_k": 300, "test_num_proposals": 100})
    config.model.roi_sampler = {"num_sampled_rois": 32}
    config.model.mask_sampler = {"num_sampled_masks": 8}
    if variant == "c4":
        config.model.include_mask = False
        config.model.rpn_head.num_filters = 128
        # Every region goes through the last stage of the encoder, which is the time of a step here: fewer, half of them
        # objects.
        config.model.roi_sampler.update(num_sampled_rois=8, foreground_fraction=0.5)
        config.model.anchor.update(num_scales=4, anchor_size=1.0)
    else:
        config.model.anchor.anchor_size = 4.0
        config.model.decoder.fpn.num_filters = 128
        config.model.rpn_head = {"num_filters": 128}
        config.model.detection_head = {"num_convs": 1, "num_filters": 128, "fc_dims": 256}
        config.model.mask_head = {"num_convs": 2, "num_filters": 64}
    config.precise_norm_steps = 20
    if variant in ("s0", "b0"):
        extra = {"groups": "auto"} if variant == "s0" else {"synchronized": True}
        config.norm_act = {"name": f"evonorm_{variant}", "reach": "all", **extra}
    config.schedule.update(steps=900, batch=4, rate=0.01, drops=(800,), warmup_steps=50)
    if variant in ("s0", "b0", "bn"):
        config.schedule.update(steps=600, batch=2, rate=0.005, drops=(540,))
    if variant == "c4":
        config.schedule.update(steps=1500, drops=(1350,))
    config.optimizer.clipnorm = 10.0
    config.trainer.update(steps_per_loop=10, checkpoint_interval=100, validation_interval=200)
    return shrink(config) if variant == "smoke" else config
