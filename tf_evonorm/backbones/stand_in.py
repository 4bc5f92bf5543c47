"""BatchNorm with an activation, until the project's own layer takes this place."""

import tensorflow as tf


@tf.keras.utils.register_keras_serializable(package="tf_evonorm.stand_in")
class BatchNormAct(tf.keras.layers.BatchNormalization):
    def __init__(self, apply_act=True, activation="relu", momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.apply_act = apply_act
        self.activation = activation

    def call(self, inputs, training=None, **kwargs):
        outputs = super().call(inputs, training=training, **kwargs)
        act = tf.nn.relu6 if self.activation == "relu6" else tf.keras.activations.get(self.activation)
        return act(outputs) if self.apply_act else outputs

    def get_config(self):
        return {**super().get_config(), "apply_act": self.apply_act, "activation": self.activation}
