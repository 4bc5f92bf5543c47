"""Pictures of the pretext task: which cells of two views correspond, and which cells a cell resembles."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from tf_evonorm.mistakes import Mistake
from tf_pixpro.geometry import cell_distances, positive_mask
from tf_pixpro.pretext.layers import unit
from tf_pixpro.views.augment import denormalized


def correspondence_figure(
    view1: np.ndarray,
    view2: np.ndarray,
    box1: np.ndarray,
    box2: np.ndarray,
    cells: tuple[int, int],
    distance: float = 0.7,
    pairs: int = 12,
    title: str = "",
) -> np.ndarray:
    """Both views of one image, lines between the centres of corresponding cells.

    Args:
      view1, view2: [H, W, 3] float32, normalised as the encoder sees them.
      box1, box2: [4] float32, the views' boxes in their source image.
      cells: (h, w) of the feature map.
      distance: threshold of the positive pairs in cell diagonals.
      pairs: how many of the positive pairs are drawn, spread evenly over the first view.
      title: a line above the picture.

    Returns:
      [height, width, 3] uint8, about 600 x 300 pixels.
    """
    mask = positive_mask(box1[None], box2[None], cells, distance)[0].numpy()
    # One partner for each cell, the nearest: otherwise neighbours hide each other.
    distances = np.where(mask, cell_distances(box1[None], box2[None], cells)[0].numpy(), np.inf)
    rows = np.flatnonzero(mask.any(axis=1))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, pairs).round().astype(int))] if len(rows) else rows
    figure, (left, right) = _axes(2, title or f"{mask.sum()} positive pairs of cells")
    for axes, view in ((left, view1), (right, view2)):
        axes.imshow(_displayed(view))
        _draw_grid(axes, view, cells)
    for number, row in enumerate(rows):
        start, end = _centre(row, view1, cells), _centre(distances[row].argmin(), view2, cells)
        colour = f"C{number % 10}"
        figure.add_artist(ConnectionPatch(start, end, "data", "data", axesA=left, axesB=right, color=colour, lw=1))
        left.plot(*start, "o", color=colour, ms=4)
        right.plot(*end, "o", color=colour, ms=4)
    return _pixels(figure)


def similarity_figure(
    view1: np.ndarray,
    view2: np.ndarray,
    features1: np.ndarray,
    features2: np.ndarray,
    cell: tuple[int, int] | None = None,
    title: str = "",
) -> np.ndarray:
    """Cosine similarity of one cell of the first view with every cell of both views.

    Args:
      view1, view2: [H, W, 3] float32, normalised as the encoder sees them.
      features1, features2: [h, w, D] floating, of any length.
      cell: (row, column) in the first view; the middle one by default.
      title: a line above the picture.

    Returns:
      [height, width, 3] uint8, about 900 x 300 pixels: the first view with the cell marked, then a map over each view.
      The colours of both maps reach from the least to the greatest of their similarities; the title says which.
    """
    features1, features2 = (unit(np.asarray(f, np.float32)).numpy() for f in (features1, features2))
    rows, columns = features1.shape[:2]
    row, column = cell if cell is not None else (rows // 2, columns // 2)
    if not (0 <= row < rows and 0 <= column < columns):
        raise Mistake(f"cell must lie inside the map of {rows} x {columns}. Received cell={cell}.")
    maps = [features @ features1[row, column] for features in (features1, features2)]
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    figure, axes = _axes(3, title or f"cosine similarity with the marked cell, {low:.2f} to {high:.2f}")
    axes[0].imshow(_displayed(view1))
    for axis, view, similarity in zip(axes[1:], (view1, view2), maps):
        height, width = np.shape(view)[:2]
        axis.imshow(_displayed(view).mean(axis=-1), cmap="gray", vmin=0, vmax=1)
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axis.imshow(similarity, cmap="viridis", alpha=0.65, vmin=low, vmax=high, extent=extent)
    tall, wide = np.shape(view1)[0] / rows, np.shape(view1)[1] / columns  # of the cell, pixels
    for axis in axes[:2]:
        corner = (column * wide - 0.5, row * tall - 0.5)
        axis.add_patch(Rectangle(corner, wide, tall, fill=False, ec="red", lw=2))
    return _pixels(figure)


def _axes(count, title):
    figure = Figure(figsize=(3 * count, 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(1, count)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _pixels(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _displayed(view):
    """A normalized view as [0, 1] colours."""
    return np.clip(denormalized(np.asarray(view, np.float32)).numpy() / 255, 0, 1)


def _centre(index, view, cells):
    """Centre of a cell of a flattened map, (x, y) in pixels of the view."""
    (rows, columns), (height, width) = cells, np.shape(view)[:2]
    return (index % columns + 0.5) * width / columns - 0.5, (index // columns + 0.5) * height / rows - 0.5


def _draw_grid(axes, view, cells):
    (rows, columns), (height, width) = cells, np.shape(view)[:2]
    style = {"color": "white", "lw": 0.3, "alpha": 0.6}
    axes.hlines(np.arange(1, rows) * height / rows - 0.5, -0.5, width - 0.5, **style)
    axes.vlines(np.arange(1, columns) * width / columns - 0.5, -0.5, height - 0.5, **style)
