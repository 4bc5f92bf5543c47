"""Few labels: a segmentation model on an encoder, trained with Keras' fit in the same way for every initialization."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from official.vision.modeling import segmentation_model
from official.vision.modeling.heads import segmentation_heads
from tqdm import tqdm

from tf_pixpro.data import scenes
from tf_pixpro.views.augment import normalized

CLASSES = 2  # background and object; the eight kinds of objects cannot be learned from a few scenes in minutes


Labelled = tuple[np.ndarray, np.ndarray]  # images and masks


def labelled_scenes(count: int, size: int, seed: int) -> Labelled:
    """Draws the first scenes of a seed.

    Returns:
      Images [count, size, size, 3] uint8, and masks of their objects [count, size, size] uint8.
    """
    drawn = [scenes.scene(index, seed=seed, size=(size, size)) for index in range(count)]
    return np.stack([s.image for s in drawn]), np.stack([s.semantic > 0 for s in drawn]).astype(np.uint8)


def segmenter(encoder: tf.keras.Model, level: str, size: int) -> tf.keras.Model:
    """Builds Model Garden's segmentation model on an encoder.

    Args:
      encoder: [B, size, size, 3] -> dict of levels.
      level: level that the head reads, beside level 2.
      size: side of the images, in pixels.

    Returns:
      A model, normalized images [B, size, size, 3] -> logits of every pixel [B, size, size, CLASSES].
    """
    head = segmentation_heads.SegmentationHead(
        num_classes=CLASSES,
        level=int(level),
        num_convs=1,
        num_filters=64,
        feature_fusion="deeplabv3plus",
        low_level=2,
        low_level_num_filters=24,
        norm_momentum=0.9,
    )
    model = segmentation_model.SegmentationModel(encoder, decoder=None, head=head)
    images = tf.keras.Input((size, size, 3))
    return tf.keras.Model(images, tf.keras.layers.Resizing(size, size)(model(images)["logits"]))


def fit_and_score(
    model: tf.keras.Model,
    train: Labelled,
    held_out: Labelled,
    seed: int,
    steps: int,
    batch: int,
    rate: float,
    log_dir: str,
    title: str,
) -> float:
    """Trains all weights of a segmenter and returns its mIoU on the held-out scenes, in [0, 1].

    Args:
      model: from `segmenter`.
      train, held_out: (images, masks) as from `labelled_scenes`.
      seed: seed of order and augmentation.
      steps: steps of stochastic gradient descent with momentum and cosine decay.
      batch: images per step.
      rate: initial learning rate.
      log_dir: folder of the TensorBoard summaries.
      title: title of the progress bar.
    """
    epochs = max(1, min(10, steps // 10))
    schedule = tf.keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        tf.keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=1e-4),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[tf.keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False, name="miou")],
    )
    random = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    data = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[0]), seed=seed).repeat()
    data = tf.data.Dataset.zip((data, random)).map(_augmented, tf.data.AUTOTUNE).batch(batch).prefetch(2)
    board = tf.keras.callbacks.TensorBoard(log_dir, write_graph=False)
    with tqdm(total=epochs * (steps // epochs), desc=title, unit="step", dynamic_ncols=True) as bar:
        count = tf.keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_: bar.update())
        model.fit(data, epochs=epochs, steps_per_epoch=steps // epochs, verbose=0, callbacks=[count, board])
    return model.evaluate(_prepared(held_out), verbose=0, return_dict=True)["miou"]


def predicted(model: tf.keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the class of every pixel [B, H, W] of images [B, H, W, 3] uint8."""
    return tf.argmax(model(normalized(tf.cast(images, tf.float32)), training=False), axis=-1).numpy()


def _prepared(labelled: Labelled) -> tf.data.Dataset:
    def prepare(image: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return normalized(tf.cast(image, tf.float32)), tf.cast(classes, tf.int32)

    return tf.data.Dataset.from_tensor_slices(labelled).map(prepare).batch(20)


def _augmented(labelled: tuple[tf.Tensor, tf.Tensor], seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns one of the eight rotations and reflections of a square image and its mask."""
    image, classes = labelled
    quarters = tf.random.stateless_uniform([], seed, 0, 4, tf.int32)
    flip = tf.random.stateless_uniform([], seed + 1, 0, 2, tf.int32) > 0
    size = classes.shape[0]

    def transform(values: tf.Tensor) -> tf.Tensor:
        values = tf.cond(flip, lambda: values[:, ::-1], lambda: values)
        return tf.image.rot90(values, quarters)

    image, classes = transform(image), transform(classes[..., None])[..., 0]
    image = normalized(tf.cast(tf.ensure_shape(image, [size, size, 3]), tf.float32))
    return image, tf.ensure_shape(tf.cast(classes, tf.int32), [size, size])
