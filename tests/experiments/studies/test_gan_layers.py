"""The comparison of layers in the generator: what its table says of results, how it reads curves, the figure."""

import json

import tensorflow as tf

from experiments.studies import gan_layers as measure

DISTANCE, SCORE = measure.SCORES


def write(folder, name, result):
    (folder / name).mkdir()
    (folder / name / "result.json").write_text(json.dumps(result))


def test_the_table_has_means_spreads_and_what_diverged(tmp_path):
    for seed, distance in enumerate((10.0, 12.0)):
        write(tmp_path, f"bn_relu_{seed}", {DISTANCE: distance, SCORE: 3.0, "curve": [[0, 90.0], [5, distance]]})
    write(tmp_path, "bn_relu_2", {"diverged": "at step 3", "curve": []})
    write(tmp_path, "evonorm_s0_0", {DISTANCE: 9.0, SCORE: 3.5, "curve": [[5, 9.0]]})
    (tmp_path / "bn_relu_0" / "pictures").mkdir()
    for step in (500, 1500):
        grid = tf.io.encode_png(tf.zeros([20, 30, 3], tf.uint8))
        tf.io.write_file(str(tmp_path / "bn_relu_0" / "pictures" / f"samples-{step}.png"), grid)
    found = measure.results(tmp_path)
    assert found["bn_relu"][0]["samples"].name == "samples-1500.png" and found["evonorm_s0"][0]["samples"] is None
    rows = measure.text(found).splitlines()[2:]
    assert rows == [  # the deviation of 10 and 12 is the root of 2
        "| BatchNorm-ReLU | 11.00 ± 1.41 | 3.00 ± 0.00 | 10.00  12.00 | 1 of 3 |",
        "| EvoNorm-S0 | 9.00 ± 0.00 | 3.50 ± 0.00 | 9.00 | 0 of 1 |",
    ]
    measure.draw(found, str(tmp_path / "curves.png"))
    assert tf.io.decode_png(tf.io.read_file(str(tmp_path / "curves.png"))).shape[2] == 4


def test_a_curve_is_read_from_summaries(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        for step in (2, 4):
            tf.summary.scalar("distance", step / 2, step)
            tf.summary.scalar("other", 0.0, step)
    assert measure.curve(tmp_path, "distance") == [(2, 1.0), (4, 2.0)]
