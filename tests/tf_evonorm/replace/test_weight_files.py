"""Weight files from before a replacement: what would land in the wrong variable is refused, the rest is read."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct, EvoNormB0, EvoNormB1, EvoNormS0, replace_norm_act
from tf_evonorm.mistakes import Mistake

layers = tf.keras.layers
S0 = functools.partial(EvoNormS0, groups=2)


def plain(nested=False):
    image = tf.keras.Input((8, 8, 4))
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(image)))
    model = tf.keras.Model(image, x, name="inner")
    return tf.keras.Sequential([tf.keras.Input((8, 8, 4)), model]) if nested else model


def saved(path, nested):
    model = plain(nested)
    model.set_weights([np.random.default_rng(i).normal(size=w.shape) for i, w in enumerate(model.get_weights())])
    model.save(path)
    return model


@pytest.mark.filterwarnings("ignore:.*HDF5.*")
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("layer", [EvoNormB0, EvoNormB1, S0])
def test_a_moving_mean_does_not_become_v(tmp_path, layer, nested, by_name):
    path = str(tmp_path / "before.h5")
    saved(path, nested)
    new = replace_norm_act(plain(nested), layer)
    before = new.get_weights()
    with pytest.raises(
        Mistake, match=rf"before\.h5', in which '{'inner' if nested else 'bn'}' has a moving mean, which"
    ):
        new.load_weights(path, **({"by_name": True} if by_name else {}))
    for weight, old in zip(new.get_weights(), before):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.filterwarnings("ignore:.*HDF5.*")
@pytest.mark.parametrize("nested", [False, True])
def test_weights_that_fit_are_read(tmp_path, nested):
    path = str(tmp_path / "before.h5")
    model = saved(path, nested)
    new = replace_norm_act(plain(nested), BatchNormAct)
    new.load_weights(path)
    for weight, old in zip(new.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(weight, old)
    new = replace_norm_act(plain(nested), EvoNormB0)
    other = replace_norm_act(plain(nested), EvoNormB0)
    new.set_weights([weight + 1 for weight in new.get_weights()])
    for name in ("after.h5", "after.weights.h5"):
        (new.save if name == "after.h5" else new.save_weights)(str(tmp_path / name))
        other.load_weights(str(tmp_path / name))
        for weight, old in zip(other.get_weights(), new.get_weights()):
            np.testing.assert_array_equal(weight, old)


def test_a_saved_and_a_copied_model_work_on(tmp_path):
    new = replace_norm_act(plain(), EvoNormB0)
    new.save(tmp_path / "new.keras")
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_array_equal(tf.keras.models.load_model(tmp_path / "new.keras")(x), new(x))
    copy = tf.keras.models.clone_model(new)
    copy.set_weights(new.get_weights())
    np.testing.assert_array_equal(copy(x), new(x))
