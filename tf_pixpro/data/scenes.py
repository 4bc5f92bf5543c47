"""Synthetic scenes: textured objects on textured backgrounds, with classes, boxes, instance masks and a semantic map.

A world in which a dense representation is worth learning, and that needs no download. An object's class is a pair
(shape, texture), and neither alone decides: classes share shapes, and share textures, with each other and with the
background. Colours, lighting, scale, rotation, position and occlusion are random and say nothing about the class. Pure
NumPy, everything from (seed, index).
"""

import dataclasses

import numpy as np

from tf_evonorm.mistakes import Mistake

CLASSES = (
    ("disc", "stripes"),
    ("disc", "dots"),
    ("square", "dots"),
    ("square", "checks"),
    ("triangle", "stripes"),
    ("star", "noise"),
    ("ring", "checks"),
    ("cross", "noise"),
)
CLASS_NAMES = tuple(f"{shape}_{texture}" for shape, texture in CLASSES)
"""Names of the classes; class number c (1, 2, ...) of masks and labels is `CLASS_NAMES[c - 1]`, 0 is background."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
      image: [H, W, 3] uint8.
      labels: [N] int64, class number of each visible object, 1 ... 8; far objects first.
      boxes: [N, 4] int64, (x1, y1, x2, y2) in pixels around what is visible, x2 and y2 exclusive.
      masks: [N, H, W] bool, visible pixels of each object; no pixel belongs to two.
      semantic: [H, W] uint8, class number of each pixel, 0 where there is background.
    """

    image: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: np.ndarray
    semantic: np.ndarray

    @property
    def main_label(self) -> int:
        """Class number of the object with the largest visible area."""
        return int(self.labels[np.argmax(self.masks.sum((1, 2)))])


def scene(index: int, seed: int = 0, size: tuple[int, int] = (128, 128), objects: tuple[int, int] = (2, 6)) -> Scene:
    """Draws one scene; the same (index, seed, size, objects) gives the same bytes.

    Args:
      index: number of the scene, from 0.
      seed: number of the world.
      size: (height, width) in pixels, at least 16 each.
      objects: fewest and most objects drawn; later ones may hide earlier ones, wholly hidden ones are left out.

    Raises:
      Mistake: for a size or number of objects out of range.
    """
    height, width = size
    if min(size) < 16:
        raise Mistake(
            f"a scene must have sides of 16 pixels or more. Received size={size}. Pass for example (128, 128)."
        )
    if not 1 <= objects[0] <= objects[1]:
        raise Mistake(
            f"objects must be (fewest, most), at least 1. Received objects={objects}. Pass for example (2, 6)."
        )
    random = np.random.default_rng([seed, index])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    canvas = _textured(random, random.choice(["stripes", "dots", "checks", "noise", "plain"]), x, y, min(size))
    owner = np.zeros(size, np.int64)
    drawn = []
    for number in range(1, random.integers(objects[0], objects[1] + 1) + 1):
        label = int(random.integers(len(CLASSES))) + 1
        drawn.append(label)
        _draw(random, canvas, owner, number, *CLASSES[label - 1])
    masks = owner == np.arange(1, len(drawn) + 1)[:, None, None]
    visible = masks.any((1, 2))
    masks, labels = masks[visible], np.array(drawn, np.int64)[visible]
    return Scene(
        image=_lit(random, canvas, x / width, y / height),
        labels=labels,
        boxes=np.array([_box(mask) for mask in masks], np.int64).reshape(-1, 4),
        masks=masks,
        semantic=np.array([0, *drawn], np.uint8)[owner],
    )


def _draw(random, canvas, owner, number, shape, texture):
    """Paints one object over the canvas and writes its number where it is."""
    height, width = owner.shape
    radius = min(height, width) * random.uniform(0.1, 0.28)
    centre_x, centre_y = random.uniform(0, width - 1), random.uniform(0, height - 1)
    top, bottom = max(0, int(centre_y - radius - 1)), min(height, int(centre_y + radius + 2))
    left, right = max(0, int(centre_x - radius - 1)), min(width, int(centre_x + radius + 2))
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    distance = _outside(shape, *_rotated(x - centre_x, y - centre_y, random.uniform(0, 2 * np.pi)), radius)
    cover = np.clip(0.5 - distance, 0.0, 1.0)[..., None]
    paint = _textured(random, texture, x - centre_x, y - centre_y, 2 * radius)
    patch = (slice(top, bottom), slice(left, right))
    canvas[patch] += cover * (paint - canvas[patch])
    owner[patch][distance < 0] = number


