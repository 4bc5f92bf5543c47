"""COCO, Mask R-CNN R50-C4, 1x: PixPro's protocol.

Expected (the authors' README): box / mask AP 40.0 / 34.8 from 100 epochs, 40.5 / 35.3 from 400, 38.2 / 33.3 supervised.

As `coco_mask_rcnn_r50_fpn_1x`, but region proposals on level 4 alone (anchors 32 to 512, 12,000 to 2,000 regions, in
evaluation 6,000 to 1,000) and level 5 as the head of every region of 14x14, followed by an extra synchronized
normalization.

python -m experiments.transfer --config=experiments/configs/transfer/coco_mask_rcnn_r50_c4_1x.py \
    --config.init=workdir/pixpro/backbone --workdir=W
"""

from experiments.configs.transfer import coco_mask_rcnn_r50_fpn_1x
from experiments.configs.transfer.smoke import shrink


def get_config(variant=""):
    if variant not in ("", "smoke"):
        raise ValueError(f"the variant must be smoke or none. Received {variant!r}.")
    config = coco_mask_rcnn_r50_fpn_1x.get_config()
    del config.model.decoder
    config.model.update(
        {
            "kind": "mask_rcnn_c4",
            "min_level": 4,
            "max_level": 4,
            "decoder": {"type": "identity"},
            "anchor": {"num_scales": 5, "aspect_ratios": [0.5, 1.0, 2.0], "anchor_size": 2.0},
            "rpn_head": {"num_filters": 1024},
            "roi_generator": {"pre_nms_top_k": 12000, "num_proposals": 2000},
            "roi_aligner": {"crop_size": 14},
            "mask_roi_aligner": {"crop_size": 14},
            "mask_head": {"upsample_factor": 1, "num_filters": 256},
        }
    )
    config.model.roi_generator.update({"test_pre_nms_top_k": 6000, "test_num_proposals": 1000})
    return shrink(config) if variant == "smoke" else config
