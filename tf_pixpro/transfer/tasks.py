"""Model Garden's detection and segmentation tasks, built from objects: Model Garden's inputs and losses, our model."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import tensorflow as tf
from official.vision.tasks import maskrcnn, retinanet, semantic_segmentation

from tf_pixpro.checkpoints import load_backbone
from tf_pixpro.train.task import ObjectTask
from tf_pixpro.transfer.average_precision import coco_scores, mean_of_present
from tf_pixpro.transfer.models import c4, sliding_window
from tf_pixpro.transfer.models.pyramid import load_parts
from tf_pixpro.transfer.records.record_sets import with_literal_folders


class _TransferTask(ObjectTask):
    """What the three tasks share.

    Args:
      params: Model Garden's task configuration; of its model only what inputs, losses and evaluation read.
      build: () -> (model, encoder), called once inside the strategy's scope.
      optimizer: () -> Keras optimizer.
      init: checkpoint of the encoder, see `tf_pixpro.load_backbone`; None starts from scratch.
      logging_dir: folder of the run.
      init_modules: parts of the model that `init` must hold and that are read, of 'backbone', 'decoder' and 'head';
        more than the backbone where a `tf_pixpro.transfer.models.pyramid.Pyramid` was pre-trained.
    """

    def __init__(
        self,
        params: Any,
        build: Callable[[], tuple[tf.keras.Model, tf.keras.Model]],
        optimizer: Callable[[], tf.keras.optimizers.Optimizer],
        init: str | None = None,
        logging_dir: str | None = None,
        name: str | None = None,
        init_modules: Sequence[str] = ("backbone",),
    ):
        super().__init__(params, logging_dir=logging_dir, name=name)  # type: ignore[call-arg]  # the other base
        self._build, self._make_optimizer, self._init, self._init_modules = build, optimizer, init, tuple(init_modules)

    def build_model(self):
        self._model, self.encoder = self._build()
        return self._model

    def initialize(self, model):
        """The whole encoder, and other parts if asked for, from a checkpoint, or an error that names what does not fit.

        A resumed run does not come here.
        """
        if self._init and self._init_modules == ("backbone",):
            load_backbone(self.encoder, self._init)  # wherever it lies in the checkpoint
        elif self._init:
            load_parts(model, self._init, self._init_modules)

    def build_inputs(self, params, input_context=None):
        own = self.task_config.train_data if params.is_training else self.task_config.validation_data
        own = own.replace(input_path=with_literal_folders(own.input_path))
        return super().build_inputs(own, input_context)

    def forward(self, inputs, model):
        """The model in training mode on one batch, for the sake of its moving statistics."""
        model(inputs[0], training=True)


class SegmentationTask(_TransferTask, semantic_segmentation.SemanticSegmentationTask):
    """Semantic segmentation, scored by mean IoU over the classes that occur, and by the IoU of each ('iou/0', ...).

    Args:
      window: {'size', 'stride'} of a sliding window in evaluation, see `windows.slide`; None evaluates the full image.
      others: as above.
    """

    best = ("mean_iou", "higher")

    def __init__(
        self,
        params: Any,
        build: Callable[[], tuple[tf.keras.Model, tf.keras.Model]],
        optimizer: Callable[[], tf.keras.optimizers.Optimizer],
        init: str | None = None,
        logging_dir: str | None = None,
        name: str | None = None,
        init_modules: Sequence[str] = ("backbone",),
        window: Mapping[str, int] | None = None,
    ):
        super().__init__(params, build, optimizer, init, logging_dir, name, init_modules)
        self._window = window

    def inference_step(self, inputs: tf.Tensor, model: tf.keras.Model) -> dict[str, tf.Tensor]:
        """The whole image, or windows of it that overlap."""
        if self._window is None:
            return super().inference_step(inputs, model)
        return {
            "logits": sliding_window.slide(lambda part: model(part, training=False)["logits"], inputs, **self._window)
        }

    def aggregate_logs(self, state: Any = None, step_outputs: Any = None) -> bool:
        """Leaves the metric unchanged: Model Garden's method resets it after the first batch and loses that batch."""
        return True

    def reduce_aggregated_logs(self, aggregated_logs: Any, global_step: tf.Variable | None = None) -> dict[str, float]:
        logs = super().reduce_aggregated_logs(aggregated_logs, global_step)
        logs["mean_iou"] = mean_of_present(self.iou_metric.total_cm.numpy())
        self.iou_metric.reset_state()
        return logs


class _DetectionTask(_TransferTask):
    """What both kinds of detectors share.

    Args:
      scores: 'coco', 'voc' or 'voc07', see `tf_pixpro.transfer.average_precision.coco_scores`.
      others: as above.
    """

    best = ("AP", "higher")

    def __init__(
        self,
        params: Any,
        build: Callable[[], tuple[tf.keras.Model, tf.keras.Model]],
        optimizer: Callable[[], tf.keras.optimizers.Optimizer],
        init: str | None = None,
        logging_dir: str | None = None,
        name: str | None = None,
        init_modules: Sequence[str] = ("backbone",),
        scores: str = "coco",
    ):
        super().__init__(params, build, optimizer, init, logging_dir, name, init_modules)
        self._scores = scores


class RetinaNetTask(_DetectionTask, retinanet.RetinaNetTask):
    """Detection by a RetinaNet, scored by COCO's or Pascal's average precision."""

    def build_metrics(self, training: bool = True) -> list[tf.keras.metrics.Metric]:
        metrics = super().build_metrics(training)
        if not training:
            self.coco_metric = coco_scores(self._scores, self.task_config.annotation_file, False)
        return metrics


class MaskRCNNTask(_DetectionTask, maskrcnn.MaskRCNNTask):
    """Two-stage detection and instance segmentation, with COCO's box and mask AP or Pascal VOC's box AP."""

    def forward(self, inputs: Any, model: tf.keras.Model) -> None:
        images, labels = inputs
        masks = {"gt_masks": labels["gt_masks"]} if self.task_config.model.include_mask else {}
        truth = {name: labels[name] for name in ("anchor_boxes", "gt_boxes", "gt_classes")}
        model(images, image_shape=labels["image_info"][:, 1, :], training=True, **truth, **masks)

    def _build_coco_metrics(self):
        self.coco_metric = coco_scores(
            self._scores, self.task_config.annotation_file, self.task_config.model.include_mask
        )


class MaskRCNNC4Task(MaskRCNNTask):
    """The same with the anchors of `tf_pixpro.transfer.models.c4`, which Model Garden's parser does not know."""

    def build_inputs(self, params: Any, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        batches = super().build_inputs(params, input_context)
        parser = self.task_config.train_data.parser if params.is_training else None
        anchored = functools.partial(c4.with_octaves, anchors=self.task_config.model.anchor, parser=parser)
        return batches.map(anchored, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
