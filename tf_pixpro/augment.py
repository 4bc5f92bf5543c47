"""From the bytes of an image to two augmented views and their boxes: the only augmentation code in the house.

Every function is stateless: what it draws, it draws from the seed that it is given. Images inside are [h, w, 3] float32 in 0..255.
"""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tf_pixpro.geometry import crop_box, flip_box

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
GRAY = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True)
class View:
    """What may happen to one view, in this order: crop and resize, flip, jitter, gray, blur, solarize.

    Attributes:
      scale: least and largest area of the crop, shares of the image.
      ratio: least and largest width / height of the crop.
      flip, vertical_flip, jitter, gray, blur, solarize: probabilities.
      brightness, contrast, saturation: factors are drawn from 1 - value .. 1 + value.
      hue: largest turn, shares of the circle.
      sigma: least and largest standard deviation of the blur, pixels.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    gray: float = 0.2
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0


# Source: the authors' `contrast/data/transform.py`, sets "BYOL" (their recipe) and "NULL".
RECIPES = {
    "BYOL": (View(blur=1.0), View(blur=0.1, solarize=0.2)),
    "NULL": (View(jitter=0.0, gray=0.0), View(jitter=0.0, gray=0.0)),
}


@tf.autograph.experimental.do_not_convert
def two_views(image_bytes, seed, size=(224, 224), recipe="BYOL", scale=None) -> dict[str, tf.Tensor]:
    """Two random views of one image.

    Args:
      image_bytes: scalar string, a JPEG, PNG, BMP or GIF (first frame). Of a JPEG only the part that a view needs is decoded.
      seed: [2] integer; the same seed gives the same views.
      size: (height, width) of both views in pixels.
      recipe: a name in `RECIPES`, or a pair of `View`.
      scale: (least, largest) area of the crops, in the place of the recipe's.

    Returns:
      {'view1', 'view2': [height, width, 3] float32, normalised by ImageNet's mean and deviation; 'box1', 'box2': [4] float32}.

    Raises:
      ValueError: for an unknown recipe.
      tf.errors.InvalidArgumentError: when run, if the bytes are no image.

    Source: pixpro's `contrast/data`: paper section 4.1 names BYOL's augmentations. Unlike the authors' Pillow code, values are not
      rounded to 8 bits between operations, except in hue.
    """
    views = recipe_views(recipe, scale)
    seeds = tf.unstack(tf.random.experimental.stateless_split(tf.cast(seed, tf.int32), 4))
    sides = tf.unstack(image_size(image_bytes), num=2)
    windows = [crop_window(seeds[v], sides[0], sides[1], views[v].scale, views[v].ratio) for v in (0, 1)]
    result = {}
    for v, crop in enumerate(decode_crops(image_bytes, windows)):
        image, flips = augmented(crop, seeds[2 + v], size, views[v])
        result[f"view{v + 1}"] = normalised(image)
        result[f"box{v + 1}"] = flip_box(crop_box(*tf.unstack(windows[v]), *sides), *flips)
    return result


def recipe_views(recipe, scale=None) -> tuple[View, View]:
    """The two views of a recipe, by name or as they are."""
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}, or two Views. Received recipe={recipe!r}.")
        recipe = RECIPES[recipe]
    if scale is not None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"scale must be two rising shares of the area. Received scale={scale}. Pass e.g. (0.08, 1.0)."
            )
        recipe = tuple(dataclasses.replace(view, scale=tuple(scale)) for view in recipe)
    return recipe


def centre_view(image_bytes, size=(224, 224), margin: float = 256 / 224) -> tf.Tensor:
    """The evaluation view: short side scaled to margin * size, centre cut out, normalised; [height, width, 3] float32."""
    sides = tf.cast(image_size(image_bytes), tf.float32)
    window = tf.minimum(
        sides, tf.reduce_min(sides / tf.constant(size, tf.float32)) * tf.constant(size, tf.float32) / margin
    )
    window = tf.maximum(tf.cast(tf.round(window), tf.int32), 1)
    corner = (tf.cast(sides, tf.int32) - window) // 2
    (crop,) = decode_crops(image_bytes, [tf.concat([corner, window], 0)])
    return normalised(resized(crop, size))


def image_size(image_bytes) -> tf.Tensor:
    """[2] int32 (height, width); only the header of a JPEG is read."""

    def decoded():
        return tf.shape(tf.io.decode_image(image_bytes, expand_animations=False))[:2]

    return tf.cond(tf.io.is_jpeg(image_bytes), lambda: tf.image.extract_jpeg_shape(image_bytes)[:2], decoded)


def decode_crops(image_bytes, windows) -> list[tf.Tensor]:
    """Crops of an image, each [h, w, 3] uint8; of a JPEG only the rectangle around all windows is decoded.

    Args:
      image_bytes: scalar string.
      windows: list of [4] int32 (top, left, height, width) in pixels.
    """
    corners = tf.stack(windows)
    first = tf.reduce_min(corners[:, :2], axis=0)
    extent = tf.reduce_max(corners[:, :2] + corners[:, 2:], axis=0) - first

    def jpeg():
        return tf.image.decode_and_crop_jpeg(image_bytes, tf.concat([first, extent], 0), channels=3)

    def other():
        image = tf.ensure_shape(tf.io.decode_image(image_bytes, channels=3, expand_animations=False), [None, None, 3])
        return tf.slice(image, [first[0], first[1], 0], [extent[0], extent[1], 3])

    part = tf.cond(tf.io.is_jpeg(image_bytes), jpeg, other)
    starts = [window[:2] - first for window in windows]
    return [
        tf.slice(part, [start[0], start[1], 0], [window[2], window[3], 3]) for start, window in zip(starts, windows)
    ]


def crop_window(seed, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), tries: int = 10) -> tf.Tensor:
    """A random crop: area uniform in `scale`, logarithm of the aspect uniform, the first of ten draws that fits.

    Args:
      seed: [2] integer.
      height, width: of the image, pixels.
      scale: shares of the image's area.
      ratio: width / height.

    Returns:
      [4] int32 (top, left, height, width); if no draw fits, the largest central crop whose aspect is allowed.

    Source: the authors' `RandomResizedCropCoord.get_params` (torchvision's sampler).
    """
    draw = tf.random.stateless_uniform([4, tries], seed)
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = rows * columns * (scale[0] + draw[0] * (scale[1] - scale[0]))
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + draw[1] * (high - low))
    w, h = tf.round(tf.sqrt(area * aspect)), tf.round(tf.sqrt(area / aspect))
    fits = (w > 0) & (w <= columns) & (h > 0) & (h <= rows)
    top, left = tf.floor(draw[2] * (rows - h + 1)), tf.floor(draw[3] * (columns - w + 1))
    drawn = tf.stack([top, left, h, w], -1)[tf.argmax(fits)]
    h, w = tf.minimum(rows, tf.round(columns / ratio[0])), tf.minimum(columns, tf.round(rows * ratio[1]))
    central = tf.stack([tf.floor((rows - h) / 2), tf.floor((columns - w) / 2), h, w])
    return tf.cast(tf.where(tf.reduce_any(fits), drawn, central), tf.int32)


def augmented(crop, seed, size, view: View):
    """One view of a crop.

    Args:
      crop: [h, w, 3] uint8.
      seed: [2] integer.
      size: (height, width) of the result.
      view: what may happen to it.

    Returns:
      ([height, width, 3] float32 in 0..255, (flipped horizontally, flipped vertically) scalar bools).
    """
    draw = tf.unstack(tf.random.stateless_uniform([12], seed))
    flips = (draw[0] < view.flip, draw[1] < view.vertical_flip)
    image = resized(crop, size)
    image = _maybe(view.flip, draw[0], lambda x: tf.reverse(x, [1]), image)
    image = _maybe(view.vertical_flip, draw[1], lambda x: tf.reverse(x, [0]), image)
    image = _maybe(view.jitter, draw[2], lambda x: jittered(x, draw[3:8], view), image)
    image = _maybe(view.gray, draw[8], gray, image)
    sigma = view.sigma[0] + draw[10] * (view.sigma[1] - view.sigma[0])
    image = _maybe(view.blur, draw[9], lambda x: blurred(x, sigma), image)
    image = _maybe(view.solarize, draw[11], solarized, image)
    return tf.ensure_shape(image, [*size, 3]), flips


def _maybe(probability, draw, change, image):
    """The changed image with a probability; a change that never or always happens costs no branch."""
    if probability <= 0:
        return image
    if probability >= 1:
        return change(image)
    return tf.cond(draw < probability, lambda: change(image), lambda: image)


def resized(image, size) -> tf.Tensor:
    """Bilinear, antialiased when it shrinks, like Pillow's; float32 in 0..255."""
    return tf.image.resize(image, size, antialias=True)


