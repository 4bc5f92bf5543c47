"""The Pillow pipeline that the input pipeline is measured against makes the same kind of views."""

import io

import numpy as np
from PIL import Image

from experiments.benchmarks import input_pipeline
from tf_pixpro.views import augment


def test_pillow_views_are_distributed_as_ours():
    y, x = np.mgrid[0:60, 0:80]
    buffer = io.BytesIO()
    Image.fromarray(np.stack([x * 3, y * 4, (x + y) % 256], -1).astype(np.uint8)).save(buffer, "JPEG", quality=95)
    generator = np.random.default_rng(0)
    theirs = np.array([input_pipeline.pillow_views(buffer.getvalue(), generator, (24, 32)) for _ in range(400)])
    assert theirs.shape == (400, 2, 3, 24, 32) and theirs.dtype == np.float32
    seeds = np.random.default_rng(1).integers(0, 2**31 - 1, (400, 2)).astype(np.int32)
    make = augment.tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: augment.two_views(buffer.getvalue(), seed, (24, 32))
    )
    ours = np.array([[views["view1"], views["view2"]] for views in make.as_numpy_iterator()]).transpose(0, 1, 4, 2, 3)
    for number in (0, 1):
        for statistic in (np.mean, np.std):
            a, b = (statistic(views[:, number], axis=(1, 2, 3)) for views in (ours, theirs))
            spread = np.sqrt(a.var() / len(a) + b.var() / len(b))
            assert abs(a.mean() - b.mean()) < 4 * spread + 0.01, (number, statistic)
