"""Image classification as a Model Garden task made of objects: backbone in, classifier out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from official.vision.configs import image_classification as configs
from official.vision.modeling import classification_model
from official.vision.tasks import image_classification

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import load_backbone
from tf_pixpro.train import loop
from tf_pixpro.train.task import ObjectTask
from tf_pixpro.views import augment
from tf_pixpro.views.rand_augment import rand_augmented


class ClassificationTask(ObjectTask, image_classification.ImageClassificationTask):
    """Model Garden's classification task, its model and images handed in.

    Args:
      model: () -> `classifier`, called once inside the strategy's scope.
      images: (input_context, start_step) -> infinite dataset of (images [b, H, W, 3] float32,
        labels [b] int64) of one replica.
      held_out: input_context -> finite dataset of the same.
      num_classes: K.
      label_smoothing: share of the label spread over all classes.
      logging_dir: folder of the checkpoints. The images resume at the step of the latest one.
      init: checkpoint of the encoder, see `tf_pixpro.load_backbone`; None starts from scratch.
      name: of the task.
      optimizer: () -> Keras optimizer; None takes Model Garden's, from the trainer's `optimizer_config`.

    The loss is cross-entropy plus the model's regularization losses. Results are `accuracy` and, with more than five
    classes, `top_5_accuracy`.
    """

    best = ("accuracy", "higher")

    def __init__(
        self,
        model: Callable,
        images: Callable,
        held_out: Callable,
        num_classes: int,
        label_smoothing: float = 0.0,
        logging_dir: str | None = None,
        init: str | None = None,
        name: str = "classification",
        optimizer: Callable[[], tf.keras.optimizers.Optimizer] | None = None,
    ):
        if not 0 <= label_smoothing < 1:
            raise Mistake(f"label_smoothing must lie in [0, 1). Received label_smoothing={label_smoothing}.")
        config = configs.ImageClassificationTask(
            model=configs.ImageClassificationModel(num_classes=num_classes),
            losses=configs.Losses(one_hot=True, label_smoothing=label_smoothing),
            evaluation=configs.Evaluation(top_k=min(5, num_classes)),
        )
        super().__init__(config, logging_dir=logging_dir, name=name)
        self._make_model, self._images, self._held_out, self._init = model, images, held_out, init
        self._make_optimizer = optimizer

    def build_model(self) -> tf.keras.Model:
        self._model = self._make_model()
        return self._model

    def initialize(self, model: tf.keras.Model) -> None:
        """Restores the whole encoder from its checkpoint; a resumed run does not call this."""
        if self._init:
            load_backbone(getattr(model.backbone, "encoder", model.backbone), self._init)

    def build_inputs(self, params: Any, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        if params.is_training:
            return self._images(input_context, loop.latest_step(self.logging_dir))
        return self._held_out(input_context)


def classifier(
    backbone: tf.keras.Model, num_classes: int, dropout: float = 0.0, weight_decay: float = 0.0
) -> tf.keras.Model:
    """Model Garden's classifier on the highest level of a backbone: mean over positions, dropout, one dense layer.

    Args:
      backbone: [B, H, W, 3] -> dict of levels; with a `Frozen` encoder
        (`tf_pixpro.transfer.models.frozen`) this is linear evaluation.
      num_classes: K.
      dropout: share of pooled features dropped in training.
      weight_decay: of the dense kernel, times half its squared norm.

    Returns:
      `tf.keras.Model`, [B, H, W, 3] -> logits [B, K].
    """
    return classification_model.ClassificationModel(
        backbone,
        num_classes,
        input_specs=tf.keras.layers.InputSpec(shape=backbone.input_shape),
        dropout_rate=dropout,
        kernel_initializer=tf.keras.initializers.RandomNormal(stddev=0.01),
        kernel_regularizer=half_squared_norm(weight_decay),
    )


def half_squared_norm(weight_decay: float) -> tf.keras.regularizers.Regularizer | None:
    """The regularizer whose gradient is `weight_decay` times the weight, None for 0.

    For the kernels of convolutions and dense layers only; gamma, beta and v of normalizations are not decayed.
    """
    return tf.keras.regularizers.L2(weight_decay / 2) if weight_decay else None


def training_view(
    size: Sequence[int] = (224, 224),
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
    vertical_flip: float = 0.0,
    shift: int = 0,
    randaugment_layers: int = 0,
    randaugment_magnitude: float = 10.0,
) -> Callable:
    """How training images are varied, for `tf_pixpro.data.training_dataset`.

    Args:
      size: (height, width) of the result, pixels.
      scale: minimum and maximum area of the random crop as fractions of the image; (1, 1) with ratio (1, 1) keeps a
        square image uncropped.
      ratio: least and largest width / height of the crop.
      flip, vertical_flip: probabilities.
      shift: zero padding in pixels on each side before a second random crop to the input size; 4 is usual for CIFAR.
      randaugment_layers: how many random operations of RandAugment follow the flip; 0 for none.
      randaugment_magnitude: their strength, 0 to 10.

    Returns:
      (example, seed [2] int32) -> (image [height, width, 3] float32 normalised, label int64).

    Source: Szegedy et al. 2015 (crop), He et al. 2015 (shift), Cubuk et al. 2020 (RandAugment: every operation drawn
      is applied, at one strength; the operations are those of `tf_pixpro.views.rand_augment`, which has no Cutout,
      unlike Model Garden's).
    """
    size = tuple(size)
    crop: dict = {"scale": tuple(scale), "ratio": tuple(ratio)}
    view = augment.View(**crop, flip=flip, vertical_flip=vertical_flip, jitter=0.0, gray=0.0)

    def prepare(example, seed):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 3))
        sides = tf.unstack(augment.image_size(example["bytes"]), num=2)
        window = augment.crop_window(seeds[0], *sides, view.scale, view.ratio)
        (crop,) = augment.decode_crops(example["bytes"], [window])
        image, _ = augment.augmented(crop, seeds[1], size, view)
        if randaugment_layers:
            planes = tf.transpose(_colours(image), [2, 0, 1])
            drawn = tf.random.experimental.stateless_fold_in(seed, 3)
            planes = rand_augmented(planes, drawn, randaugment_layers, randaugment_magnitude, 0.0, 1.0)
            image = augment.interleaved(planes)
        if shift:
            image = tf.pad(image, [[shift, shift], [shift, shift], [0, 0]])
            image = tf.image.stateless_random_crop(image, [*size, 3], seeds[2])
        return tf.ensure_shape(image, [*size, 3]), example["label"]

    return prepare


def _colours(image):
    """Back from normalized to 0..255, which RandAugment works on."""
    return tf.clip_by_value(tf.round(augment.denormalized(image)), 0.0, 255.0)
