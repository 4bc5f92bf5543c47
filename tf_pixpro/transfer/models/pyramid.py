"""Pre-training beyond the backbone: a feature pyramid and the towers of a detection head as encoder."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf
from official.vision.modeling.decoders.fpn import FPN
from official.vision.modeling.heads.dense_prediction_heads import RetinaNetHead

from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import check_parts


def pyramid(
    backbone: tf.keras.Model,
    min_level: int = 3,
    max_level: int = 7,
    filters: int = 256,
    towers: int = 0,
    synchronized: bool = True,
    name: str = "pyramid",
) -> Pyramid:
    """Puts Model Garden's FPN, and the towers of its RetinaNet head, on a backbone.

    Args:
      backbone: `tf.keras.Model` from [B, H, W, 3] to levels {'2': ..., '5': ...}; H and W divide by 32.
      min_level, max_level: levels of the pyramid. A detector loads one of the same levels: RetinaNet has 3 to 7, Mask
        R-CNN 2 to 6.
      filters: channels of every level.
      towers: convolutions in each of the head's two towers, shared over levels; 0 for no head.
      synchronized: batch statistics over all replicas.
      name: of the model.

    Returns:
      The model; give it to `PixPro(..., level=...)`.

    Raises:
      Mistake: if the levels are not rising or not the backbone's, or towers is negative.
    """
    return Pyramid(backbone, min_level, max_level, filters, towers, synchronized, name=name)


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class Pyramid(tf.keras.Model):
    """A backbone, its FPN, and maybe head towers: images [B, H, W, 3] -> maps [B, h, w, filters] by level.

    Without towers the keys are '3', '4', ...; with towers 'class/3', 'box/3', ... . `tf_pixpro.save_backbone` keeps its
    parts under the names that Model Garden's detectors read: `backbone`, `decoder` and `head`; the last prediction
    layers are not part of it.

    Args: see `pyramid`.

    Source: PixPro section 3.4 and the authors' remark that the task is applied to P3 to P6 with one distance. Nothing
    of it was released. Here the head is RetinaNet's instead of FCOS', whose towers differ in their normalization.
    """

    def __init__(
        self,
        backbone: tf.keras.Model,
        min_level: int = 3,
        max_level: int = 7,
        filters: int = 256,
        towers: int = 0,
        synchronized: bool = True,
        name: str | None = None,
    ):
        super().__init__(name=name)
        specs = getattr(backbone, "output_specs", {})
        if str(min_level) not in specs or not min_level <= max_level:
            raise Mistake(
                f"a pyramid begins at a level of the backbone and rises. Received min_level={min_level}, "
                f"max_level={max_level} on "
                f"{', '.join(specs) or 'no levels'}."
            )
        if towers < 0:
            raise Mistake(f"towers must be 0 or more convolutions. Received towers={towers}.")
        self.min_level, self.max_level, self.filters = min_level, max_level, filters
        self.towers, self.synchronized = towers, synchronized
        self.backbone = backbone
        self.decoder = FPN(specs, min_level, max_level, filters, use_sync_bn=synchronized)
        self.head = None
        if towers:
            norms = {"use_sync_bn": synchronized, "num_convs": towers, "num_filters": filters}
            self.head = Towers(min_level, max_level, num_classes=1, num_anchors_per_location=1, name="head", **norms)
        self(tf.keras.Input((None, None, 3)))

    def call(self, inputs, training=False):
        levels = self.decoder(self.backbone(inputs, training=training), training=training)
        if self.head is None:
            return levels
        classes, boxes, _ = self.head(levels, training=training)
        kinds = {"class": classes, "box": boxes}
        return {f"{kind}/{level}": features for kind, maps in kinds.items() for level, features in maps.items()}

    @property
    def output_specs(self) -> dict:
        """Level -> `tf.TensorShape`."""
        levels = [str(level) for level in range(self.min_level, self.max_level + 1)]
        names = levels if self.head is None else [f"{kind}/{level}" for kind in ("class", "box") for level in levels]
        return {name: tf.TensorShape([None, None, None, self.filters]) for name in names}

    @property
    def checkpoint_items(self) -> dict:
        """The parts by the names of Model Garden's detectors."""
        items = {"backbone": self.backbone, "decoder": self.decoder}
        return items if self.head is None else {**items, "head": self.head}

    def get_config(self):
        names = ("min_level", "max_level", "filters", "towers", "synchronized")
        backbone = tf.keras.utils.serialize_keras_object(self.backbone)
        return {"name": self.name, "backbone": backbone, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> Pyramid:
        backbone = tf.keras.utils.deserialize_keras_object(config["backbone"], custom_objects=custom_objects)
        return cls(**{**config, "backbone": backbone})


@tf.keras.utils.register_keras_serializable("tf_pixpro")
class Towers(RetinaNetHead):
    """Model Garden's RetinaNet head without its last prediction layers: it gives what they would read."""

    def call(self, features, training=False):
        return super().call(features)  # its normalizations learn `training` from this call

    def _build_prediction_tower(self, net_name, predictor_name, conv_op, bn_op, predictor_kwargs):
        tower = super()._build_prediction_tower(net_name, predictor_name, conv_op, bn_op, predictor_kwargs)
        convolutions, norms, _ = tower
        return convolutions, norms, tf.identity


def load_parts(detector: tf.keras.Model, path: str, parts: Sequence[str] | None = None) -> list[str]:
    """Restores a Model Garden detector from a pre-trained `Pyramid`: backbone, decoder and, if present, head.

    Args:
      detector: a built model with `checkpoint_items`, such as RetinaNet or Mask R-CNN.
      path: what `tf_pixpro.save_backbone` wrote.
      parts: names of those that must be read, such as ('backbone', 'decoder'); None takes what both have.

    Returns:
      Names of the parts that were read; a detector without `head` (Mask R-CNN) gets backbone and decoder.

    Raises:
      Mistake: if a part that both have differs in its variables, or one that must be read is not in both; nothing is
        read then. Prediction layers, which only the detector has, stay as they are.
    """
    items = dict(detector.checkpoint_items)
    wanted = list(items) if parts is None else list(parts)
    strange = [name for name in wanted if name not in items]
    if strange or not wanted:
        raise Mistake(
            f"parts must be some of the model's, {', '.join(items)}. "
            f"Received {', '.join(strange) or 'none'} to be read from {path!r}."
        )
    found = check_parts({name: items[name] for name in wanted}, path, partial=("head",))
    missing = [name for name in wanted if name not in found]
    if missing and parts is not None:
        raise Mistake(
            f"the checkpoint must hold {', '.join(wanted)}. Received {path!r} without {', '.join(missing)}. "
            "Pre-train with a pyramid "
            "that has it, or leave it out."
        )
    for name in found:
        tf.train.Checkpoint(**{name: items[name]}).read(path).expect_partial().assert_nontrivial_match()
    return found