def normalised(image) -> tf.Tensor:
    """0..255 -> what the encoder sees."""
    scale = tf.constant([1 / (255 * d) for d in DEVIATION])
    return image * scale - tf.constant([m / d for m, d in zip(MEAN, DEVIATION)])


def jittered(image, draws, view: View) -> tf.Tensor:
    """Brightness, contrast, saturation and hue in a random order; `draws` are five numbers in 0..1, the last for the order."""
    amounts = (view.brightness, view.contrast, view.saturation)
    factors = [1 - amount + 2 * amount * draw for amount, draw in zip(amounts, draws[:3])]
    turn = view.hue * (2 * draws[3] - 1)
    changes = [
        lambda x: brightened(x, factors[0]),
        lambda x: contrasted(x, factors[1]),
        lambda x: saturated(x, factors[2]),
        lambda x: hue_turned(x, turn),
    ]
    order = tf.gather(tf.constant(_ORDERS), tf.cast(draws[4] * len(_ORDERS), tf.int32))

    def step(place, image):
        return place + 1, tf.switch_case(order[place], [lambda c=change: c(image) for change in changes])

    return tf.while_loop(lambda place, _: place < 4, step, (0, image))[1]


def _permutations(items):
    if not items:
        return [[]]
    return [[item, *rest] for item in items for rest in _permutations([other for other in items if other != item])]


