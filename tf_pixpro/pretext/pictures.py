"""Pictures of the pretext task in TensorBoard's summaries."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf


class PictureWriter:
    """Writes correspondences and similarity maps of a few images as TensorBoard images.

    Args:
      model: a `PixPro`.
      views: a batch {'view1', 'view2', 'box1', 'box2'} of the images to draw.
      folder: where the summaries go; None computes and writes nothing (every worker must take part).
    """

    def __init__(self, model: tf.keras.Model, views: Mapping[str, tf.Tensor], folder: str | None):
        self._model, self._views, self._drawn = model, views, False
        self._writer = tf.summary.create_file_writer(folder) if folder else tf.summary.create_noop_writer()
        self._project = tf.function(lambda images: model.project(images, training=False))

    def write(self, step: int | tf.Variable) -> None:
        """Draws the model as it is; the correspondences, which do not change, the first time alone."""
        from tf_pixpro.pretext.figures import correspondence_figure, similarity_figure  # they import matplotlib

        views = self._views
        features = [tf.cast(self._project(views[name]), tf.float32).numpy() for name in ("view1", "view2")]
        with self._writer.as_default(step=step):
            for i in range(len(features[0])):
                view1, view2, box1, box2 = (views[name][i] for name in ("view1", "view2", "box1", "box2"))
                similarity = similarity_figure(view1, view2, features[0][i], features[1][i])
                tf.summary.image(f"similarity/{i}", similarity[None])
                if not self._drawn:
                    pairs = correspondence_figure(
                        view1, view2, box1, box2, features[0][i].shape[:2], self._model.distance
                    )
                    tf.summary.image(f"correspondence/{i}", pairs[None])
        self._drawn = True
        self._writer.flush()
