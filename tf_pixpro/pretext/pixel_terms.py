"""PixContrast: the pretext model with a contrast between pixels in the place of propagation and consistency."""

from __future__ import annotations

from typing import Any, Optional

import tensorflow as tf

from tf_pixpro.pretext.losses import check_temperature, pixel_contrast
from tf_pixpro.pretext.model import PixPro
from tf_pixpro.pretext.pairwise import BlockPairs


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class PixContrast(PixPro):
    """PixContrast as a Keras model: each pixel finds the pixels of the other view that show the same place.

    Everything but the loss of a pair of maps is `PixPro`'s: the batch, the momentum encoder, levels, the instance term, one step.

    Args:
      encoder, projection: as in `PixPro`.
      temperature: divides the similarities.
      **kwargs: all other arguments of `PixPro` but `propagation`.

    Raises:
      ValueError: as `PixPro`, and if the temperature is not positive.

    Source: PixPro section 3.1, equation 2; never released by the authors. 'loss' is the sum of both directions.
    """

    def __init__(
        self,
        encoder: tf.keras.Model,
        projection: Optional[tf.keras.layers.Layer] = None,
        temperature: float = 0.3,
        **kwargs: Any,
    ):
        check_temperature(temperature)
        super().__init__(encoder, projection, propagation=tf.keras.layers.Identity(name="propagation"), **kwargs)
        self.temperature = temperature

    def compare(self, query: tf.Tensor, target: tf.Tensor, pairs: tf.Tensor | BlockPairs) -> tf.Tensor:
        return pixel_contrast(query, target, pairs, self.temperature)

    def get_config(self):
        config = super().get_config()
        config.pop("propagation")
        return {**config, "temperature": self.temperature}