def _rotated(x, y, angle):
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _outside(shape, x, y, radius):
    """Signed distance in pixels from the outline (nearly, at corners), negative inside.

    The shape lies in a circle of `radius`.
    """
    if shape == "disc":
        return np.hypot(x, y) - 0.9 * radius
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.72 * radius) - 0.25 * radius
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.7 * radius
    if shape == "cross":
        x, y, long, short = np.abs(x), np.abs(y), 0.92 * radius, 0.3 * radius
        return np.minimum(np.maximum(x - long, y - short), np.maximum(x - short, y - long))
    if shape == "triangle":
        return np.maximum(np.abs(x) * 0.8660254 - y * 0.5, y) - 0.5 * radius
    sector = np.pi / 5  # a five-pointed star: fold the plane into half a point, then one straight edge
    angle = np.abs((np.arctan2(y, x) + sector) % (2 * sector) - sector)
    reach, inner = np.hypot(x, y), 0.45 * radius
    edge_x, edge_y = inner * np.cos(sector) - radius, inner * np.sin(sector)
    return (-edge_y * (reach * np.cos(angle) - radius) + edge_x * reach * np.sin(angle)) / -np.hypot(edge_x, edge_y)


def _textured(random, texture, x, y, extent):
    """[h, w, 3] float32 in 0 ... 1: a pattern between two chance colours; `extent` in pixels sets how coarse it is."""
    first, second = _two_colours(random)
    period = max(3.5, extent * random.uniform(0.12, 0.25))
    u, v = _rotated(x, y, random.uniform(0, np.pi))
    u, v = (
        (u + random.uniform(0, period)) * (2 * np.pi / period),
        (v + random.uniform(0, period)) * (2 * np.pi / period),
    )
    if texture == "stripes":
        wave = 2.0 * np.sin(u)
    elif texture == "checks":
        wave = 3.0 * np.sin(u) * np.sin(v)
    elif texture == "dots":
        wave = 2.5 * (np.cos(u) + np.cos(v)) - 2.0
    elif texture == "noise":
        wave = 3.0 * _cloud(random, x.shape, period / 2)
    else:
        wave = (u + v) / (np.abs(u + v).max() + 1e-6)
    share = np.clip(0.5 + 0.5 * wave, 0.0, 1.0)[..., None].astype(np.float32)
    return first + share * (second - first)


def _two_colours(random):
    """Two colours that differ enough for the pattern between them to be seen."""
    while True:
        colours = random.uniform(0.05, 0.95, (2, 3)).astype(np.float32)
        if np.abs(colours[0] - colours[1]).sum() > 0.7:
            return colours


def _cloud(random, shape, step):
    """Smooth chance field around 0: random values every `step` pixels, interpolated linearly."""
    rows, columns = (int(side / step) + 2 for side in shape)
    grid = random.standard_normal((rows, columns)).astype(np.float32)
    return _between(shape[0], rows, step) @ grid @ _between(shape[1], columns, step).T


def _between(pixels, knots, step):
    """[pixels, knots] weights of linear interpolation."""
    return np.maximum(0, 1 - np.abs(np.arange(pixels, dtype=np.float32)[:, None] / np.float32(step) - np.arange(knots)))


def _lit(random, canvas, x, y):
    """Light from one side, gain, tint and sensor noise; uint8."""
    angle, depth = random.uniform(0, 2 * np.pi), random.uniform(0.0, 0.5)
    light = 1.0 + depth * ((x - 0.5) * np.float32(np.cos(angle)) + (y - 0.5) * np.float32(np.sin(angle)))
    tint = (random.uniform(0.7, 1.15) * random.uniform(0.9, 1.1, 3)).astype(np.float32)
    noise = random.standard_normal(canvas.shape[:2], np.float32)[..., None] * np.float32(random.uniform(0.0, 0.03))
    return np.rint(np.clip(canvas * light[..., None] * tint + noise, 0.0, 1.0) * 255.0).astype(np.uint8)


def _box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
