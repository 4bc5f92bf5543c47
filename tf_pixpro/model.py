"""The pretext model: an encoder, its momentum copy, and the pixel task between two views of an image."""

from __future__ import annotations

from typing import Optional

import tensorflow as tf

from tf_pixpro.geometry import positive_mask
from tf_pixpro.layers import PixelPropagation, ProjectionHead, unit
from tf_pixpro.losses import pixel_consistency
from tf_pixpro.optimizers import momentum_schedule


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixPro(tf.keras.Model):
    """PixPro as a Keras model: `compile(optimizer)`, `fit(views)`, then keep `encoder`.

    A batch is a dict with `view1` and `view2` ([B, H, W, 3], normalised images) and `box1` and `box2` ([B, 4] float32, see
    `tf_pixpro.geometry`). One step: query branch on both views (each its own BatchNorm batch), momentum update of the key branch,
    key branch in training mode without gradient, symmetric loss. Calling the model on images gives the encoder's levels.

    Args:
      encoder: a built `tf.keras.Model` from [B, H, W, 3] to a dict of levels {'2': [B, h, w, C], ...}, as Model Garden's backbones.
      projection: the head on the chosen level; default `ProjectionHead()`.
      propagation: the pixel propagation of the query branch; default `PixelPropagation()`.
      level: which of the encoder's outputs the task reads.
      distance: threshold of the positive pairs in cell diagonals.
      momentum: momentum of the key branch at the first step.
      steps: steps of the whole run, over which the momentum rises to 1; None keeps it constant.

    Raises:
      ValueError: if the encoder has no such level, is not built, or cannot be copied.

    Source: PixPro section 3 and the authors' `contrast/models/PixPro.py`. As there, only weights are averaged, the key branch keeps
    BatchNorm statistics of its own, and an image without positive pairs adds 0 to the mean. Unlike there, the momentum's step is
    saved, so that a resumed run goes on with the schedule.
    """

    def __init__(
        self,
        encoder: tf.keras.Model,
        projection: Optional[tf.keras.layers.Layer] = None,
        propagation: Optional[tf.keras.layers.Layer] = None,
        level: str = "5",
        distance: float = 0.7,
        momentum: float = 0.99,
        steps: Optional[int] = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.level, self.distance, self.momentum, self.steps = level, distance, momentum, steps
        shape = _level_shape(encoder, level)
        self.encoder = encoder
        self.projection = projection if projection is not None else ProjectionHead(name="projection")
        self.propagation = propagation if propagation is not None else PixelPropagation(name="propagation")
        _build(self.projection, shape)
        _build(self.propagation, self.projection.compute_output_shape(shape))
        self.momentum_encoder = _copy(encoder)
        self.momentum_projection = _copy(self.projection, shape)
        self.momentum_step = self.add_weight(
            name="momentum_step", shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        self.built = True

    def call(self, inputs, training=False):
        return self.encoder(inputs, training=training)

    @property
    def trainable_weights(self):
        """Weights of the query branch; the momentum copy follows them."""
        parts = (self.encoder, self.projection, self.propagation)
        return [weight for part in parts for weight in part.trainable_weights] if self.trainable else []

    @property
    def non_trainable_weights(self):
        """Statistics of the query branch, all of the momentum copy, the momentum's step."""
        query = [w for part in (self.encoder, self.projection, self.propagation) for w in part.non_trainable_weights]
        rest = [*query, *self.momentum_encoder.weights, *self.momentum_projection.weights, self.momentum_step]
        return rest if self.trainable else [*self.encoder.trainable_weights, *rest]

    def project(self, images, training=False) -> tf.Tensor:
        """The query branch up to the projection: images [B, H, W, 3] -> [B, h, w, D], not of unit length."""
        return self.projection(self.encoder(images, training=training)[self.level], training=training)

    def propagate(self, projections, training=False) -> tf.Tensor:
        """Propagated pixels of unit length, [B, h, w, D] float32 (or float64)."""
        return unit(self.propagation(projections, training=training))

    def target(self, images, training=False) -> tf.Tensor:
        """The momentum branch: images [B, H, W, 3] -> pixels of unit length [B, h, w, D] without gradient."""
        features = self.momentum_encoder(images, training=training)[self.level]
        return tf.stop_gradient(unit(self.momentum_projection(features, training=training)))

    def current_momentum(self) -> tf.Tensor:
        """Momentum that the next update uses, a scalar."""
        if self.steps is None:
            return tf.constant(self.momentum, tf.keras.backend.floatx())
        return momentum_schedule(self.momentum_step, self.steps, self.momentum)

    def update_momentum_encoder(self) -> None:
        """Moves the key branch's weights toward the query branch's and counts the update; statistics are left alone."""
        momentum = self.current_momentum()
        averages = [*self.momentum_encoder.trainable_weights, *self.momentum_projection.trainable_weights]
        weights = [*self.encoder.trainable_weights, *self.projection.trainable_weights]

        def move(average, weight):
            m = tf.cast(momentum, average.dtype)
            return average.assign(m * average + (1 - m) * weight)

        def update(strategy):
            for average, weight in zip(averages, weights):
                strategy.extended.update(average, move, args=(weight,), group=False)
            strategy.extended.update(self.momentum_step, lambda step: step.assign_add(1), group=False)

        if tf.distribute.in_cross_replica_context():
            update(tf.distribute.get_strategy())
        else:
            tf.distribute.get_replica_context().merge_call(update)

    def pretext_loss(self, batch, training=True) -> dict[str, tf.Tensor]:
        """The pixel task on one batch; in training it moves the momentum encoder first.

        Args:
          batch: {'view1', 'view2', 'box1', 'box2'}, see the class.
          training: BatchNorm mode, and whether the momentum encoder moves.

        Returns:
          Scalars: 'loss' (mean over the local batch, in [-4, 4]), 'positives' (pairs per image), 'without_positives' (share of images),
          'projection_std' (standard deviation of the unit projections over pixels, times sqrt(D): near 1 spread, 0 collapsed),
          'momentum'.

        Raises:
          ValueError: if the batch lacks an entry.
        """
        view1, view2, box1, box2 = _entries(batch)
        momentum = self.current_momentum()
        projection1, projection2 = self.project(view1, training), self.project(view2, training)
        prediction1, prediction2 = self.propagate(projection1, training), self.propagate(projection2, training)
        if training:
            self.update_momentum_encoder()
        target1, target2 = self.target(view1, training), self.target(view2, training)
        mask = positive_mask(box1, box2, _cells(prediction1), self.distance)
        losses = pixel_consistency(prediction1, target2, mask)
        losses += pixel_consistency(prediction2, target1, tf.linalg.matrix_transpose(mask))
        positives = tf.reduce_sum(tf.cast(mask, tf.float32), axis=[1, 2])
        return {
            "loss": tf.reduce_mean(losses),
            "positives": tf.reduce_mean(positives),
            "without_positives": tf.reduce_mean(tf.cast(tf.equal(positives, 0), tf.float32)),
            "projection_std": _spread(tf.stop_gradient(projection1)),
            "momentum": momentum,
        }

    def learn(self, batch, optimizer) -> dict[str, tf.Tensor]:
        """One optimizer step on one (replica's) batch; returns what `pretext_loss` does and 'gradient_norm' of this replica."""
        weights = self.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            logs = self.pretext_loss(batch, training=True)
            total = logs["loss"] + sum(tf.cast(penalty, logs["loss"].dtype) for penalty in self.encoder.losses)
            # Replicas add their gradients, so each takes its share of the mean.
            loss = total / tf.distribute.get_strategy().num_replicas_in_sync
            loss = optimizer.get_scaled_loss(loss) if hasattr(optimizer, "get_scaled_loss") else loss
        gradients = tape.gradient(loss, weights)
        if hasattr(optimizer, "get_unscaled_gradients"):
            gradients = optimizer.get_unscaled_gradients(gradients)
        optimizer.apply_gradients(zip(gradients, weights))
        return {**logs, "gradient_norm": tf.linalg.global_norm(gradients)}

    def train_step(self, data):
        return self.learn(data, self.optimizer)

    def test_step(self, data):
        return self.pretext_loss(data, training=False)

    def get_config(self):
        parts = {name: tf.keras.utils.serialize_keras_object(getattr(self, name)) for name in _PARTS}
        numbers = {name: getattr(self, name) for name in ("level", "distance", "momentum", "steps")}
        return {"name": self.name, **parts, **numbers}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            name: tf.keras.utils.deserialize_keras_object(config[name], custom_objects=custom_objects)
            for name in _PARTS
        }
        return cls(**{**config, **parts})


_PARTS = ("encoder", "projection", "propagation")


def _entries(batch):
    names = ("view1", "view2", "box1", "box2")
    missing = [name for name in names if not hasattr(batch, "keys") or name not in batch]
    if missing:
        received = sorted(batch) if hasattr(batch, "keys") else type(batch).__name__
        raise ValueError(f"a batch must hold {', '.join(names)}. Received {received}. Make it with tf_pixpro.data.")
    return [batch[name] for name in names]


def _level_shape(encoder, level):
    shapes = getattr(encoder, "output_specs", None)
    if shapes is None and isinstance(getattr(encoder, "output", None), dict):
        shapes = {key: value.shape for key, value in encoder.output.items()}
    if not shapes or level not in shapes:
        levels = ", ".join(map(repr, shapes)) if shapes else "no dict of levels"
        raise ValueError(f"the encoder must give level {level!r}. Received an encoder with {levels}.")
    shape = tuple(shapes[level])
    return (None, None, None, shape[-1])


def _build(layer, shape):
    if not layer.built:
        layer.build(shape)


def _copy(layer, shape=None):
    """A second instance with the same weights."""
    config = layer.get_config()
    try:
        copy = type(layer).from_config({**config, "name": f"momentum_{layer.name}"})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the momentum branch is made from get_config(), which must describe {type(layer).__name__} fully. "
            f"Received: {error}. Build the encoder as a functional model or give it get_config."
        ) from error
    if shape is not None:
        _build(copy, shape)
    copy.set_weights(layer.get_weights())
    return copy


def _cells(features):
    dynamic = tf.shape(features)
    return tuple(features.shape[axis] or dynamic[axis] for axis in (1, 2))


def _spread(projections):
    pixels = unit(projections)
    width = pixels.shape[-1]
    deviation = tf.math.reduce_std(tf.reshape(pixels, [-1, width]), axis=0)
    return tf.reduce_mean(deviation) * width**0.5