_ORDERS = _permutations([0, 1, 2, 3])


def _clipped(image):
    return tf.clip_by_value(image, 0.0, 255.0)


def luma(image) -> tf.Tensor:
    """[h, w, 1], ITU-R 601 gray as Pillow's mode L, not rounded."""
    return tf.add_n([weight * image[..., c : c + 1] for c, weight in enumerate(GRAY)])


def brightened(image, factor) -> tf.Tensor:
    """Every value times a factor."""
    return _clipped(image * factor)


def contrasted(image, factor) -> tf.Tensor:
    """Away from (factor above 1) or toward the mean gray of the image."""
    mean = tf.round(tf.reduce_sum(tf.reduce_mean(image, axis=[0, 1]) * tf.constant(GRAY)))
    return _clipped(image * factor + mean * (1 - factor))


def saturated(image, factor) -> tf.Tensor:
    """Away from or toward each pixel's own gray."""
    return _clipped(image * factor + luma(image) * (1 - factor))


def hue_turned(image, turn) -> tf.Tensor:
    """Hue turned by a share of the circle, in Pillow's 8-bit HSV."""
    value = tf.image.rgb_to_hsv(tf.round(image) / 255.0)
    # Pillow truncates hue and saturation to 8 bits and adds the whole number of steps, modulo 256.
    steps = tf.cast(tf.cast(turn * 255.0, tf.int32), tf.float32)
    hue = tf.math.floormod(tf.floor(value[..., 0] * 255.0) + steps, 256.0)
    saturation = tf.floor(value[..., 1] * 255.0)
    return tf.image.hsv_to_rgb(tf.stack([hue / 255.0, saturation / 255.0, value[..., 2]], -1)) * 255.0


def gray(image) -> tf.Tensor:
    """Three equal channels."""
    return tf.tile(luma(image), [1, 1, 3])


def solarized(image, threshold: float = 128.0) -> tf.Tensor:
    """Values at or above the threshold turned around."""
    return tf.where(image < threshold, image, 255.0 - image)


def blurred(image, sigma) -> tf.Tensor:
    """Pillow's GaussianBlur: three box filters of broken width after another, edges repeated; sigma in pixels, up to 2."""
    rows, columns, channels = image.shape
    down = _blur_matrix(sigma, rows)
    across = down if rows == columns else _blur_matrix(sigma, columns)
    image = tf.reshape(tf.matmul(down, tf.reshape(image, [rows, -1])), [rows, columns, channels])
    image = tf.reshape(tf.transpose(image, [1, 0, 2]), [columns, -1])
    return tf.transpose(tf.reshape(tf.matmul(across, image), [columns, rows, channels]), [1, 0, 2])


def _blur_matrix(sigma, pixels: int) -> tf.Tensor:
    """[pixels, pixels]: the whole blur of one line as a product, so that each of the three filters meets the edge as it should."""
    taps = _box_taps(sigma)
    near = tf.range(pixels)[:, tf.newaxis] + tf.range(-2, 3)
    once = tf.reduce_sum(tf.one_hot(tf.clip_by_value(near, 0, pixels - 1), pixels) * taps[:, tf.newaxis], axis=1)
    return tf.matmul(once, tf.matmul(once, once))


def _box_taps(sigma):
    """[5] weights of the box filter of which three make a Gaussian of this sigma.

    Source: Gwosdek et al. 2011 (extended box filters), as Pillow's ImagingGaussianBlur.
    """
    variance = tf.square(sigma) / 3
    whole = tf.floor((tf.sqrt(12 * variance + 1) - 1) / 2)
    rest = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - tf.square(whole + 1)))
    inner = 1 / (2 * (whole + rest) + 1)
    outer = (1 - (2 * whole + 1) * inner) / 2
    distance = tf.abs(tf.range(-2.0, 3.0))
    return tf.where(distance <= whole, inner, tf.where(distance <= whole + 1, outer, 0.0))
