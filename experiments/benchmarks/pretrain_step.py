"""How long one pre-training step takes, what each part of it costs, and how it compares with a plainly written step.

    python -m experiments.benchmark pretrain-step [--depth=50] [--size=224] [--batch=8] [--repeats=7]

The plain step is the same mathematics as one would first write it: Keras' own BatchNormalization and ReLU, all pairs' similarities
masked and summed, a tape over everything. Both are traced by `tf.function` and timed in turns in one process.
"""

import argparse
import statistics
import time

import numpy as np
import tensorflow as tf

import tf_evonorm
from tf_pixpro import LARS, PixPro, positive_mask


@tf.keras.utils.register_keras_serializable("experiments")
class PlainNormAct(tf.keras.layers.BatchNormalization):
    """Keras' BatchNormalization and a separate ReLU, in the shape of a norm_act."""

    def __init__(self, apply_act=True, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)
        self.apply_act = apply_act

    def call(self, inputs, training=None):
        outputs = super().call(inputs, training=training)
        return tf.nn.relu(outputs) if self.apply_act else outputs

    def get_config(self):
        return {**super().get_config(), "apply_act": self.apply_act}


def views(size: int, batch: int) -> dict:
    """Random views whose boxes overlap."""
    generator = np.random.default_rng(0)
    images = {f"view{v}": generator.normal(size=(batch, size, size, 3)).astype(np.float32) for v in (1, 2)}
    low, high = generator.uniform(0, 0.3, (2, batch, 2)), generator.uniform(0.6, 1, (2, batch, 2))
    boxes = {f"box{v + 1}": np.concatenate([low[v], high[v]], -1).astype(np.float32) for v in (0, 1)}
    return {name: tf.constant(value) for name, value in {**images, **boxes}.items()}


def plain_step(model: PixPro, optimizer):
    """The step as one would first write it; uses the model's parts only."""
    averages = [*model.momentum_encoder.trainable_weights, *model.momentum_projection.trainable_weights]
    weights = [*model.encoder.trainable_weights, *model.projection.trainable_weights]

    def direction(prediction, target, mask):
        side = prediction.shape[1] * prediction.shape[2]
        flat = [tf.reshape(x, [-1, side, x.shape[-1]]) for x in (prediction, target)]
        cosine = tf.matmul(flat[0], flat[1], transpose_b=True)
        return -2 * tf.reduce_sum(cosine * mask, [1, 2]) / (tf.reduce_sum(mask, [1, 2]) + 1e-6)

    def step(batch):
        with tf.GradientTape() as tape:
            one, two = (model.propagate(model.project(batch[v], True), True) for v in ("view1", "view2"))
            for average, weight in zip(averages, weights):
                average.assign(0.99 * average + 0.01 * weight)
            target1, target2 = (model.target(batch[v], True) for v in ("view1", "view2"))
            there = tf.cast(positive_mask(batch["box1"], batch["box2"], one.shape[1:3]), tf.float32)
            back = tf.cast(positive_mask(batch["box2"], batch["box1"], one.shape[1:3]), tf.float32)
            loss = tf.reduce_mean(direction(one, target2, there) + direction(two, target1, back))
        gradients = tape.gradient(loss, model.trainable_weights)
        optimizer.apply_gradients(zip(gradients, model.trainable_weights))
        return loss

    return tf.function(step)


def steps_of(depth: int, norm_act=None):
    """A model, and its parts as traced functions of a batch."""
    model = PixPro(tf_evonorm.backbones.resnet(depth, norm_act=norm_act))
    return model, LARS(0.1, weight_decay=1e-5)


def parts_of(model: PixPro, optimizer) -> dict:
    """What the step is made of, each on its own; the backward pass is what `gradients` takes beyond the loss."""

    def gradients(batch):
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


def milliseconds(functions: dict, batch: dict, repeats: int) -> dict:
    """Median time of each function, taken in turns after two calls that do not count."""
    times = {name: [] for name in functions}
    for turn in range(repeats + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            tf.nest.map_structure(lambda x: x.numpy() if hasattr(x, "numpy") else x, function(batch))
            if turn >= 2:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main(argv) -> None:
    parser = argparse.ArgumentParser(prog="benchmark pretrain-step")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(argv)
    batch = views(options.size, options.batch)
    model, optimizer = steps_of(options.depth)
    functions = parts_of(model, optimizer)
    functions["plain step"] = plain_step(*steps_of(options.depth, PlainNormAct))
    median = milliseconds(functions, batch, options.repeats)
    print(
        f"ResNet-{options.depth}, {options.size} px, batch {options.batch}, float32; medians of {options.repeats}, ms"
    )
    for name, value in median.items():
        print(f"{name:28s} {value:9.1f}   {value / median['plain step']:6.2f} of the plain step")
    print(f"images/s: {1000 * options.batch / median['whole step']:.2f}")
