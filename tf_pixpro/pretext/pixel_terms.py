"""Pixel terms: what the pretext model may ask of the corresponding pixels of two views."""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from tf_pixpro.pretext.layers import PixelPropagation, ProjectionHead, unit
from tf_pixpro.pretext.losses import check_temperature, check_weight, pixel_consistency, pixel_contrast
from tf_pixpro.pretext.pairwise import BlockPairs


class _PixelTerm:
    """A projection of every pixel, and a loss between the pixels of two views.

    `PixPro` holds the heads and their momentum copy.
    """

    propagation: Optional[tf.keras.layers.Layer] = None

    def __init__(self, projection: Optional[tf.keras.layers.Layer], weight: float):
        check_weight(weight)
        self.projection = projection if projection is not None else ProjectionHead(name="projection")
        self.weight = weight

    def build(self, shape: tuple) -> None:
        """Builds the heads on a level of shape (None, None, None, C)."""
        if not self.projection.built:
            self.projection.build(shape)

    def get_config(self) -> dict:
        return {"projection": tf.keras.utils.serialize_keras_object(self.projection), "weight": self.weight}

    @classmethod
    def from_config(cls, config: dict) -> _PixelTerm:
        heads = {name: config[name] for name in ("projection", "propagation") if isinstance(config.get(name), dict)}
        return cls(
            **{**config, **{name: tf.keras.utils.deserialize_keras_object(head) for name, head in heads.items()}}
        )


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixelConsistency(_PixelTerm):
    """Pixel-to-propagation consistency (PixPro).

    A propagated pixel of one view equals the momentum pixels at its position in the other.

    With u(x) = x / |x|: query u(propagation(projection(features))), target u(momentum projection(features)), loss
    `tf_pixpro.pretext.losses.pixel_consistency`.

    Args:
      projection: the head on the encoder's level, [B, h, w, C] -> [B, h, w, D]; default `ProjectionHead()`.
      propagation: [B, h, w, D] -> [B, h, w, D], of the query branch only; default `PixelPropagation()`.
      weight: factor of the loss in the sum of terms.

    Raises:
      Mistake: if the weight is negative.

    Source: PixPro section 3.2.
    """

    def __init__(
        self,
        projection: Optional[tf.keras.layers.Layer] = None,
        propagation: Optional[tf.keras.layers.Layer] = None,
        weight: float = 1.0,
    ):
        super().__init__(projection, weight)
        self.propagation = propagation if propagation is not None else PixelPropagation(name="propagation")

    def build(self, shape: tuple) -> None:
        super().build(shape)
        if not self.propagation.built:  # type: ignore[union-attr]
            self.propagation.build(self.projection.compute_output_shape(shape))  # type: ignore[union-attr]

    def query(self, projections: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Propagated pixels of unit length: [B, h, w, D] -> [B, h, w, D] float32 (or float64)."""
        return unit(self.propagation(projections, training=training))  # type: ignore[misc]

    def compare(self, query: tf.Tensor, target: tf.Tensor, pairs: tf.Tensor | BlockPairs) -> tf.Tensor:
        """Loss of one direction, [B]: maps [B, h, w, D] of unit length; pairs as a mask or `BlockPairs`."""
        return pixel_consistency(query, target, pairs)

    def get_config(self) -> dict:
        return {**super().get_config(), "propagation": tf.keras.utils.serialize_keras_object(self.propagation)}


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixelContrast(_PixelTerm):
    """Pixel contrast (PixContrast).

    Each pixel of one view identifies the momentum pixels at its position in the other view.

    With u(x) = x / |x|: query u(projection(features)), target u(momentum projection(features)), loss
    `tf_pixpro.pretext.losses.pixel_contrast`.

    Args:
      projection: as in `PixelConsistency`.
      temperature: divides the similarities.
      weight: factor of the loss in the sum of terms.

    Raises:
      Mistake: if the temperature is not positive or the weight is negative.

    Source: PixPro section 3.1, equation 2; never released by the authors.
    """

    def __init__(
        self, projection: Optional[tf.keras.layers.Layer] = None, temperature: float = 0.3, weight: float = 1.0
    ):
        check_temperature(temperature)
        super().__init__(projection, weight)
        self.temperature = temperature

    def query(self, projections: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Pixels of unit length: [B, h, w, D] -> [B, h, w, D] float32 (or float64)."""
        return unit(projections)

    def compare(self, query: tf.Tensor, target: tf.Tensor, pairs: tf.Tensor | BlockPairs) -> tf.Tensor:
        """Loss of one direction, [B], as in `PixelConsistency`."""
        return pixel_contrast(query, target, pairs, self.temperature)

    def get_config(self) -> dict:
        return {**super().get_config(), "temperature": self.temperature}


def is_pixel_term(term: Any) -> bool:
    """Whether a term is one on pixels; the others are on whole views."""
    return isinstance(term, _PixelTerm)
