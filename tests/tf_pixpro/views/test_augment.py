"""Views of an image: sampler, crops, colour operations, seeds."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tf_evonorm.mistakes import Mistake
from tf_pixpro.views import augment


def encoded(array, kind="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def picture():
    y, x = np.mgrid[0:90, 0:120]
    return np.stack([x * 2, y * 2, (x + y) % 256], -1).astype(np.uint8)


def test_crops_are_the_authors(golden):
    archive = golden("pixpro/f_coords.npz")
    for row in range(12):
        _, _, top, left, h, w, hflip, vflip = archive["params"][row]
        source = archive[f"img{row:02d}/source_u8_hwc"]
        (crop,) = augment.decode_crops(encoded(source), [tf.constant([top, left, h, w], tf.int32)])
        view = augment.resized(crop, (28, 28)).numpy()
        view = view[:, ::-1] if hflip else view
        view = view[::-1] if vflip else view
        assert np.abs(view - archive[f"img{row:02d}/crop28_u8_hwc"].astype(np.float32)).max() <= 1.5


@pytest.mark.parametrize("extent", [(300, 380), (70, 90), (90, 41), (1, 1), (33, 224)])
def test_resized_values_are_tensorflows(extent):
    image = np.random.default_rng(0).integers(0, 256, (*extent, 3)).astype(np.uint8)
    for size in ((48, 64), (224, 33)):
        expected = tf.image.resize(image, size, antialias=True).numpy()
        np.testing.assert_array_equal(augment.resized(image, size), expected)
        np.testing.assert_array_equal(augment.resized_planes(image, size), expected.transpose(2, 1, 0))


def test_sampler_draws_from_the_authors_distribution(golden):
    archive = golden("pixpro/f_coords.npz")
    seeds = tf.random.stateless_uniform([4000, 2], (1, 2), maxval=2**30, dtype=tf.int32)
    for name in ("landscape", "portrait", "extreme"):
        key = f"sampler/{name}/"
        reference = archive[key + "ijhw"].astype(np.float64)
        (width, height), scale = archive[key + "size_wh"].tolist(), archive[key + "scale"].tolist()
        draw = tf.function(lambda s, h=height, w=width, a=tuple(scale): augment.crop_window(s, h, w, a))
        ours = (
            tf.function(lambda d=draw: tf.map_fn(d, seeds, fn_output_signature=tf.int32))().numpy().astype(np.float64)
        )
        for column, what in enumerate(("top", "left", "height", "width")):
            # Two-sample Kolmogorov-Smirnov distance; 1.95 is its 0.1 % point.
            points = np.unique(reference[:, column])
            shares = [np.searchsorted(np.sort(x[:, column]), points, "right") / len(x) for x in (ours, reference)]
            limit = 1.95 * np.sqrt(1 / len(ours) + 1 / len(reference))
            assert np.abs(shares[0] - shares[1]).max() < limit, (name, what)
        assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all()


OPERATIONS = {
    "brightness": augment.brightened,
    "contrast": augment.contrasted,
    "saturation": augment.saturated,
    "hue": augment.adjusted_hue,
    "blur": augment.blurred,
    "grayscale": lambda image, _: augment.gray(image),
    "solarize128": lambda image, _: augment.solarized(image),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_the_authors_to_two_levels(golden, name):
    archive = golden("pixpro/g_augment_ops.npz")
    images = sorted({key.split("/")[0] for key in archive if key.startswith("im")})
    assert len(images) >= 3
    for key in images:
        amount = next(
            (archive[f"{key}/{n}"] for n in (f"{name}_factor", f"{name}_sigma") if f"{key}/{n}" in archive), 0.0
        )
        planes = tf.constant(archive[f"{key}/source"].transpose(2, 0, 1), tf.float32)
        result = OPERATIONS[name](planes, tf.constant(amount, tf.float32)).numpy().transpose(1, 2, 0)
        expected = archive[f"{key}/{name}"].astype(np.float32)
        expected = expected if expected.ndim == 3 else expected[..., None]
        far = np.abs(np.rint(result) - expected) > 2.0
        # Pillow's 8-bit hue jumps at whole steps: where rounding falls on the other side, a value moves by up to one
        # step of hue.
        assert far.mean() <= (0.002 if name == "hue" else 0.0), key


def test_same_seed_same_bytes_alone_and_in_tf_data(picture):
    jpeg = encoded(picture, "JPEG", quality=90)
    make = tf.function(lambda data, seed: augment.two_views(data, seed, (32, 48)))
    alone = make(jpeg, tf.constant([3, 4]))
    data = tf.data.Dataset.from_tensors((jpeg, [3, 4])).map(lambda b, s: augment.two_views(b, s, (32, 48)))
    inside, again = next(iter(data)), next(iter(data))
    for name, value in alone.items():
        np.testing.assert_array_equal(inside[name], again[name])
        np.testing.assert_allclose(value, inside[name], atol=0.02)  # tf.data fuses products; hue then rounds elsewhere
    other = make(jpeg, tf.constant([3, 5]))
    assert not np.array_equal(alone["view1"], other["view1"]) and not np.array_equal(alone["view1"], alone["view2"])
    assert alone["view1"].shape == (32, 48, 3) and alone["box2"].shape == (4,)


ANY = {"scale": (0.05, 0.6), "ratio": (1 / 6, 6.0), "vertical_flip": 0.5}


@pytest.mark.parametrize("changes", [{}, ANY], ids=["authors", "any geometry"])
def test_boxes_say_where_the_view_lies(picture, changes):
    """In a picture whose red is the column and green the row, a view's corner colours are its box, however cut and
    flipped."""
    make = tf.function(lambda seed: augment.two_views(encoded(picture), seed, (24, 24), "NULL", **changes))
    aspects, upside_down = [], 0
    for seed in range(20):
        views = make(tf.constant([seed, 0]))
        view = (views["view1"].numpy() * augment.DEVIATION + augment.MEAN) * 255
        x1, y1, x2, y2 = views["box1"].numpy()
        width, height = abs(x2 - x1) * 119 + 1, abs(y2 - y1) * 89 + 1
        centre = view[12 - 1 : 12 + 1, 12 - 1 : 12 + 1, :2].mean((0, 1)) / 2
        np.testing.assert_allclose(
            centre, [(x1 + x2) / 2 * 119, (y1 + y2) / 2 * 89], atol=0.02 * max(width, height) + 1
        )
        assert (view[12, -1, 0] > view[12, 0, 0]) == (x2 > x1)
        assert (view[-1, 12, 1] > view[0, 12, 1]) == (y2 > y1)
        aspects.append(width / height)
        upside_down += y2 < y1
    assert not changes or (0 < upside_down < 20 and min(aspects) < 0.5 and max(aspects) > 2)


def test_gray_png_alpha_and_jpeg_all_give_three_channels(picture):
    alpha = np.concatenate([picture, picture[..., :1]], -1)
    for data in (encoded(picture[..., 0]), encoded(alpha), encoded(picture[..., 0], "JPEG"), encoded(picture, "BMP")):
        assert augment.two_views(data, [0, 0], (16, 16))["view1"].shape == (16, 16, 3)
        assert augment.centre_view(data, (16, 16)).shape == (16, 16, 3)


def test_bytes_that_are_no_image_fail():
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(augment.two_views)(tf.constant(b"not an image"), tf.constant([0, 0]))


def test_recipe_has_the_authors_probabilities():
    one, two = augment.RECIPES["BYOL"]
    assert (one.blur, two.blur, one.solarize, two.solarize) == (1.0, 0.1, 0.0, 0.2)
    for view in (one, two):
        assert (view.flip, view.jitter, view.gray, view.scale) == (0.5, 0.8, 0.2, (0.08, 1.0))
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.2, 0.1)


def test_other_sets_have_the_authors_numbers():
    # Source: contrast/data/transform.py: jitter's probability and amounts, gray, blur; both views alike.
    for name, jitter, amounts, blur, operations in [
        ("InstDisc", 1.0, (0.4, 0.4, 0.4, 0.4), 0.0, 0),
        ("MoCov2", 0.8, (0.4, 0.4, 0.4, 0.1), 0.5, 0),
        ("SimCLR", 0.8, (0.8, 0.8, 0.8, 0.2), 0.5, 0),
        ("RandAug", 0.8, (0.8, 0.8, 0.8, 0.2), 0.5, 2),
    ]:
        for view in augment.RECIPES[name]:
            assert (view.brightness, view.contrast, view.saturation, view.hue) == amounts
            assert (view.jitter, view.gray, view.blur, view.solarize) == (jitter, 0.2, blur, 0.0)
            assert (view.random_operations, view.flip, view.sigma) == (operations, 0.5, (0.1, 2.0))


@pytest.mark.parametrize("recipe", ["InstDisc", "MoCov2", "SimCLR", "RandAug"])
def test_other_sets_give_views(picture, recipe):
    make = tf.function(lambda seed: augment.two_views(encoded(picture), seed, (24, 40), recipe))
    one, again, other = (make(tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    limits = [
        (-np.array(augment.MEAN) / augment.DEVIATION).min() - 0.1,
        ((1 - np.array(augment.MEAN)) / augment.DEVIATION).max() + 0.1,
    ]
    for name in ("view1", "view2"):
        np.testing.assert_array_equal(one[name], again[name])
        assert one[name].shape == (24, 40, 3) and not np.array_equal(one[name], other[name])
        assert limits[0] < one[name].numpy().min() < one[name].numpy().max() < limits[1]


def test_wrong_recipes_are_refused():
    with pytest.raises(ValueError, match="recipe must be one of BYOL"):
        augment.two_views(b"", [0, 0], recipe="byol2")
    with pytest.raises(ValueError, match="scale must be two rising shares"):
        augment.recipe_views("BYOL", scale=(1.0, 0.08))
    with pytest.raises(ValueError, match="ratio must be two rising quotients"):
        augment.recipe_views("BYOL", ratio=(2.0, 0.5))
    with pytest.raises(ValueError, match="vertical_flip must be a probability"):
        augment.recipe_views("BYOL", vertical_flip=2)
    with pytest.raises(Mistake, match=r"a view has scale, .* Received aspect"):
        augment.recipe_views("BYOL", aspect=(0.5, 2.0))


def test_normalized_is_of_imagenet_and_denormalized_its_inverse():
    # Source: ImageNet's mean and standard deviation of colours in [0, 1], as in torchvision's references.
    image = np.random.default_rng(0).uniform(0, 255, [5, 7, 3])
    expected = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    views = augment.normalized(tf.constant(image, tf.float32))
    np.testing.assert_allclose(views, expected, atol=1e-5)
    np.testing.assert_allclose(augment.denormalized(views), image, atol=1e-3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_views_of_a_rotated_image_are_those_of_the_upright_one(picture, kind):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    data = encoded(picture, kind, **options, **({"exif": exif} if kind not in ("GIF", "TIFF") else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert kind in ("GIF", "TIFF") or upright.size == (90, 120)
    expected = encoded(np.asarray(upright))
    for applied in (True, False):
        stored = encoded(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        exact = augment.two_views(expected if applied else stored, [1, 2], (24, 24))
        views = augment.two_views(data, [1, 2], (24, 24), exif=applied)
        for name, value in exact.items():
            # Where two sides of the crop's rectangle cut a JPEG's blocks, decoding a part differs in rounding.
            np.testing.assert_allclose(views[name], value, atol=0.05 if kind == "JPEG" else 1e-6)
    np.testing.assert_allclose(
        augment.centre_view(data, (24, 24), exif=True), augment.centre_view(expected, (24, 24)), atol=0.05
    )
