"""Throughput of the input pipeline, beside two other implementations, and the cost of each operation.

    python -m experiments.benchmark input [--source=photos.zip] [--size=224] [--images=200] [--repeats=5]

Without a source, synthetic scenes of 375 x 500 pixels are encoded as JPEG in place of photos. The plain version decodes
the whole image once per view, crops, calls `tf.image.resize`, then computes every operation on every view and selects
with `tf.where`. "Pillow" is what the authors' code does with Pillow and NumPy, one process without a loader. All run in
alternating rounds in one process on one thread, the first two in tf.data. Time is processor time, so that images/s are
those of one core, whatever the load of the machine.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from experiments.studies.runs import markdown
from tf_pixpro import data
from tf_pixpro.data import scenes
from tf_pixpro.views import augment


def main(arguments: Sequence[str]) -> None:
    """Prints a table of throughput and a table of operations."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark input", description=__doc__.split("\n")[0])
    parser.add_argument("--source", help="folder or zip of JPEGs; default: synthetic scenes of 375 x 500 pixels")
    parser.add_argument("--size", type=int, default=224, help="height and width of the views")
    parser.add_argument("--images", type=int, default=200, help="images of one round")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    options = parser.parse_args(arguments)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    images = encoded_images(options.source, options.images)
    size = (options.size, options.size)
    ways = {
        "tf_pixpro": timed_rounds(images, lambda image, seed: augment.two_views(image, seed, size)),
        "plain": timed_rounds(images, lambda image, seed: plain_views(image, seed, size)),
        "Pillow": _pillow_rounds(images, size),
    }
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, times in ways.items():
            rounds[name].append(len(images) / next(times))
    shapes = np.median([tf.io.extract_jpeg_shape(image).numpy()[:2] for image in images], axis=0)
    print(
        f"{len(images)} JPEGs, median {shapes[0]:.0f} x {shapes[1]:.0f} pixels -> two views of {size[0]} x {size[1]}, "
        "one thread\n"
    )
    rates = [[name, *map(_short, (statistics.median(r), min(r), max(r)))] for name, r in rounds.items()]
    print(markdown(["input", "images/s, median", "least", "most"], rates))
    for name in ("plain", "Pillow"):
        ratios = [one / other for one, other in zip(rounds["tf_pixpro"], rounds[name])]
        print(f"\ntf_pixpro / {name}, median of the rounds: {statistics.median(ratios):.2f}")
    print()
    costs = [[name, f"{ms:.3f}", f"{times:.2f}"] for name, ms, times in operation_costs(images, size)]
    print(markdown(["operation", "ms", "calls in two views"], costs))


def _short(value: float) -> str:
    return f"{value:.1f}"


def encoded_images(path: Optional[str], count: int) -> list[bytes]:
    """Returns at most `count` JPEGs, evenly spaced over the source; synthetic scenes without a path."""
    if path is None:
        drawn = [scenes.scene(index, size=(375, 500)).image for index in range(count)]
        return [_jpeg(image) for image in drawn]
    source = data.source(path)
    chosen = np.linspace(0, source.num_examples - 1, min(count, source.num_examples)).astype(int)
    examples = tf.data.Dataset.from_tensor_slices(chosen.astype(np.int64)).map(source.read)
    return [image for image in (example["bytes"].numpy() for example in examples) if tf.io.is_jpeg(image)]


