"""Scenes: deterministic, labels, boxes, masks and map agree with each other, colour does not give the class away; the
TFDS data set."""

import time

import numpy as np
import pytest

from tf_pixpro.data import scenes
from tf_pixpro.data.scenes import CLASS_NAMES, CLASSES, scene


@pytest.fixture(scope="module")
def many():
    return [scene(index, seed=5, size=(64, 96)) for index in range(150)]


def test_same_number_same_scene():
    one, again, other, elsewhere = scene(3, 1), scene(3, 1), scene(4, 1), scene(3, 2)
    for name in ("image", "labels", "boxes", "masks", "semantic"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert not np.array_equal(one.image, other.image) and not np.array_equal(one.image, elsewhere.image)


def test_masks_boxes_labels_and_map_say_the_same(many):
    for one in many:
        assert one.image.shape == (64, 96, 3) and one.image.dtype == np.uint8
        assert len(one.labels) == len(one.boxes) == len(one.masks) >= 1
        assert one.masks.sum(0).max() == 1  # every pixel belongs to one object at most
        painted = (one.masks * one.labels[:, None, None]).sum(0)
        np.testing.assert_array_equal(painted, one.semantic)
        for mask, (x1, y1, x2, y2) in zip(one.masks, one.boxes):
            assert mask.any()
            assert not mask[:y1].any() and not mask[y2:].any() and not mask[:, :x1].any() and not mask[:, x2:].any()
            assert mask[y1].any() and mask[y2 - 1].any() and mask[:, x1].any() and mask[:, x2 - 1].any()
        assert one.main_label == one.labels[one.masks.sum((1, 2)).argmax()]


def test_every_class_occurs_and_neither_shape_nor_texture_alone_names_it(many):
    seen = np.bincount(np.concatenate([one.labels for one in many]), minlength=len(CLASSES) + 1)[1:]
    assert (seen > 0.5 * seen.mean()).all()
    shapes, textures = zip(*CLASSES)
    assert len(set(shapes)) >= 6 and len(set(CLASS_NAMES)) == len(CLASSES)
    assert len(set(shapes)) < len(CLASSES) and len(set(textures)) < len(CLASSES)


def test_colour_does_not_tell_the_class(many):
    """The classes' mean colours differ by no more than chance: one-way analysis of variance, at its 0.1 % point."""
    from scipy import stats

    colours = {label: [] for label in range(1, len(CLASSES) + 1)}
    for one in many:
        for label, mask in zip(one.labels, one.masks):
            colours[int(label)].append(one.image[mask].mean(0))
    for channel in range(3):
        groups = [np.array(values)[:, channel] for values in colours.values()]
        assert stats.f_oneway(*groups).pvalue > 0.001 / 3


def test_shapes_have_their_area():
    """Shares of the circle around a shape, by its geometry."""
    radius = 200.0
    y, x = np.mgrid[-210:211, -210:211].astype(np.float32)
    point = (
        5 * 0.45 * np.sin(np.pi / 5)
    )  # ten triangles with sides 1 and 0.45 between which lies an angle of 36 degrees
    areas = {
        "disc": np.pi * 0.9**2,
        "ring": np.pi * (0.97**2 - 0.47**2),
        "square": 1.4**2,
        "cross": 2 * 1.84 * 0.6 - 0.6**2,
        "triangle": 3 * np.sqrt(3) / 4,
        "star": point,
    }
    for shape, area in areas.items():
        inside = scenes._outside(shape, x, y, radius) < 0
        assert inside.sum() / radius**2 == pytest.approx(area, rel=0.01), shape


def test_drawing_is_quick():
    """A hundred scenes a second and core is the aim; a loaded machine is allowed half of it."""
    start = time.process_time()
    for index in range(40):
        scene(index, size=(128, 128))
    assert 40 / (time.process_time() - start) > 50


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="sides of 16 pixels"):
        scene(0, size=(8, 64))
    with pytest.raises(ValueError, match="objects must be"):
        scene(0, objects=(3, 2))


def test_tfds_data_set(tmp_path):
    import tensorflow_datasets as tfds

    from tf_pixpro.data.scenes_tfds import ScenesConfig

    config = ScenesConfig(name="tiny", size=(32, 48), train=3, validation=2, seed=9)
    builder = tfds.builder("synthetic_scenes", config=config, data_dir=str(tmp_path))
    builder.download_and_prepare()
    splits = {
        name: {e["image"].tobytes(): e for e in tfds.as_numpy(builder.as_dataset(name))} for name in builder.info.splits
    }
    assert {name: len(examples) for name, examples in splits.items()} == {"train": 3, "validation": 2}
    for number in range(5):
        one = scene(number, 9, (32, 48))
        example = splits["train" if number < 3 else "validation"][one.image.tobytes()]
        assert example["label"] == one.main_label - 1
        np.testing.assert_array_equal(example["segmentation"][..., 0], one.semantic)
        np.testing.assert_array_equal(example["objects"]["label"], one.labels - 1)
        np.testing.assert_array_equal(example["objects"]["mask"][..., 0] > 0, one.masks)
        boxes = example["objects"]["bbox"][:, [1, 0, 3, 2]] * [48, 32, 48, 32]
        np.testing.assert_allclose(boxes, one.boxes, atol=1e-3)
