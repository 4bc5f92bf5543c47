"""The `smoke` variant of any transfer experiment: drawn scenes, few channels, few regions, few steps."""


def shrink(config):
    """The same experiment in every choice but size; returns the config."""
    config.scenes = {"train": 8, "validation": 4, "size": (128, 128)}
    if config.backbone.get("name") == "spinenet":
        config.backbone.update(variant="49S", width=0.125)
    else:
        config.backbone.update(width=0.125, blocks=(1, 1, 1, 1))
    config.model.update(num_classes=9, input_size=[128, 128, 3])
    for data in (config.train_data, config.validation_data):
        data.shuffle_buffer_size = 8
        for size in ("output_size", "crop_size", "groundtruth_padded_size"):
            if size in data:
                data[size] = [128, 128]
    if "fcn" in config.model:
        config.model.fcn.filters = 16
    if config.model.kind == "retinanet":
        config.model.head = {"num_convs": 1, "num_filters": 16}
    if config.model.kind.startswith("mask_rcnn"):
        for name in ("rpn_head", "detection_head", "mask_head"):
            config.model[name] = {**config.model.get(name, {}), "num_filters": 16}
        config.model.detection_head.update(num_convs=1, fc_dims=16)
        config.model.mask_head.num_convs = 1
        config.model.roi_generator = {"pre_nms_top_k": 40, "num_proposals": 16}
        config.model.roi_generator.update({"test_pre_nms_top_k": 40, "test_num_proposals": 8})
        config.model.roi_sampler = {"num_sampled_rois": 8}
        config.model.mask_sampler = {"num_sampled_masks": 2}
        config.model.detection_generator = {"pre_nms_top_k": 8, "max_num_detections": 4}
        config.train_data.parser.mask_crop_size = config.validation_data.parser.mask_crop_size = 28
    if config.model.get("decoder", {}).get("type") == "fpn":
        config.model.decoder.fpn.num_filters = 16
    if config.get("precise_norm_steps"):
        config.precise_norm_steps = 0
    drops = None if config.schedule.drops is None else (3,)
    config.schedule.update(steps=4, batch=4, warmup_steps=1, drops=drops)
    config.trainer.update(steps_per_loop=2, checkpoint_interval=4, validation_interval=4)
    return config
