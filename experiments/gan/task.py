"""A generator against a discriminator as one task of Model Garden's train loop: two optimizers, averaged weights, the stop at divergence."""

from __future__ import annotations

import dataclasses
from typing import Callable, Optional

import numpy as np
import tensorflow as tf
from official.core import base_task
from official.modeling import performance

from experiments.gan import scores
from tf_evonorm.layers.conditional import SpectralNormalization
from tf_pixpro.train import loop

_LOGGED = ("discriminator_loss", "generator_loss", "discriminator_gradient_norm", "generator_gradient_norm")


@dataclasses.dataclass(frozen=True)
class Scores:
    """What generated images are judged by.

    Attributes:
      images: input_context -> finite dataset of batches {'image' [b, H, W, 3] float32 in -1..1, 'latent' [b, z], 'label' [b]}: as many
        generated as real images are compared.
      network: a `gan_scores.FeatureNetwork`, made inside the strategy's scope.
      splits: parts of which the Inception Score is the mean.
    """

    images: Callable
    network: scores.FeatureNetwork
    splits: int = 10


class Adversaries(tf.Module):
    """Both networks, and the generator whose weights are averages; a checkpoint of it has the discriminator's optimizer too.

    Args:
      make_generator: () -> model, [latent [B, z], label [B]] -> images [B, H, W, 3] in -1..1; called twice.
      make_discriminator: () -> model, [images, label [B]] -> scores [B].
    """

    def __init__(self, make_generator: Callable, make_discriminator: Callable):
        super().__init__(name="adversaries")
        self.generator, self.average = make_generator(), make_generator()
        self.discriminator = make_discriminator()
        self.average.set_weights(self.generator.get_weights())
        self.pairs = list(zip(self.average.weights, self.generator.weights))
        for layer in self.average._flatten_layers():
            if isinstance(layer, SpectralNormalization):
                layer.trainable = False  # averages are not divided once more
        self.collapsed = tf.Variable(
            0, trainable=False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA, name="collapsed"
        )
        self.discriminator_optimizer = None