def _jpeg(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def timed_rounds(values: Any, make: Callable) -> Iterator[float]:
    """Yields the processor seconds of each round of `make(value, seed)` over all values, forever.

    All rounds come from one tf.data iterator on one thread; the first one, which builds the graph, is not yielded.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    # Otherwise a part of the next round would be computed ahead of time.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    options.experimental_optimization.inject_prefetch = False

    def made(number: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        results = tf.nest.flatten(make(value, tf.stack([0, tf.cast(number, tf.int32)])))
        return tf.add_n([tf.cast(tf.reshape(result, [-1])[0], tf.float32) for result in results])

    numbered = tf.data.Dataset.from_tensor_slices(values).repeat().enumerate()
    iterator = iter(numbered.map(made).batch(len(values)).with_options(options))
    next(iterator)
    while True:
        start = time.process_time()
        next(iterator)
        yield time.process_time() - start


def plain_views(image_bytes: tf.Tensor, seed: tf.Tensor, size: tuple[int, int]) -> dict[str, tf.Tensor]:
    """Computes BYOL's augmentations in the most direct way with tf.image."""
    views = {}
    for number, view in enumerate(augment.RECIPES["BYOL"]):
        seeds = tf.random.experimental.stateless_split(seed + number, 3)
        draw = tf.unstack(tf.random.stateless_uniform([10], seeds[0]))
        image = tf.io.decode_jpeg(image_bytes, channels=3)
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros([1, 0, 4]),
            seeds[1],
            0.1,
            view.ratio,
            view.scale,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, begin, extent), size, antialias=True) / 255.0
        image = tf.where(draw[0] < view.flip, tf.image.flip_left_right(image), image)
        changed = tf.image.adjust_brightness(image, view.brightness * (2 * draw[1] - 1))
        changed = tf.image.adjust_contrast(changed, 1 + view.contrast * (2 * draw[2] - 1))
        changed = tf.image.adjust_saturation(changed, 1 + view.saturation * (2 * draw[3] - 1))
        changed = tf.clip_by_value(tf.image.adjust_hue(changed, view.hue * (2 * draw[4] - 1)), 0.0, 1.0)
        image = tf.where(draw[5] < view.jitter, changed, image)
        image = tf.where(draw[6] < view.gray, tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image)), image)
        image = tf.where(draw[7] < view.blur, _convolved(image, 0.1 + 1.9 * draw[8]), image)
        image = tf.where(draw[9] < view.solarize, tf.where(image < 0.5, image, 1.0 - image), image)
        views[f"view{number + 1}"] = (tf.reshape(image, [*size, 3]) - augment.MEAN) / augment.DEVIATION
    return views


def _convolved(image: tf.Tensor, sigma: tf.Tensor, taps: int = 23) -> tf.Tensor:
    """Computes SimCLR's blur, whose kernel is a tenth of the image's side, as two depthwise convolutions."""
    offset = tf.cast(tf.range(taps) - taps // 2, tf.float32)
    kernel = tf.tile(tf.reshape(tf.nn.softmax(-tf.square(offset / sigma) / 2), [taps, 1, 1, 1]), [1, 1, 3, 1])
    image = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, [1, 1, 1, 1], "SAME")
    return tf.nn.depthwise_conv2d(image, tf.transpose(kernel, [1, 0, 2, 3]), [1, 1, 1, 1], "SAME")[0]


def _pillow_rounds(images: Sequence[bytes], size: tuple[int, int]) -> Iterator[float]:
    generator = np.random.default_rng(0)
    while True:
        start = time.process_time()
        for image in images:
            pillow_views(image, generator, size)
        yield time.process_time() - start


def pillow_views(image_bytes: bytes, generator: np.random.Generator, size: tuple[int, int]) -> list[np.ndarray]:
    """Computes BYOL's augmentations as the authors' transforms do: each operation on 8-bit images of Pillow.

    Returns:
      Two views, each [3, height, width] float32, normalized.
    """
    image, views = Image.open(io.BytesIO(image_bytes)).convert("RGB"), []
    for view in augment.RECIPES["BYOL"]:
        box = _drawn_box(generator, *image.size, view)
        changed = image.crop(box).resize(size[::-1], Image.Resampling.BILINEAR)
        if generator.random() < view.flip:
            changed = changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if generator.random() < view.jitter:
            changed = _pillow_jitter(changed, generator, view)
        if generator.random() < view.gray:
            changed = changed.convert("L").convert("RGB")
        if generator.random() < view.blur:
            changed = changed.filter(ImageFilter.GaussianBlur(generator.uniform(*view.sigma)))
        if generator.random() < view.solarize:
            changed = ImageOps.solarize(changed)
        planes = np.asarray(changed).transpose(2, 0, 1).astype(np.float32) / 255
        mean, deviation = (np.array(x, np.float32)[:, None, None] for x in (augment.MEAN, augment.DEVIATION))
        views.append((planes - mean) / deviation)
    return views


