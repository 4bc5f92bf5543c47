"""Detection, instance and semantic segmentation through Model Garden, from an encoder of this project."""

import tensorflow as tf

from tf_evonorm.keras_generation import KERAS_2

if not KERAS_2:
    raise ImportError(
        f"tf_pixpro.transfer needs the Keras 2 of Model Garden. Received tf.keras {tf.keras.__version__}. "
        "Set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported."
    )
