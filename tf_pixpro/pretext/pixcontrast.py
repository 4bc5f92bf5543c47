"""PixContrast under its own name: the pretext model with the term that contrasts pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import tensorflow as tf

from tf_pixpro.pretext.losses import check_temperature
from tf_pixpro.pretext.model import PixPro
from tf_pixpro.pretext.pixel_terms import PixelContrast
from tf_pixpro.pretext.terms import check_terms, check_unused


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixContrast(PixPro):
    """`PixPro` with `PixelContrast`: each pixel identifies the other view's pixels at the same position.

    Args:
      encoder: as in `PixPro`.
      projection, temperature: of `PixelContrast`.
      level, distance, momentum, steps, instance, pixel_weight, instance_weight, block, terms, name, dtype, trainable:
        as in `PixPro`.

    Raises:
      Mistake: as `PixPro`, and if the temperature is not positive.

    Source: PixPro section 3.1, equation 2; never released by the authors. 'loss' is the sum of both directions.
    """

    def __init__(
        self,
        encoder: tf.keras.Model,
        projection: Optional[tf.keras.layers.Layer] = None,
        temperature: float = 0.3,
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
        check_temperature(temperature)
        if terms is None:
            check_terms(projection, instance, pixel_weight, instance_weight)
            terms = [PixelContrast(projection, temperature, pixel_weight)] if pixel_weight else []
            terms += [instance] if instance is not None else []
        else:
            check_unused((projection, instance), (pixel_weight, instance_weight))
        super().__init__(
            encoder,
            level=level,
            distance=distance,
            momentum=momentum,
            steps=steps,
            block=block,
            terms=terms,
            name=name,
            dtype=dtype,
            trainable=trainable,
        )
        if instance is not None:
            self.instance_weight *= instance_weight

    @property
    def temperature(self) -> float:
        """Of the pixel term."""
        return self.pixel.temperature
