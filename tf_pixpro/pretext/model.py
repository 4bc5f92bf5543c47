"""The pretext model: an encoder, its momentum copy, and the pixel task between two views of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

import tensorflow as tf

from tf_evonorm.keras_generation import gradient_norm, scaled, unscaled, variables
from tf_evonorm.mistakes import Mistake
from tf_pixpro.geometry import positive_mask
from tf_pixpro.optimization import momentum_schedule
from tf_pixpro.pretext.layers import unit
from tf_pixpro.pretext.pairwise import BlockPairs, check_block
from tf_pixpro.pretext.pixel_terms import PixelConsistency
from tf_pixpro.pretext.terms import check_terms, check_unused, split_terms


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixPro(tf.keras.Model):
    """PixPro as a Keras model: `compile(optimizer)`, `fit(views)`, then keep `encoder`.

    A batch is a dict with `view1` and `view2` ([B, H, W, 3], normalised images) and `box1` and `box2` ([B, 4] float32,
    see `tf_pixpro.geometry`). One step: query branch on both views (each its own BatchNorm batch), momentum update of
    the key branch, key branch in training mode without gradient, symmetric loss. Calling the model on images gives the
    encoder's levels.

    Args:
      encoder: a built `tf.keras.Model` from [B, H, W, 3] to a dict of levels {'2': [B, h, w, C], ...}, as Model
        Garden's backbones.
      projection, propagation: heads of the pixel term, as in `PixelConsistency`; only without `terms`.
      level: which of the encoder's outputs the task reads. Several ('3', '4', ...) share heads and distance, and their
        losses are averaged; they must have equal channels.
      distance: threshold of the positive pairs in cell diagonals.
      momentum: momentum of the key branch at the first step.
      steps: steps of the whole run, over which the momentum rises to 1; None keeps it constant.
      instance: a term on whole views beside the pixel term, `BYOL()` or `SimCLR()`; only without `terms`.
      pixel_weight, instance_weight: factors of the two terms; only without `terms`. A pixel_weight of 0 leaves out the
        pixel term and
        its heads: with an instance term alone the model is that baseline.
      block: pixels at a time in the loss, as in `PixelPropagation`, for large maps; None for all at once.
      terms: at most one term on pixels (`PixelConsistency()` or `PixelContrast()`) and one on whole views (`BYOL()` or
        `SimCLR()`), whose losses are added, each times its weight. None makes them of the arguments above.
      name, dtype, trainable: as in `tf.keras.Model`.

    Raises:
      Mistake: if the encoder has no such level, is not built, or cannot be copied; if levels differ in channels; if
        a weight is negative or leaves nothing to learn; if there are two terms of a kind, or `terms` and arguments that
        it replaces.

    Source: PixPro section 3 and the authors' `contrast/models/PixPro.py`. As there, only weights are averaged, the key
      branch keeps
    BatchNorm statistics of its own, and an image without positive pairs adds 0 to the mean. Unlike there, the
    momentum's step is saved, so that a resumed run continues the schedule. Several levels are the paper's section 3.4,
    of which no code was released; that heads are shared is ours, as a detector shares its own.
    """

    def __init__(
        self,
        encoder: tf.keras.Model,
        projection: Optional[tf.keras.layers.Layer] = None,
        propagation: Optional[tf.keras.layers.Layer] = None,
        level: Union[str, Sequence[str]] = "5",
        distance: float = 0.7,
        momentum: float = 0.99,
        steps: Optional[int] = None,
        instance: Optional[tf.keras.layers.Layer] = None,
        pixel_weight: float = 1.0,
        instance_weight: float = 1.0,
        block: Optional[int] = None,
        terms: Optional[Sequence[Any]] = None,
        name: Optional[str] = None,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if terms is not None:
            check_unused((projection, propagation, instance), (pixel_weight, instance_weight))
            self.pixel, instance = split_terms(terms)
        else:
            check_terms(projection or propagation, instance, pixel_weight, instance_weight)
            self.pixel = PixelConsistency(projection, propagation, pixel_weight) if pixel_weight else None
        check_block(block)
        _check_encoder(encoder)
        self.levels = (level,) if isinstance(level, str) else tuple(level)
        self.distance, self.momentum, self.steps, self.block = distance, momentum, steps, block
        self.instance_weight = instance_weight * instance.weight if instance is not None else instance_weight
        self._make_branches(encoder, instance)
        self.momentum_step = self.add_weight(
            name="momentum_step", shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        self.built = True

    def _make_branches(self, encoder, instance):
        """Builds the heads and their momentum copies, attributes of the model under the names that checkpoints have."""
        shape = _level_shape(encoder, self.levels)
        self.encoder, self.instance = encoder, instance
        self.projection: Any = None
        self.propagation: Any = None
        self.momentum_encoder, self.momentum_projection, self.momentum_instance = _copy(encoder), None, None
        if self.pixel is not None:
            self.pixel.build(shape)
            self.projection, self.propagation = self.pixel.projection, self.pixel.propagation
            self.momentum_projection = _copy(self.projection, shape)
        if instance is not None:
            shape = _level_shape(encoder, (instance.level or self.level,))
            _build(instance, shape)
            self.momentum_instance = _copy(instance.projection, shape)

    def call(self, inputs, training=False):
        return self.encoder(inputs, training=training)

    @property
    def pixel_weight(self) -> float:
        """Factor of the pixel term; 0 without one."""
        return self.pixel.weight if self.pixel is not None else 0.0

    @property
    def level(self) -> str:
        """The level that the task reads, the last one if it has several."""
        return self.levels[-1]

    @property
    def _query_parts(self):
        parts = (self.encoder, self.projection, self.propagation, self.instance)
        return [part for part in parts if part is not None]

    @property
    def _followers(self):
        """(momentum copy, what it follows) for each part of the key branch."""
        pairs = [(self.momentum_encoder, self.encoder), (self.momentum_projection, self.projection)]
        if self.instance is not None:
            pairs.append((self.momentum_instance, self.instance.projection))
        return [(copy, part) for copy, part in pairs if copy is not None]

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """Weights of the query branch; the momentum copy follows them."""
        return [weight for part in self._query_parts for weight in part.trainable_weights] if self.trainable else []

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """The same; Keras 3 builds the optimizer of a loaded model from them."""
        return self.trainable_weights

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """Statistics of the query branch, all of the momentum copy, the momentum's step."""
        rest = [weight for part in self._query_parts for weight in part.non_trainable_weights]
        rest += [weight for copy, _ in self._followers for weight in copy.weights]
        rest.append(self.momentum_step)
        return rest if self.trainable else [*self.encoder.trainable_weights, *rest]

    def project(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The query branch up to the projection: images [B, H, W, 3] -> [B, h, w, D], not of unit length.

        A model without a pixel term gives the features themselves, D = C.
        """
        features = self.encoder(images, training=training)[self.level]
        return features if self.projection is None else self.projection(features, training=training)

    def propagate(self, projections: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Propagated pixels of unit length, [B, h, w, D] float32 (or float64)."""
        return self.pixel.query(projections, training)

    def target(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The momentum branch: images [B, H, W, 3] -> pixels of unit length [B, h, w, D] without gradient."""
        return self._targets(self.momentum_encoder(images, training=training), training)[self.level]

    def current_momentum(self) -> tf.Tensor:
        """Momentum that the next update uses, a scalar."""
        if self.steps is None:
            return tf.constant(self.momentum, tf.keras.backend.floatx())
        return momentum_schedule(self.momentum_step, self.steps, self.momentum)

    def update_momentum_encoder(self) -> None:
        """Moves the key branch's weights toward the query branch's and counts the update; statistics are left alone."""
        momentum = self.current_momentum()
        averages = [weight for copy, _ in self._followers for weight in copy.trainable_weights]
        weights = [weight for _, part in self._followers for weight in part.trainable_weights]

        def move(average, weight):
            m = tf.cast(momentum, average.dtype)
            return average.assign(m * average + (1 - m) * weight)

        def update(strategy):
            for average, weight in zip(variables(averages), variables(weights)):
                strategy.extended.update(average, move, args=(weight,), group=False)
            (step,) = variables([self.momentum_step])
            strategy.extended.update(step, lambda step: step.assign_add(1), group=False)

        if tf.distribute.in_cross_replica_context():
            update(tf.distribute.get_strategy())
        else:
            tf.distribute.get_replica_context().merge_call(update)

    def pretext_loss(self, batch: Mapping[str, tf.Tensor], training: bool = True) -> dict[str, tf.Tensor]:
        """The pretext task on one batch; in training it moves the momentum encoder first.

        Args:
          batch: {'view1', 'view2', 'box1', 'box2'}, see the class.
          training: BatchNorm mode, and whether the momentum encoder moves.

        Returns:
          Scalars: 'loss' (mean over the local batch; in [-4, 4] for pixel consistency alone), 'positives' (pairs per
            image on the last level), 'without_positives' (share of images), 'projection_std' (standard deviation of the
            unit projections over pixels, times sqrt(D): near 1 spread, 0 collapsed; of the instance term's vectors
            where there is no pixel term), 'momentum'; with an instance term also 'instance_loss', and 'pixel_loss'
            beside it, both without their weights.

        Raises:
          Mistake: if the batch lacks an entry.
        """
        view1, view2, box1, box2 = _entries(batch)
        logs = {"momentum": self.current_momentum()}
        features1, features2 = self.encoder(view1, training=training), self.encoder(view2, training=training)
        queries = self._queries((features1, features2), training)
        if training:
            self.update_momentum_encoder()
        targets = [self._targets(self.momentum_encoder(view, training=training), training) for view in (view1, view2)]
        pairs = {level: self._pairs(box1, box2, _cells(features1[level])) for level in self.levels}
        terms = {}
        if self.pixel_weight:
            losses = [self._symmetric(level, queries, targets, pairs[level]) for level in self.levels]
            terms["pixel_loss"] = tf.reduce_mean(tf.add_n(losses)) / len(losses)
        if self.instance is not None:
            losses = self._between_instances(queries, targets) + self._between_instances(queries[::-1], targets[::-1])
            terms["instance_loss"] = tf.reduce_mean(losses)
        weights = {"pixel_loss": self.pixel_weight, "instance_loss": self.instance_weight}
        positives = _positives(pairs[self.level])
        return {
            "loss": tf.add_n([weights[name] * term for name, term in terms.items()]),
            "positives": tf.reduce_mean(positives),
            "without_positives": tf.reduce_mean(tf.cast(tf.equal(positives, 0), tf.float32)),
            "projection_std": _spread(tf.stop_gradient(queries[0]["projection"])),
            **logs,
            **(terms if self.instance is not None else {}),
        }

    def _queries(self, features, training):
        """Outputs of the query branch for both views, by level, with 'instance' and 'projection'; layer by layer."""
        said = [{} for _ in features]
        if self.pixel_weight:
            for level in self.levels:
                projections = [self.projection(f[level], training=training) for f in features]
                for queries, projection in zip(said, projections):
                    queries[level] = self.pixel.query(projection, training)
                    queries["projection"] = projection
        if self.instance is not None:
            for queries, f in zip(said, features):
                queries["instance"] = self.instance.query(f[self.instance.level or self.level], training)
                queries.setdefault("projection", queries["instance"])
        return said

    def _targets(self, features, training):
        """Outputs of the momentum branch for one view, by level, with 'instance'."""
        said = {}
        if self.pixel_weight:
            said = {level: unit(self.momentum_projection(features[level], training=training)) for level in self.levels}
        if self.instance is not None:
            level = self.instance.level or self.level
            said["instance"] = self.instance.target(features[level], self.momentum_instance, training)
        return {name: tf.stop_gradient(value) for name, value in said.items()}

    def _pairs(self, box1, box2, cells):
        if self.block is None:
            return positive_mask(box1, box2, cells, self.distance)
        return BlockPairs(box1, box2, cells, self.distance, self.block)

    def _symmetric(self, level, queries, targets, pairs):
        """The pixel loss of both directions on one level, [B]."""
        transposed = pairs.transposed if isinstance(pairs, BlockPairs) else tf.linalg.matrix_transpose(pairs)
        losses = self.pixel.compare(queries[0][level], targets[1][level], pairs)
        return losses + self.pixel.compare(queries[1][level], targets[0][level], transposed)

    def _between_instances(self, queries, targets):
        """The instance loss from the first view to the second, [B]."""
        return self.instance.compare(queries[0]["instance"], targets[1]["instance"], targets[0]["instance"])

    def learn(self, batch: Mapping[str, tf.Tensor], optimizer: tf.keras.optimizers.Optimizer) -> dict[str, tf.Tensor]:
        """One optimizer step on one replica's batch; returns the logs of `pretext_loss` and its 'gradient_norm'."""
        weights = self.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables(weights))
            logs = self.pretext_loss(batch, training=True)
            total = logs["loss"] + sum(tf.cast(penalty, logs["loss"].dtype) for penalty in self.encoder.losses)
            # Replicas add their gradients, so each takes its share of the mean.
            loss = total / tf.distribute.get_strategy().num_replicas_in_sync
            loss = scaled(optimizer, loss)
        gradients = unscaled(optimizer, tape.gradient(loss, variables(weights)))
        # A pyramid has levels that no loss reads; their weights stay, and the optimizer need not warn of it.
        optimizer.apply_gradients([(g, weight) for g, weight in zip(gradients, weights) if g is not None])
        return {**logs, "gradient_norm": gradient_norm(optimizer, gradients)}

    def train_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.learn(data, self.optimizer)

    def test_step(self, data: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return self.pretext_loss(data, training=False)

    def get_config(self):
        level = self.level if len(self.levels) == 1 else list(self.levels)
        encoder = tf.keras.utils.serialize_keras_object(self.encoder)
        terms = [term for term in (self.pixel, self.instance) if term is not None]
        terms = [tf.keras.utils.serialize_keras_object(term) for term in terms]
        if self.instance is not None:
            terms[-1]["config"]["weight"] = self.instance_weight
        numbers = {name: getattr(self, name) for name in ("distance", "momentum", "steps", "block")}
        return {"name": self.name, "encoder": encoder, "terms": terms, "level": level, **numbers}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> PixPro:
        config = dict(config)
        for name in ("encoder", "projection", "propagation", "instance"):  # the last three in files of version 0.1
            if config.get(name) is not None:
                config[name] = tf.keras.utils.deserialize_keras_object(config[name], custom_objects=custom_objects)
        if config.get("terms") is not None:
            terms = config["terms"]
            config["terms"] = [tf.keras.utils.deserialize_keras_object(t, custom_objects=custom_objects) for t in terms]
        return cls(**config)


def _entries(batch):
    names = ("view1", "view2", "box1", "box2")
    missing = [name for name in names if not hasattr(batch, "keys") or name not in batch]
    if missing:
        received = sorted(batch) if hasattr(batch, "keys") else type(batch).__name__
        raise Mistake(f"a batch must hold {', '.join(names)}. Received {received}. Make it with tf_pixpro.data.")
    return [batch[name] for name in names]


def _check_encoder(encoder):
    if isinstance(encoder, tf.keras.layers.Layer):
        return
    packages = [kind.__module__.partition(".")[0] for kind in type(encoder).__mro__]
    package = next((name for name in packages if name in ("keras", "tf_keras")), packages[0])
    raise TypeError(
        "the encoder must be a model of tf.keras, which here is "
        f"{tf.keras.Model.__module__.partition('.')[0]}. Received "
        f"{package}'s {type(encoder).__name__}. Build it with tf.keras, or set "
        f"TF_USE_LEGACY_KERAS={int(package == 'tf_keras')} "
        "before TensorFlow is imported."
    )


def _level_shape(encoder, levels):
    shapes = getattr(encoder, "output_specs", None)
    if shapes is None and isinstance(getattr(encoder, "output", None), dict):
        shapes = {key: value.shape for key, value in encoder.output.items()}
    missing = [level for level in levels if not shapes or level not in shapes]
    if missing or not levels:
        known = ", ".join(map(repr, shapes)) if shapes else "no dict of levels"
        wanted = ", ".join(map(repr, missing)) or "one at least"
        raise Mistake(f"the encoder must give level {wanted}. Received an encoder with {known}.")
    channels = {shapes[level][-1] for level in levels}
    if len(channels) > 1:
        raise Mistake(
            f"levels {', '.join(levels)} share their heads and must have equal channels. Received {sorted(channels)}. "
            "Put a pyramid on the encoder."
        )
    return (None, None, None, *channels)


def _build(layer, shape):
    if not layer.built:
        layer.build(shape)


def _copy(layer, shape=None):
    """A second instance with the same weights."""
    config = layer.get_config()
    try:
        copy = type(layer).from_config({**config, "name": f"momentum_{layer.name}"})
    except (TypeError, ValueError, NotImplementedError) as error:
        raise Mistake(
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


def _positives(pairs):
    """Number of pairs of each image, [B] float32."""
    if isinstance(pairs, BlockPairs):
        return pairs.counts()
    return tf.reduce_sum(tf.cast(pairs, tf.float32), axis=[1, 2])


def _spread(projections):
    pixels = unit(projections)
    width = pixels.shape[-1]
    deviation = tf.math.reduce_std(tf.reshape(pixels, [-1, width]), axis=0)
    return tf.reduce_mean(deviation) * width**0.5
