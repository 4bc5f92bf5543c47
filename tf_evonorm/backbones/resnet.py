"""ResNet v1.5 (post-activation, stride on the 3x3 convolution), 18 to 152 layers."""

from __future__ import annotations

import tensorflow as tf

from tf_evonorm.backbones.backbone import Backbone
from tf_evonorm.backbones.convolution import MaxPool, convolve

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@tf.keras.utils.register_keras_serializable(package="tf_evonorm.stand_in")
class BatchNormRelu(tf.keras.layers.BatchNormalization):
    """BatchNorm and ReLU, until the project's own layer takes this place."""

    def __init__(self, apply_act=True, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.apply_act = apply_act

    def call(self, inputs, training=None, **kwargs):
        outputs = super().call(inputs, training=training, **kwargs)
        return tf.nn.relu(outputs) if self.apply_act else outputs

    def get_config(self):
        return {**super().get_config(), "apply_act": self.apply_act}


def resnet(
    depth: int = 50,
    norm_act=None,
    *,
    input_size=(None, None, 3),
    width: float = 1.0,
    blocks=None,
    stem: str = "imagenet",
    output_stride: int = 32,
    zero_last_gamma: bool = True,
    kernel_regularizer=None,
    name: str | None = None,
) -> Backbone:
    """Builds a post-activation ResNet v1.5 as an encoder.

    Layers carry the names of the authors' PyTorch modules (`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`,
    ...; a `bn` is whatever `norm_act` makes), so converting weights is renaming.

    Args:
        depth: 18 or 34 (two 3x3 convolutions per block); 50, 101 or 152 (bottlenecks).
        norm_act: callable returning a fresh layer, called as `norm_act(apply_act=..., gamma_initializer=..., name=...)`.
            None is BatchNorm followed by ReLU. The last norm of a branch and that of a shortcut have no activation; a
            plain ReLU follows their sum.
        input_size: (height, width, channels) of the images, pixels; None where unknown.
        width: factor of all channel counts; each product is rounded down. May be a fraction.
        blocks: residual blocks of the four levels; None is what the depth says.
        stem: "imagenet", a 7x7 convolution of stride 2 and a max-pool; or "small", one 3x3 convolution of stride 1 for
            images of about 32 pixels, which makes every level four times larger.
        output_stride: 32, 16 or 8 with the "imagenet" stem: where a level would go beyond it, the level is dilated
            instead of strided.
        zero_last_gamma: whether the last gamma of each branch starts at 0, so that blocks start as the identity.
        kernel_regularizer: Keras regularizer of the convolution weights.
        name: name of the model.

    Returns:
        A `Backbone` from [B, H, W, 3] to {"2": [B, H/4, W/4, C], "3": ..., "4": ..., "5": [B, H/32, W/32, 8 C]}, sizes
        rounded up.

    Raises:
        ValueError: an unknown depth, stem or output stride, or a width that leaves no channel.

    Source: He et al. 2015 (Deep Residual Learning), with the stride on the 3x3 convolution, padding, names and initial
        values of PixPro's encoder (github.com/zdaxie/PixPro, contrast/resnet.py). Keras' BatchNorm keeps the running
        variance that its `norm_act` defines.
    """
    if depth not in BLOCKS:
        raise ValueError(
            f"depth must be one of {sorted(BLOCKS)}. Received depth={depth}. Pass one of these, and blocks=."
        )
    if stem not in ("imagenet", "small"):
        raise ValueError(f"stem must be 'imagenet' or 'small'. Received stem={stem!r}. Pass one of the two.")
    if output_stride not in (8, 16, 32):
        raise ValueError(
            f"output_stride must be 8, 16 or 32. Received output_stride={output_stride}. Pass one of them."
        )
    if int(64 * width) < 1:
        raise ValueError(f"width must leave a channel in the stem. Received width={width}. Pass at least 1/64.")
    norm_act = norm_act or BatchNormRelu
    block = _bottleneck if depth >= 50 else _basic_block

    images = tf.keras.Input(input_size, name="images")
    x = convolve(images, int(64 * width), *((7, 2) if stem == "imagenet" else (3, 1)), 1, kernel_regularizer, "conv1")
    x = norm_act(name="bn1")(x)
    if stem == "imagenet":
        x = MaxPool(3, 2, name="maxpool")(x)

    stride, dilation, levels = 4, 1, {}
    for level, repeats in enumerate(blocks or BLOCKS[depth]):
        step = 1 if level == 0 else 2
        if stride * step > output_stride:
            step, dilation = 1, dilation * 2
        stride *= step
        for repeat in range(repeats):
            x = block(
                x,
                int(64 * 2**level * width),
                stride=step if repeat == 0 else 1,
                dilation=dilation,
                norm_act=norm_act,
                gamma="zeros" if zero_last_gamma else "ones",
                kernel_regularizer=kernel_regularizer,
                name=f"layer{level + 1}.{repeat}",
            )
        levels[str(level + 2)] = x
    return Backbone(inputs=images, outputs=levels, name=name or f"resnet{depth}")


def _basic_block(x, filters, *, stride, dilation, norm_act, gamma, kernel_regularizer, name):
    """Two 3x3 convolutions beside a shortcut."""
    branch = convolve(x, filters, 3, stride, dilation, kernel_regularizer, f"{name}.conv1")
    branch = norm_act(name=f"{name}.bn1")(branch)
    branch = convolve(branch, filters, 3, 1, dilation, kernel_regularizer, f"{name}.conv2")
    branch = norm_act(apply_act=False, gamma_initializer=gamma, name=f"{name}.bn2")(branch)
    return _join(x, branch, stride, norm_act, kernel_regularizer, name)


def _bottleneck(x, filters, *, stride, dilation, norm_act, gamma, kernel_regularizer, name):
    """1x1, 3x3 (strided) and 1x1 convolutions, the last four times as wide, beside a shortcut."""
    branch = convolve(x, filters, 1, 1, 1, kernel_regularizer, f"{name}.conv1")
    branch = norm_act(name=f"{name}.bn1")(branch)
    branch = convolve(branch, filters, 3, stride, dilation, kernel_regularizer, f"{name}.conv2")
    branch = norm_act(name=f"{name}.bn2")(branch)
    branch = convolve(branch, 4 * filters, 1, 1, 1, kernel_regularizer, f"{name}.conv3")
    branch = norm_act(apply_act=False, gamma_initializer=gamma, name=f"{name}.bn3")(branch)
    return _join(x, branch, stride, norm_act, kernel_regularizer, name)


def _join(x, branch, stride, norm_act, kernel_regularizer, name):
    """Adds the shortcut, projected where its shape differs, and activates the sum."""
    if stride > 1 or x.shape[-1] != branch.shape[-1]:
        x = convolve(x, branch.shape[-1], 1, stride, 1, kernel_regularizer, f"{name}.downsample.0")
        x = norm_act(apply_act=False, name=f"{name}.downsample.1")(x)
    total = tf.keras.layers.Add(name=f"{name}.add")([branch, x])
    return tf.keras.layers.Activation("relu", name=f"{name}.relu")(total)
