"""From the bytes of an image to two augmented views and their boxes: the only augmentation code in the house.

Every function is stateless: what it draws, it draws from the seed that it is given. Images are float32 in 0..255: [h,
w, 3] when they come and go, and planes in between, on which colour operations are several times as fast: [3, w, h],
since a resize leaves columns where rows were, and what does not ask for directions need not turn them back.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.geometry import crop_box, flip_box
from tf_pixpro.views.colour import adjusted_hue, blurred, brightened, contrasted, gray, saturated, solarized
from tf_pixpro.views.decode import decode_image, image_size
from tf_pixpro.views.orientation import jpeg_orientation
from tf_pixpro.views.rand_augment import rand_augmented

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class View:
    """What may happen to one view: crop and resize, flip, jitter, gray, blur, solarize, in this order.

    The order differs with `random_operations`.

    Attributes:
      scale: least and largest area of the crop, shares of the image.
      ratio: least and largest width / height of the crop.
      flip, vertical_flip, jitter, gray, blur, solarize: probabilities.
      brightness, contrast, saturation: factors are drawn from 1 - value .. 1 + value.
      hue: largest turn, shares of the circle.
      sigma: least and largest standard deviation of the blur, pixels.
      random_operations: so many of `tf_pixpro.views.rand_augment`, after the blur, which then comes before gray. They
        turn, shear and shift the image, of which the box knows nothing.

    Raises:
      Mistake: scale or ratio does not rise, an area beyond the image, or a probability outside 0..1.
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
    random_operations: int = 0

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise Mistake(
                f"scale must be two rising shares of the area. Received scale={self.scale}. Pass e.g. (0.08, 1.0)."
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise Mistake(
                f"ratio must be two rising quotients of width and height. Received ratio={self.ratio}. Pass "
                "e.g. (0.75, 1.33)."
            )
        for name in ("flip", "vertical_flip", "jitter", "gray", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise Mistake(f"{name} must be a probability, 0 to 1. Received {name}={getattr(self, name)}.")


_STRONG = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur=0.5)

# Source: the authors' `contrast/data/transform.py`, all of its sets for training; "BYOL" is their recipe.
RECIPES = {
    "BYOL": (View(blur=1.0), View(blur=0.1, solarize=0.2)),
    "NULL": (View(jitter=0.0, gray=0.0),) * 2,
    "InstDisc": (View(jitter=1.0, saturation=0.4, hue=0.4),) * 2,
    "MoCov2": (View(saturation=0.4, blur=0.5),) * 2,
    "SimCLR": (_STRONG,) * 2,
    "RandAug": (dataclasses.replace(_STRONG, random_operations=2),) * 2,
}


@tf.autograph.experimental.do_not_convert
def two_views(
    image_bytes: tf.Tensor,
    seed: tf.Tensor,
    size: tuple[int, int] = (224, 224),
    recipe: str | tuple[View, View] = "BYOL",
    exif: bool = False,
    bits: int = 16,
    pillow: bool = True,
    **changes: Any,
) -> dict[str, tf.Tensor]:
    """Two random views of one image.

    Args:
      image_bytes: scalar string, an image file; see `tf_pixpro.views.decode`. Of a JPEG only the part that a view needs
        is decoded.
      seed: [2] integer; the same seed gives the same views.
      size: (height, width) of both views in pixels.
      recipe: a name in `RECIPES`, or a pair of `View`.
      exif: whether images are rotated upright by their EXIF orientation. Off as in the authors' code: pre-training
        needs no upright images, and reading the orientation costs a third of decoding a small photo.
      bits: how many bits of 16-bit channels are used.
      pillow: whether formats that TensorFlow does not read go through Pillow, which is Python.
      **changes: attributes of both views in place of the recipe's, such as scale, ratio or vertical_flip.

    Returns:
      {'view1', 'view2': [height, width, 3] float32, normalized by ImageNet's mean and deviation; 'box1', 'box2': [4]
      float32}.

    Raises:
      Mistake: for an unknown recipe, an attribute that no `View` has, or a value outside its range.
      tf.errors.InvalidArgumentError: when run, if the bytes are no image.

    Source: pixpro's `contrast/data`: paper section 4.1 names BYOL's augmentations. Unlike the authors' Pillow code,
      values are not rounded to 8 bits between operations, except in hue.
    """
    views = recipe_views(recipe, **changes)
    seeds = tf.unstack(tf.random.experimental.stateless_split(tf.cast(seed, tf.int32), 4))
    sides = tf.unstack(image_size(image_bytes, exif, pillow), num=2)
    windows = [crop_window(seeds[v], sides[0], sides[1], views[v].scale, views[v].ratio) for v in (0, 1)]
    result = {}
    for v, crop in enumerate(decode_crops(image_bytes, windows, exif, bits, pillow)):
        result[f"view{v + 1}"], flips = augmented(crop, seeds[2 + v], size, views[v])
        result[f"box{v + 1}"] = flip_box(crop_box(*tf.unstack(windows[v]), *sides), *flips)
    return result


def recipe_views(recipe: str | tuple[View, View], **changes: Any) -> tuple[View, View]:
    """The two views of a recipe, by name or as they are, with other attributes where `changes` names them.

    Raises:
      Mistake: see `two_views`.
    """
    known = [field.name for field in dataclasses.fields(View)]
    unknown = sorted({*changes} - {*known})
    if unknown:
        raise Mistake(
            f"a view has {', '.join(known)}. Received {', '.join(unknown)}. Correct the name or leave it out."
        )
    views: Any = recipe
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise Mistake(f"recipe must be one of {', '.join(RECIPES)}, or two Views. Received recipe={recipe!r}.")
        views = RECIPES[recipe]
    changes = {name: tuple(value) if isinstance(value, Sequence) else value for name, value in changes.items()}
    one, two = (dataclasses.replace(view, **changes) for view in views)
    return one, two


def centre_view(
    image_bytes: tf.Tensor,
    size: tuple[int, int] = (224, 224),
    margin: float = 256 / 224,
    exif: bool = False,
    bits: int = 16,
    pillow: bool = True,
) -> tf.Tensor:
    """The evaluation view: short side scaled to margin * size, centre cut out, normalized.

    Args:
      image_bytes: scalar string, an image file.
      size: (height, width) of the result, pixels.
      margin: 1 takes the largest centre there is.
      exif, bits, pillow: see `tf_pixpro.views.decode.decode_image`.

    Returns:
      [height, width, 3] float32.
    """
    sides = tf.cast(image_size(image_bytes, exif, pillow), tf.float32)
    window = tf.minimum(
        sides, tf.reduce_min(sides / tf.constant(size, tf.float32)) * tf.constant(size, tf.float32) / margin
    )
    window = tf.maximum(tf.cast(tf.round(window), tf.int32), 1)
    corner = (tf.cast(sides, tf.int32) - window) // 2
    (crop,) = decode_crops(image_bytes, [tf.concat([corner, window], 0)], exif, bits, pillow)
    return normalized(resized(crop, size))


def decode_crops(
    image_bytes: tf.Tensor, windows: Sequence[tf.Tensor], exif: bool = False, bits: int = 16, pillow: bool = True
) -> list[tf.Tensor]:
    """Crops of an image, each [h, w, 3] uint8.

    Of a JPEG stored upright only the rectangle around all windows is decoded.

    Args:
      image_bytes: scalar string.
      windows: list of [4] int32 (top, left, height, width) in pixels, of the image as displayed if `exif`.
      exif, bits, pillow: see `tf_pixpro.views.decode.decode_image`.
    """
    corners = tf.stack(windows)
    first = tf.reduce_min(corners[:, :2], axis=0)
    extent = tf.reduce_max(corners[:, :2] + corners[:, 2:], axis=0) - first

    def jpeg():
        rectangle = tf.concat([first, extent], 0)
        return tf.image.decode_and_crop_jpeg(image_bytes, rectangle, channels=3, dct_method="INTEGER_ACCURATE")

    def other():
        image = decode_image(image_bytes, exif, bits, pillow)
        return tf.slice(image, [first[0], first[1], 0], [extent[0], extent[1], 3])

    by_part = tf.io.is_jpeg(image_bytes)
    if exif:
        by_part = tf.cond(by_part, lambda: jpeg_orientation(image_bytes) == 1, lambda: False)
    part = tf.cond(by_part, jpeg, other)
    starts = [window[:2] - first for window in windows]
    return [
        tf.slice(part, [start[0], start[1], 0], [window[2], window[3], 3]) for start, window in zip(starts, windows)
    ]


def crop_window(
    seed: tf.Tensor,
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    tries: int = 10,
) -> tf.Tensor:
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


def augmented(
    crop: tf.Tensor, seed: tf.Tensor, size: tuple[int, int], view: View
) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
    """One view of a crop.

    Args:
      crop: [h, w, 3] uint8.
      seed: [2] integer.
      size: (height, width) of the result.
      view: what may happen to it.

    Returns:
      ([height, width, 3] float32, normalized, (flipped horizontally, flipped vertically) scalar bools).
    """
    draw = tf.unstack(tf.random.stateless_uniform([12], seed))
    flips = (draw[0] < view.flip, draw[1] < view.vertical_flip)
    planes = resized_planes(crop, size)
    planes = _maybe(view.flip, draw[0], lambda x: tf.reverse(x, [1]), planes)
    planes = _maybe(view.vertical_flip, draw[1], lambda x: tf.reverse(x, [2]), planes)
    planes = _maybe(view.jitter, draw[2], lambda x: jittered(x, draw[3:8], view), planes)
    sigma = view.sigma[0] + draw[10] * (view.sigma[1] - view.sigma[0])
    if view.random_operations:
        planes = _maybe(view.blur, draw[9], lambda x: blurred(x, sigma), planes)
        planes = tf.transpose(planes, [0, 2, 1])
        planes = rand_augmented(planes, tf.random.experimental.stateless_fold_in(seed, 1), view.random_operations)
        planes = tf.transpose(planes, [0, 2, 1])
    planes = _maybe(view.gray, draw[8], gray, planes)
    if not view.random_operations:
        planes = _maybe(view.blur, draw[9], lambda x: blurred(x, sigma), planes)
    planes = _maybe(view.solarize, draw[11], solarized, planes)
    return tf.transpose(_normalized_planes(planes), [2, 1, 0]), flips


def _maybe(probability, draw, change, planes):
    """The changed image with a probability; a change that never or always happens costs no branch."""
    if probability <= 0:
        return planes
    if probability >= 1:
        return change(planes)
    return tf.cond(draw < probability, lambda: change(planes), lambda: planes)


def resized(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """[h, w, 3] -> [*size, 3]: bilinear, antialiased when it shrinks, like Pillow's; float32 in 0..255."""
    return tf.transpose(resized_planes(image, size), [2, 1, 0])


def resized_planes(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """[h, w, 3] -> [3, width, height], as `resized`, with rows and columns exchanged.

    `tf.image.resize` adds columns three numbers at a time, which takes most of its time. Here columns become rows in
    between, and each number of both passes is computed as there, thousands side by side.
    """
    height, width = size
    rows, columns = tf.unstack(tf.shape(image)[:2])
    down = _resized_rows(tf.reshape(image, [1, rows, 3 * columns]), rows, height)
    across = tf.transpose(tf.reshape(down, [height, columns, 3]), [2, 1, 0])
    return tf.ensure_shape(_resized_rows(across, columns, width), [3, width, height])


def _resized_rows(lines, rows, size):
    """[n, rows, k] -> [n, size, k]."""
    scale = tf.stack([tf.cast(size, tf.float32) / tf.cast(rows, tf.float32), 1.0])
    scaled = tf.raw_ops.ScaleAndTranslate(
        images=lines[:, :, tf.newaxis], size=[size, 1], scale=scale, translation=[0.0, 0.0], antialias=True,
        kernel_type="triangle",
    )  # fmt: skip
    return scaled[:, :, 0]


_SCALE = tuple(1 / (255 * d) for d in DEVIATION)
_SHIFT = tuple(m / d for m, d in zip(MEAN, DEVIATION))


def normalized(image: tf.Tensor) -> tf.Tensor:
    """[..., 3] in 0..255 -> what the encoder sees: less ImageNet's mean, in its standard deviations."""
    return image * tf.constant(_SCALE) - tf.constant(_SHIFT)


def denormalized(image: tf.Tensor) -> tf.Tensor:
    """What the encoder sees, [..., 3], -> 0..255; the inverse of `normalized`."""
    return (image + tf.constant(_SHIFT)) * tf.constant(tuple(1 / scale for scale in _SCALE))


def interleaved(planes: tf.Tensor) -> tf.Tensor:
    """[3, h, w] in 0..255 -> [h, w, 3], normalized."""
    return tf.transpose(_normalized_planes(planes), [1, 2, 0])


def _normalized_planes(planes):
    return planes * tf.constant(_SCALE, shape=[3, 1, 1]) - tf.constant(_SHIFT, shape=[3, 1, 1])


def jittered(planes: tf.Tensor, draws: tf.Tensor, view: View) -> tf.Tensor:
    """Brightness, contrast, saturation and hue in a random order.

    `draws` are five numbers in 0..1, the last for the order.
    """
    amounts = (view.brightness, view.contrast, view.saturation)
    factors = [1 - amount + 2 * amount * draw for amount, draw in zip(amounts, draws[:3])]
    turn = view.hue * (2 * draws[3] - 1)
    orders = list(itertools.permutations(range(4)))
    order = tf.gather(tf.constant(orders), tf.cast(draws[4] * len(orders), tf.int32))
    amounts = tf.gather(tf.stack([*factors, turn]), order)
    # `tf.switch_case` would be unfolded into the graph, where branches not taken still cost two milliseconds at 224
    # pixels.
    specs = [tf.TensorSpec(planes.shape, tf.float32), tf.TensorSpec([], tf.float32)]
    changes = [tf.function(c).get_concrete_function(*specs) for c in (brightened, contrasted, saturated, adjusted_hue)]
    for place in range(4):
        inputs = [planes, amounts[place]]
        (planes,) = tf.raw_ops.Case(
            branch_index=order[place], input=inputs, Tout=[tf.float32], branches=changes, output_shapes=[planes.shape]
        )
    return planes
