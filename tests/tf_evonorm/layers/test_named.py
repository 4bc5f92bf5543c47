"""The table of layer names: every entry builds, old names and keywords stay, mistakes name the choices."""

import inspect

import pytest
import tensorflow as tf

from tf_evonorm import BatchNormAct, GroupNormAct
from tf_evonorm.layers.named import ALIASES, LAYERS, norm_act
from tf_evonorm.mistakes import Mistake


@pytest.mark.parametrize("name", [*LAYERS, *ALIASES])
def test_every_name_builds_a_layer(name):
    assert norm_act(name)(apply_act=True)(tf.ones([2, 4, 4, 48])).shape == (2, 4, 4, 48)


def test_the_default_is_left_to_the_backbone():
    assert norm_act("default") is None


def test_old_names_and_the_old_keyword():
    assert isinstance(norm_act("batch_norm", momentum=0.8)(), BatchNormAct)
    layer = norm_act(layer="group_norm", name="bn_relu")(name="norm")
    assert isinstance(layer, GroupNormAct) and (layer.groups, layer.name) == ("auto", "norm")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "evonorm"}, r"norm_act\.name must be default or one of bn_relu, .* Received name='evonorm'"),
        ({"name": "default", "groups": 2}, r"Received name='default' with \{'groups': 2\}"),
        ({"name": "frn", "groups": 2}, r"holds options of frn\. Received \{'groups': 2\}"),
        ({"name": "bn_relu", "momentum": 3}, r"holds options of bn_relu\. Received .*momentum must lie"),
    ],
)
def test_mistakes_name_the_choices(settings, message):
    with pytest.raises(Mistake, match=message):
        norm_act(**settings)


def test_no_option_of_a_layer_collides_with_the_arguments():
    taken = set(inspect.signature(norm_act).parameters) - {"name", "options"}
    assert not taken & {p for make in LAYERS.values() for p in inspect.signature(make).parameters}