class AdversarialTask(base_task.Task):
    """BigGAN's training as a Model Garden task made of objects.

    A step is `discriminator_steps` steps of the discriminator, each on its own images, and one of the generator. Replicas see
    together what one would see.

    Args:
      networks: () -> `Adversaries`, called once inside the strategy's scope.
      optimizers: () -> (generator's, discriminator's) `tf.keras` optimizers.
      batches: (input_context, start_step) -> endless dataset of one replica's {'image' [n * b, H, W, 3] float32 in -1..1, 'label'
        [n * b], 'latent' [n * b, 2, z], 'other_label' [n * b, 2]}, n = discriminator_steps; the second latents and labels of some rows
        are the generator's.
      scores: a `Scores`, or None to train without evaluation.
      discriminator_steps: for one of the generator.
      average_decay: share of the averaged weights that stays at each step.
      average_start: up to this step the averages are the weights themselves.
      collapse_loss: a hinge loss below it counts as collapsed: the discriminator is no longer deceived at all.
      logging_dir: folder of the checkpoints. Its latest one tells at which step the images go on.

    Source: BigGAN, section 3 and appendix C: hinge loss, Adam, averages of the generator's weights for evaluation. Moving statistics
      are averaged like weights; `experiments.synthesize` takes them anew where there are any.
    """

    def __init__(
        self,
        networks: Callable,
        optimizers: Callable,
        batches: Callable,
        scores: Optional[Scores] = None,
        discriminator_steps: int = 1,
        average_decay: float = 0.9999,
        average_start: int = 0,
        collapse_loss: float = 0.01,
        logging_dir=None,
        name="adversarial",
    ):
        super().__init__(params=None, logging_dir=logging_dir, name=name)
        if discriminator_steps < 1 or not 0 <= average_decay < 1:
            raise ValueError(
                "the discriminator takes at least one step, and averages keep a share in [0, 1). Received "
                f"discriminator_steps={discriminator_steps}, average_decay={average_decay}."
            )
        self._make_networks, self._make_optimizers, self._make_batches = networks, optimizers, batches
        self._scores, self._steps, self._collapse_loss = scores, discriminator_steps, collapse_loss
        self._decay, self._start = average_decay, average_start

    def build_model(self) -> Adversaries:
        self._networks = self._make_networks()
        self._judge = self._scores.network.make() if self._scores else None
        return self._networks

    def create_optimizer(self, optimizer_config=None, runtime_config=None, dp_config=None):
        """The generator's optimizer; the discriminator's belongs to the `Adversaries`. Both with their buffers already made."""
        made = []
        networks = (self._networks.generator, self._networks.discriminator)
        for optimizer, network in zip(self._make_optimizers(), networks):
            if runtime_config is not None and runtime_config.mixed_precision_dtype == "float16":
                optimizer = performance.configure_optimizer(optimizer, True, runtime_config.loss_scale)
            optimizer.build(network.trainable_weights)
            made.append(optimizer)
        generators, self._networks.discriminator_optimizer = made
        return generators

    def initialize(self, model):
        """Nothing to load: a run starts from its own weights."""

    def build_inputs(self, params, input_context=None):
        if params.is_training:
            return self._make_batches(input_context, loop.latest_step(self.logging_dir))
        if self._scores is None:
            raise ValueError(
                "evaluation needs images to compare with. Received scores=None. Pass Scores, or run with mode='train'."
            )
        return self._scores.images(input_context)

    def build_metrics(self, training=True):
        metrics = [tf.keras.metrics.Mean(name) for name in _LOGGED] if training else []
        return [*metrics, loop.NonFiniteSteps()] if training else []

    def train_step(self, inputs, model, optimizer, metrics=None):
        for part in range(self._steps):  # every n-th row, so that it does not matter how replicas share the rows
            rows = {name: value[part :: self._steps] for name, value in inputs.items()}
            hinge, norm = self._discriminator_step(rows, model)
        rows = {name: value[:: self._steps] for name, value in inputs.items()}
        logs = {"discriminator_loss": hinge, "discriminator_gradient_norm": norm}
        logs["generator_loss"], logs["generator_gradient_norm"] = self._generator_step(rows, model, optimizer)
        self._average(model, optimizer)
        self._count_collapsed(model, hinge)
        scaled = hasattr(optimizer, "get_scaled_loss")  # then a gradient may overflow: the step is skipped
        for metric in metrics or ():
            if isinstance(metric, loop.NonFiniteSteps):
                metric.update_state(*(value for name, value in logs.items() if not (scaled and "norm" in name)))
            else:
                metric.update_state(logs[metric.name])
        return {self.loss: hinge}

    def _discriminator_step(self, rows, model):
        label = rows["other_label"][:, 0]
        generated = model.generator([rows["latent"][:, 0], label], training=True)
        images = tf.concat([rows["image"], tf.cast(generated, rows["image"].dtype)], 0)
        labels = tf.concat([rows["label"], label], 0)

        def loss():
            real, fake = tf.split(tf.cast(model.discriminator([images, labels], training=True), tf.float32), 2)
            return tf.reduce_mean(tf.nn.relu(1 - real)) + tf.reduce_mean(tf.nn.relu(1 + fake))

        return _descend(loss, model.discriminator.trainable_weights, model.discriminator_optimizer)

    def _generator_step(self, rows, model, optimizer):
        def loss():
            label = rows["other_label"][:, 1]
            generated = model.generator([rows["latent"][:, 1], label], training=True)
            return -tf.reduce_mean(tf.cast(model.discriminator([generated, label], training=True), tf.float32))

        return _descend(loss, model.generator.trainable_weights, optimizer)

    def _average(self, model, optimizer):
        decay = tf.where(optimizer.iterations > self._start, self._decay, 0.0)
        for average, weight in model.pairs:
            average.assign(decay * average + (1 - decay) * weight)

    def _count_collapsed(self, model, hinge):
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            hinge = context.all_reduce(tf.distribute.ReduceOp.MEAN, hinge)
        model.collapsed.assign(tf.where(hinge < self._collapse_loss, model.collapsed + 1, 0))

    def forward(self, inputs, model):
        """Runs the averaged generator in training mode, for statistics taken anew."""
        model.average([inputs["latent"][:, 0], inputs["other_label"][:, 0]], training=True)

    def validation_step(self, inputs, model, metrics=None):
        generated = model.average([inputs["latent"], inputs["label"]], training=False)
        real, _ = self._judge(inputs["image"])
        features, probabilities = self._judge(generated)
        logs = {"real": real, "features": features, "probabilities": probabilities}
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # The only strategy whose other replicas this process does not see.
            logs = tf.distribute.get_replica_context().all_gather(tf.nest.map_structure(tf.identity, logs), axis=0)
        return logs

    def aggregate_logs(self, state=None, step_outputs=None):
        state = state or (scores.Moments(), scores.Moments(), scores.InceptionScore(self._scores.splits))
        replicas = 1 if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy) else None
        for statistic, name in zip(state, ("real", "features", "probabilities")):
            statistic.update(np.concatenate([value.numpy() for value in step_outputs[name][:replicas]]))
        return state

    def reduce_aggregated_logs(self, aggregated_logs, global_step=None):
        real, generated, inception = aggregated_logs
        mean, spread = inception.result()
        distance, score = self._scores.network.distance, self._scores.network.score
        return {distance: scores.frechet_distance(real, generated), score: mean, f"{score}_spread": spread}

    @property
    def best(self):
        """Name of the number that ranks checkpoints, and which is better; None without scores."""
        return (self._scores.network.distance, "lower") if self._scores else None


class StopAtCollapse:
    """A train action that stops a run whose discriminator has not been deceived for many steps in a row.

    Args:
      model: `Adversaries`.
      steps: how many.
      global_step: variable, the step reached.
      workdir: of the run, for the message.
    """

    def __init__(self, model, steps: int, global_step, workdir: str):
        self._model, self._steps, self._global_step, self._workdir = model, steps, global_step, workdir

    def __call__(self, output):
        collapsed, step = int(self._model.collapsed.numpy()), int(self._global_step.numpy())
        output["collapsed_steps"] = float(collapsed)
        if collapsed >= self._steps:
            raise FloatingPointError(
                f"the discriminator must be deceived now and then. Its hinge loss has been near 0 since step {step - collapsed + 1}, "
                f"the last {collapsed} steps: training has collapsed. Start again with a lower rate of the discriminator, or fewer of its "
                f"steps. Earlier checkpoints are in {self._workdir}."
            )


def _descend(loss, weights, optimizer):
    """One step of an optimizer; returns the loss of this replica and the norm of its gradient."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        value = loss()
        # Replicas add their gradients, so each takes its share of the mean.
        share = value / tf.distribute.get_strategy().num_replicas_in_sync
        share = optimizer.get_scaled_loss(share) if hasattr(optimizer, "get_scaled_loss") else share
    gradients = tape.gradient(share, weights)
    if hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, weights))
    return value, tf.linalg.global_norm(gradients)
