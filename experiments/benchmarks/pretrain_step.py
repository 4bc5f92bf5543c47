"""Duration of one pre-training step and of its parts, beside a straightforward implementation.

    python -m experiments.benchmark pretrain-step [--depth=50] [--size=224] [--batch=8] [--repeats=7]

The plain step is the same mathematics in its most direct form: Keras' BatchNormalization and ReLU, a mask and a sum
over the similarities of all pairs, a tape over everything. Both are traced by `tf.function` and timed alternately in
one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

import tf_evonorm
from tf_pixpro import LARS, PixPro, positive_mask


@tf.keras.utils.register_keras_serializable("experiments")
class PlainNormAct(tf.keras.layers.BatchNormalization):
    """Keras' BatchNormalization and a separate ReLU, with the interface of a norm_act."""

    def __init__(self, apply_act: bool = True, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.apply_act = apply_act

    def call(self, inputs: tf.Tensor, training: Optional[bool] = None) -> tf.Tensor:
        outputs = super().call(inputs, training=training)
        return tf.nn.relu(outputs) if self.apply_act else outputs

    def get_config(self) -> dict:
        return {**super().get_config(), "apply_act": self.apply_act}


def views(size: int, batch: int) -> dict[str, tf.Tensor]:
    """Returns random views whose boxes overlap."""
    generator = np.random.default_rng(0)
    images = {f"view{v}": generator.normal(size=(batch, size, size, 3)).astype(np.float32) for v in (1, 2)}
    low, high = generator.uniform(0, 0.3, (2, batch, 2)), generator.uniform(0.6, 1, (2, batch, 2))
    boxes = {f"box{v + 1}": np.concatenate([low[v], high[v]], -1).astype(np.float32) for v in (0, 1)}
    return {name: tf.constant(value) for name, value in {**images, **boxes}.items()}


def plain_step(model: PixPro, optimizer: tf.keras.optimizers.Optimizer) -> Callable:
    """Returns the step in its most direct form, of the parts of a model."""
    averages = [*model.momentum_encoder.trainable_weights, *model.momentum_projection.trainable_weights]
    weights = [*model.encoder.trainable_weights, *model.projection.trainable_weights]

    def one_way(prediction: tf.Tensor, target: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        side = prediction.shape[1] * prediction.shape[2]
        flat = [tf.reshape(x, [-1, side, x.shape[-1]]) for x in (prediction, target)]
        cosine = tf.matmul(flat[0], flat[1], transpose_b=True)
        return -2 * tf.reduce_sum(cosine * mask, [1, 2]) / (tf.reduce_sum(mask, [1, 2]) + 1e-6)

    def step(batch: dict) -> tf.Tensor:
        with tf.GradientTape() as tape:
            one, two = (model.propagate(model.project(batch[v], True), True) for v in ("view1", "view2"))
            for average, weight in zip(averages, weights):
                average.assign(0.99 * average + 0.01 * weight)
            target1, target2 = (model.target(batch[v], True) for v in ("view1", "view2"))
            there = tf.cast(positive_mask(batch["box1"], batch["box2"], one.shape[1:3]), tf.float32)
            back = tf.cast(positive_mask(batch["box2"], batch["box1"], one.shape[1:3]), tf.float32)
            loss = tf.reduce_mean(one_way(one, target2, there) + one_way(two, target1, back))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights))
        return loss

    return tf.function(step)


def model_and_optimizer(
    depth: int, norm_act: Optional[Callable] = None
) -> tuple[PixPro, tf.keras.optimizers.Optimizer]:
    """Returns PixPro on a ResNet, and LARS."""
    model = PixPro(tf_evonorm.backbones.resnet(depth, norm_act=norm_act))
    return model, LARS(0.1, weight_decay=1e-5)


def parts_of(model: PixPro, optimizer: tf.keras.optimizers.Optimizer) -> dict[str, Callable]:
    """Returns the parts of the step as functions of a batch; the backward pass is `gradients` minus the loss."""

    def gradients(batch: dict) -> list[tf.Tensor]:
        weights = model.trainable_weights
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            loss = model.pretext_loss(batch)["loss"]
        return tape.gradient(loss, weights)

    constant = [tf.fill(weight.shape, 1e-6) for weight in model.trainable_weights]
    return {
        "whole step": tf.function(lambda batch: model.learn(batch, optimizer)["loss"]),
        "query encoder, forward": tf.function(
            lambda b: [model.encoder(b[v], training=True)["5"] for v in ("view1", "view2")]
        ),
        "momentum branch, forward": tf.function(lambda b: [model.target(b[v], True) for v in ("view1", "view2")]),
        "both branches and loss": tf.function(lambda b: model.pretext_loss(b)["loss"]),
        "the same with gradients": tf.function(gradients),
        "momentum update": tf.function(lambda b: model.update_momentum_encoder()),
        "optimizer": tf.function(lambda b: optimizer.apply_gradients(zip(constant, model.trainable_weights))),
    }


def milliseconds(functions: dict[str, Callable], batch: dict, repeats: int) -> dict[str, float]:
    """Returns the median duration of each function, called alternately after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            tf.nest.map_structure(lambda x: x.numpy() if hasattr(x, "numpy") else x, function(batch))
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main(argv: Sequence[str]) -> None:
    """Prints a row for each part."""
    parser = argparse.ArgumentParser(prog="benchmark pretrain-step")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    batch = views(options.size, options.batch)
    model, optimizer = model_and_optimizer(options.depth)
    functions = parts_of(model, optimizer)
    functions["plain step"] = plain_step(*model_and_optimizer(options.depth, PlainNormAct))
    median = milliseconds(functions, batch, options.repeats)
    print(
        f"ResNet-{options.depth}, {options.size} px, batch {options.batch}, float32; medians of {options.repeats}, ms"
    )
    for name, value in median.items():
        print(f"{name:28s} {value:9.1f}   {value / median['plain step']:6.2f} of the plain step")
    print(f"images/s: {1000 * options.batch / median['whole step']:.2f}")
