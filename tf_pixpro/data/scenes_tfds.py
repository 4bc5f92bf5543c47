"""The synthetic scenes as a TFDS data set, `synthetic_scenes`, which importing this file registers."""

import dataclasses

import tensorflow_datasets as tfds
from etils import epath

from tf_pixpro.data.scenes import CLASS_NAMES, scene


@dataclasses.dataclass
class ScenesConfig(tfds.core.BuilderConfig):
    """Which scenes a data set holds.

    Attributes:
      name: of the configuration; another size, seed or number of scenes needs another name.
      size: (height, width) in pixels.
      train, validation: numbers of scenes; the two splits share none.
      seed: number of the world.
    """

    name: str = "128px"
    size: tuple = (128, 128)
    train: int = 2000
    validation: int = 400
    seed: int = 0


class SyntheticScenes(tfds.core.GeneratorBasedBuilder):
    """Textured objects on textured backgrounds, drawn on this machine; see `tf_pixpro.data.scenes`.

    An example is {'image': [H, W, 3] uint8, 'label': class of the largest object (0 ... 7), 'segmentation': [H, W, 1]
    uint8 (0 is background, else class + 1), 'objects': {'bbox', 'label', 'mask': [N, H, W, 1] uint8, 255 where the
    object is seen}}.
    """

    code_path = epath.Path(
        __file__
    )  # TFDS would look for it with importlib_resources, which it does not install on Python 3.9+
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [ScenesConfig(name="128px")]  # noqa: RUF012  (the name and form that TFDS asks for)

    def _info(self):
        size = self.builder_config.size
        features = tfds.features
        return self.dataset_info_from_configs(
            description="Textured objects on textured backgrounds: classes, boxes, instance masks and a semantic map.",
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(*size, 3), encoding_format="png"),
                    "label": features.ClassLabel(names=list(CLASS_NAMES)),
                    "segmentation": features.LabeledImage(shape=(*size, 1), labels=["background", *CLASS_NAMES]),
                    "objects": features.Sequence(
                        {
                            "bbox": features.BBoxFeature(),
                            "label": features.ClassLabel(names=list(CLASS_NAMES)),
                            "mask": features.Image(shape=(*size, 1), encoding_format="png"),
                        }
                    ),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        config = self.builder_config
        return {
            "train": self._generate_examples(range(config.train)),
            "validation": self._generate_examples(range(config.train, config.train + config.validation)),
        }

    def _generate_examples(self, numbers):
        for number in numbers:
            one = scene(number, self.builder_config.seed, self.builder_config.size)
            yield number, _example(one)


def _example(one):
    height, width = one.semantic.shape
    objects = []
    for label, mask, (x1, y1, x2, y2) in zip(one.labels, one.masks, one.boxes):
        box = tfds.features.BBox(ymin=y1 / height, xmin=x1 / width, ymax=y2 / height, xmax=x2 / width)
        objects.append({"bbox": box, "label": int(label) - 1, "mask": mask[..., None].astype("uint8") * 255})
    return {
        "image": one.image,
        "label": one.main_label - 1,
        "segmentation": one.semantic[..., None],
        "objects": objects,
    }