def _drawn_box(
    generator: np.random.Generator, width: int, height: int, view: augment.View
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a crop; see `augment.crop_window`."""
    for _ in range(10):
        area = width * height * generator.uniform(*view.scale)
        aspect = np.exp(generator.uniform(*np.log(view.ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if w <= width and h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _pillow_jitter(image: Image.Image, generator: np.random.Generator, view: augment.View) -> Image.Image:
    enhancers = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
    amounts = (view.brightness, view.contrast, view.saturation, view.hue)
    for number in generator.permutation(4):
        amount, enhancer = amounts[number], enhancers[number]
        if enhancer is not None:
            image = enhancer(image).enhance(generator.uniform(1 - amount, 1 + amount))
            continue
        hue, *rest = image.convert("HSV").split()
        turn = np.uint8(int(255 * generator.uniform(-amount, amount)) % 256)
        image = Image.merge("HSV", (Image.fromarray(np.asarray(hue) + turn), *rest)).convert("RGB")
    return image


def operation_costs(images: Sequence[bytes], size: tuple[int, int]) -> list[tuple[str, float, float]]:
    """Returns (name, milliseconds of one call, expected number of calls in two views) of every operation."""
    one, two = augment.RECIPES["BYOL"]
    image = tf.random.stateless_uniform([*size, 3], [0, 0], 0, 255)
    planes = tf.transpose(image, [2, 0, 1])
    jpeg = images[len(images) // 2]
    height, width = (int(side) for side in augment.image_size(jpeg))
    window = tf.constant([height // 8, width // 8, height * 3 // 4, width * 3 // 4])
    (crop,) = augment.decode_crops(jpeg, [window])
    draws = [tf.constant(0.7)] * 5
    jitter = one.jitter + two.jitter
    operations = {
        "decode the whole JPEG": (lambda x: tf.io.decode_jpeg(x, channels=3), jpeg, 0),
        "decode 3/4 x 3/4 of it": (lambda x: augment.decode_crops(x, [window]), jpeg, 1),
        "size and two windows": (
            lambda x: [augment.crop_window([s, 0], *tf.unstack(augment.image_size(x))) for s in (0, 1)], jpeg, 1,
        ),
        "resize, to planes": (lambda x: augment.resized_planes(x, size), crop, 2),
        "flip": (lambda x: tf.reverse(x, [1]), planes, one.flip + two.flip),
        "jitter, all of it": (lambda x: augment.jittered(x, draws, one), planes, jitter),
        "- brightness": (lambda x: augment.brightened(x, 1.1), planes, jitter),
        "- contrast": (lambda x: augment.contrasted(x, 1.1), planes, jitter),
        "- saturation": (lambda x: augment.saturated(x, 1.1), planes, jitter),
        "- hue": (lambda x: augment.adjusted_hue(x, 0.05), planes, jitter),
        "gray": (augment.gray, planes, one.gray + two.gray),
        "blur": (lambda x: augment.blurred(x, 1.5), planes, one.blur + two.blur),
        "solarize": (augment.solarized, planes, one.solarize + two.solarize),
        "normalize, back to [h, w, 3]": (augment.interleaved, planes, 2),
    }  # fmt: skip
    return [(name, _milliseconds(function, value), times) for name, (function, value, times) in operations.items()]


def _milliseconds(function: Callable, value: Any, calls: int = 30, repeats: int = 3) -> float:
    """Returns the median duration of one call, minus that of a call that does nothing."""
    values = [value] * calls
    full = timed_rounds(values, lambda x, _: function(x))
    empty = timed_rounds(values, lambda x, _: tf.strings.length(x) if x.dtype == tf.string else x)
    times = [[next(rounds) for _ in range(repeats)] for rounds in (full, empty)]
    return 1000 * (statistics.median(times[0]) - statistics.median(times[1])) / calls
