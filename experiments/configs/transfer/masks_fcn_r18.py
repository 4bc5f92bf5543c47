"""Your own images and masks: the FCN on ResNet-18 of `camvid_fcn_r18`, with as many classes as the records have.

Images of any size are brought to 256x192, their sides in proportion, and scored there; `records` names the folder that
`prepare` wrote, with the sets train and val. Learning rate and length are CamVid's, for 56 images.

python -m experiments.prepare --format=masks --names=soil,crop,weed --root=field --split=train --output=records/field
python -m experiments.prepare --format=masks --names=soil,crop,weed --root=field --split=val --output=records/field
python -m experiments.transfer --config=experiments/configs/transfer/masks_fcn_r18.py --config.records=records/field \
    --config.init=workdir/photos/backbone --workdir=workdir/field

Variants: those of `camvid_fcn_r18`.
"""

from experiments.configs.transfer import camvid_fcn_r18


def get_config(variant=""):
    config = camvid_fcn_r18.get_config(variant)
    config.records = "records/field"
    folder = config.get_ref("records")
    config.train_data.input_path = folder + "/train-*.tfrecord"
    config.validation_data.input_path = folder + "/val-*.tfrecord"
    config.validation_data.resize_eval_groundtruth = True
    del config.validation_data.groundtruth_padded_size
    if not variant.endswith("smoke"):
        config.model.num_classes = 0  # as many as the records have
    return config
