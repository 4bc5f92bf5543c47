"""Adversarial training as a task of Model Garden: two optimizers, averaged weights, a stop at collapse."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, Optional

import tensorflow as tf
from official.core import base_task

from experiments.gan import scores
from tf_evonorm.layers.conditional import SpectralNormalization
from tf_evonorm.mistakes import Mistake
from tf_pixpro.train import loop
from tf_pixpro.train.task import ObjectTask, built_optimizer, collected, gathered, update_metrics

_LOGGED = ("discriminator_loss", "generator_loss", "discriminator_gradient_norm", "generator_gradient_norm")


@dataclasses.dataclass(frozen=True)
class Scores:
    """How generated images are evaluated.

    Attributes:
      images: input_context -> finite dataset of batches {'image' [b, H, W, 3] float32 in [-1, 1], 'latent' [b, z],
        'label' [b]}; one image is generated for each real one.
      network: feature network, built inside the strategy's scope.
      splits: number of parts of which the Inception Score is the mean.
    """

    images: Callable[[Optional[tf.distribute.InputContext]], tf.data.Dataset]
    network: scores.FeatureNetwork
    splits: int = 10


class Adversaries(tf.Module):
    """Generator, discriminator, averaged generator; checkpoints include the discriminator's optimizer.

    Args:
      make_generator: () -> model, [latent [B, z], label [B]] -> images [B, H, W, 3] in [-1, 1]; called twice.
      make_discriminator: () -> model, [images, label [B]] -> scores [B].
    """

    def __init__(self, make_generator: Callable[[], tf.keras.Model], make_discriminator: Callable[[], tf.keras.Model]):
        super().__init__(name="adversaries")
        self.generator, self.average = make_generator(), make_generator()
        self.discriminator = make_discriminator()
        self.average.set_weights(self.generator.get_weights())
        self.pairs = list(zip(self.average.weights, self.generator.weights))
        for layer in self.average._flatten_layers():
            if isinstance(layer, SpectralNormalization):
                layer.trainable = False  # averaged weights are normalized already
        self.collapsed = tf.Variable(
            0, trainable=False, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA, name="collapsed"
        )
        self.discriminator_optimizer: Any = None


class AdversarialTask(ObjectTask, base_task.Task):
    """BigGAN's training as a Model Garden task.

    A step is `discriminator_steps` steps of the discriminator, each on its own images, and one step of the generator.
    The result does not depend on the number of replicas.

    Args:
      networks: () -> `Adversaries`, called once inside the strategy's scope.
      optimizers: () -> the `tf.keras` optimizers of generator and discriminator.
      batches: (input_context, start_step) -> infinite dataset of the batches of one replica, {'image' [n * b, H, W, 3]
        float32 in [-1, 1], 'label' [n * b], 'latent' [n * b, 2, z], 'other_label' [n * b, 2]}, with n =
        discriminator_steps; the generator's step takes the second latents and labels of every n-th row.
      scores: how generated images are evaluated, or None to train without evaluation.
      discriminator_steps: steps of the discriminator for each step of the generator.
      average_decay: decay of the moving averages of the generator's weights.
      average_start: step up to which the averages equal the weights.
      collapse_loss: a hinge loss below it counts as collapse: the discriminator is no longer deceived.
      logging_dir: folder of the checkpoints; the latest one gives the step at which the images are resumed.
      name: name of the task.

    Raises:
      Mistake: if discriminator_steps or average_decay is out of range.

    Source: BigGAN, section 3 and appendix C: hinge loss, Adam, moving averages of the generator's weights for
      evaluation. Moving statistics are averaged like weights; `experiments.synthesize` recomputes them where there
      are any.
    """

    def __init__(
        self,
        networks: Callable[[], Adversaries],
        optimizers: Callable[[], Sequence[tf.keras.optimizers.Optimizer]],
        batches: Callable[[Optional[tf.distribute.InputContext], int], tf.data.Dataset],
        scores: Optional[Scores] = None,
        discriminator_steps: int = 1,
        average_decay: float = 0.9999,
        average_start: int = 0,
        collapse_loss: float = 0.01,
        logging_dir: Optional[str] = None,
        name: str = "adversarial",
    ):
        super().__init__(params=None, logging_dir=logging_dir, name=name)
        if discriminator_steps < 1 or not 0 <= average_decay < 1:
            raise Mistake(
                "discriminator_steps must be 1 or more, and average_decay in [0, 1). Received "
                f"discriminator_steps={discriminator_steps}, average_decay={average_decay}. BigGAN's are 2 and 0.9999."
            )
        self._make_networks, self._make_optimizers, self._make_batches = networks, optimizers, batches
        self._scores: Any = scores
        self._steps, self._collapse_loss = discriminator_steps, collapse_loss
        self._decay, self._start = average_decay, average_start

    def build_model(self) -> Adversaries:
        self._networks = self._make_networks()
        self._judge: Any = self._scores.network.make() if self._scores else None
        return self._networks

    def create_optimizer(
        self, optimizer_config: Any = None, runtime_config: Any = None, dp_config: Any = None
    ) -> tf.keras.optimizers.Optimizer:
        """Builds both optimizers and returns the generator's; the discriminator's belongs to the `Adversaries`."""
        networks = (self._networks.generator, self._networks.discriminator)
        generators, self._networks.discriminator_optimizer = (
            built_optimizer(optimizer, network.trainable_weights, runtime_config)
            for optimizer, network in zip(self._make_optimizers(), networks)
        )
        return generators

    def build_inputs(self, params: Any, input_context: Optional[tf.distribute.InputContext] = None) -> tf.data.Dataset:
        if params.is_training:
            return self._make_batches(input_context, loop.latest_step(self.logging_dir))
        if self._scores is None:
            raise Mistake(
                "evaluation needs images to compare with. Received scores=None. Pass Scores, or run with mode='train'."
            )
        return self._scores.images(input_context)

    def build_metrics(self, training: bool = True) -> list[tf.keras.metrics.Metric]:
        """Means of both losses and gradient norms in training, with `NonFiniteSteps`."""
        means = [tf.keras.metrics.Mean(name) for name in _LOGGED] if training else []
        return [*means, *super().build_metrics(training)]

    def train_step(
        self,
        inputs: dict[str, tf.Tensor],
        model: Adversaries,
        optimizer: tf.keras.optimizers.Optimizer,
        metrics: Optional[Sequence[tf.keras.metrics.Metric]] = None,
    ) -> dict[str, tf.Tensor]:
        """Takes the steps of one training step; returns the discriminator's loss."""
        for part in range(
            self._steps
        ):  # every n-th row, so that the distribution of rows over replicas does not matter
            rows = {name: value[part :: self._steps] for name, value in inputs.items()}
            hinge, norm = self.discriminator_step(rows, model)
        rows = {name: value[:: self._steps] for name, value in inputs.items()}
        logs = {"discriminator_loss": hinge, "discriminator_gradient_norm": norm}
        logs["generator_loss"], logs["generator_gradient_norm"] = self.generator_step(rows, model, optimizer)
        self._average(model, optimizer)
        self._count_collapsed(model, hinge)
        update_metrics(metrics, logs, _LOGGED, optimizer)
        return {self.loss: hinge}

    def discriminator_step(self, rows: dict, model: Adversaries) -> tuple[tf.Tensor, tf.Tensor]:
        label = rows["other_label"][:, 0]
        generated = model.generator([rows["latent"][:, 0], label], training=True)
        images = tf.concat([rows["image"], tf.cast(generated, rows["image"].dtype)], 0)
        labels = tf.concat([rows["label"], label], 0)

        def loss() -> tf.Tensor:
            real, fake = tf.split(tf.cast(model.discriminator([images, labels], training=True), tf.float32), 2)
            return tf.reduce_mean(tf.nn.relu(1 - real)) + tf.reduce_mean(tf.nn.relu(1 + fake))

        return _descend(loss, model.discriminator.trainable_weights, model.discriminator_optimizer)

    def generator_step(self, rows: dict, model: Adversaries, optimizer: Any) -> tuple[tf.Tensor, tf.Tensor]:
        def loss() -> tf.Tensor:
            label = rows["other_label"][:, 1]
            generated = model.generator([rows["latent"][:, 1], label], training=True)
            return -tf.reduce_mean(tf.cast(model.discriminator([generated, label], training=True), tf.float32))

        return _descend(loss, model.generator.trainable_weights, optimizer)

    def _average(self, model: Adversaries, optimizer: Any) -> None:
        decay = tf.where(optimizer.iterations > self._start, self._decay, 0.0)
        for average, weight in model.pairs:
            average.assign(decay * average + (1 - decay) * weight)

    def _count_collapsed(self, model: Adversaries, hinge: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        if context.num_replicas_in_sync > 1:
            hinge = context.all_reduce(tf.distribute.ReduceOp.MEAN, hinge)
        model.collapsed.assign(tf.where(hinge < self._collapse_loss, model.collapsed + 1, 0))

    def forward(self, inputs: dict[str, tf.Tensor], model: Adversaries) -> None:
        """Runs the averaged generator in training mode, to recompute its moving statistics."""
        model.average([inputs["latent"][:, 0], inputs["other_label"][:, 0]], training=True)

    def validation_step(self, inputs: dict, model: Adversaries, metrics: Any = None) -> dict[str, tf.Tensor]:
        """Returns the features and probabilities of one batch of real and generated images."""
        generated = model.average([inputs["latent"], inputs["label"]], training=False)
        real, _ = self._judge(inputs["image"])
        features, probabilities = self._judge(generated)
        return gathered({"real": real, "features": features, "probabilities": probabilities})

    def aggregate_logs(self, state: Any = None, step_outputs: Any = None) -> tuple:
        """Adds the features of one step to the streaming statistics."""
        state = state or (scores.Moments(), scores.Moments(), scores.InceptionScore(self._scores.splits))
        rows = collected(step_outputs)
        for statistic, name in zip(state, ("real", "features", "probabilities")):
            statistic.update(rows[name])
        return state

    def reduce_aggregated_logs(self, aggregated_logs: tuple, global_step: Any = None) -> dict[str, float]:
        """Returns the scores of the streaming statistics."""
        real, generated, inception = aggregated_logs
        mean, spread = inception.result()
        distance, score = self._scores.network.distance, self._scores.network.score
        return {distance: scores.frechet_distance(real, generated), score: mean, f"{score}_spread": spread}

    @property
    def best(self) -> Optional[tuple[str, str]]:
        """Name of the metric that ranks checkpoints, and "lower"; None without scores."""
        return (self._scores.network.distance, "lower") if self._scores else None


class StopAtCollapse:
    """A train action that stops a run whose discriminator has not been deceived for many steps in a row.

    Args:
      model: networks of the run.
      steps: number of steps in a row.
      global_step: variable with the current step.
      workdir: folder of the run, for the message.

    Raises:
      FloatingPointError: at its call, if training has collapsed.
    """

    def __init__(self, model: Adversaries, steps: int, global_step: tf.Variable, workdir: str):
        self._model, self._steps, self._global_step, self._workdir = model, steps, global_step, workdir

    def __call__(self, output: dict) -> None:
        collapsed, step = int(self._model.collapsed.numpy()), int(self._global_step.numpy())
        output["collapsed_steps"] = float(collapsed)
        if collapsed >= self._steps:
            raise FloatingPointError(
                "training has collapsed: the discriminator must be deceived sometimes. Received a hinge loss near 0 "
                f"since step {step - collapsed + 1}, for {collapsed} steps. Start again with a lower learning rate or "
                f"fewer steps of the discriminator. Earlier checkpoints are in {self._workdir}."
            )


def _descend(loss: Callable[[], tf.Tensor], weights: Sequence, optimizer: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Takes one step of an optimizer; returns the loss of this replica and the norm of its gradient."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        value = loss()
        # Gradients are summed over replicas, so each takes its share of the mean.
        share = value / tf.distribute.get_strategy().num_replicas_in_sync
        share = optimizer.get_scaled_loss(share) if hasattr(optimizer, "get_scaled_loss") else share
    gradients = tape.gradient(share, weights)
    if hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, weights))
    return value, tf.linalg.global_norm(gradients)
