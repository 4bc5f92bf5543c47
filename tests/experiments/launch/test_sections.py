"""Sections of a config: arguments are checked before the constructor runs; its own TypeErrors are bugs."""

import functools

import pytest
import tensorflow as tf

from experiments.launch import sections
from tf_evonorm.mistakes import Mistake


class Engine:
    """As of this project, where a wrong argument is a Mistake."""

    __module__ = "tf_pixpro.engine"

    def __init__(self, power, fuel="petrol"):
        if power < 0:
            raise Mistake(f"power must be positive. Received power={power}.")
        if fuel == "bug":
            len(5)
        if fuel == "other bug":
            int("five")
        self.power, self.fuel = power, fuel


@pytest.mark.parametrize(
    "section, words",
    [
        (
            {"power": 1, "feul": "gas"},
            r"config\.engine .* Engine\. Received feul='gas'.* Did you mean fuel\? It takes power",
        ),
        ({}, r"config\.engine .* missing a required argument: 'power'"),
        ({"power": -1}, r"^config\.engine: power must be positive"),
    ],
)
def test_wrong_sections_are_mistakes_that_name_them(section, words):
    with pytest.raises(Mistake, match=words):
        sections.build(Engine, "engine", section)


def test_a_value_error_is_a_mistake_where_keras_raises_it():
    with pytest.raises(Mistake, match=r"^config\.optimizer: .*momentum"):
        sections.build(tf.keras.optimizers.SGD, "optimizer", {"momentum": 7.0})
    with pytest.raises(ValueError, match="invalid literal") as raised:
        sections.build(functools.partial(Engine, fuel="other bug"), "engine", {"power": 1})
    assert not isinstance(raised.value, Mistake)


def test_a_type_error_from_inside_the_constructor_is_no_mistake():
    with pytest.raises(TypeError, match=r"object of type 'int' has no len"):
        sections.build(Engine, "engine", {"power": 1, "fuel": "bug"})


def test_the_inner_section_is_named_where_one_builds_another():
    def car(wheels):
        return sections.build(Engine, "engine", {"power": -wheels})

    with pytest.raises(Mistake, match=r"^config\.engine: power"):
        sections.build(car, "car", {"wheels": 4})


def test_a_section_may_not_set_what_the_program_sets():
    with pytest.raises(Mistake, match=r"Received fuel='gas'"):
        sections.build(Engine, "engine", {"power": 1, "fuel": "gas"}, fuel="petrol")


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(
        Mistake, match=r"config\.engine\.name must be one of engine\. Received 'engin'\. Did you mean engine\?"
    ):
        sections.build_named({"engine": Engine}, "engine", {"name": "engin", "power": 1})
    assert sections.build_named({"engine": Engine}, "engine", {"name": "engine", "power": 2}).power == 2


def test_keras_optimizers_that_take_anything_do_not():
    import tensorflow as tf

    with pytest.raises(Mistake, match=r"Received momentun=0\.9.* Did you mean momentum\?"):
        sections.build(tf.keras.optimizers.SGD, "optimizer", {"momentun": 0.9}, learning_rate=0.1)


def test_missing_sections_are_named_together():
    sections.require({"source": {}, "views": None}, "source", "views")
    with pytest.raises(Mistake, match=r"must have config\.source, config\.views, config\.model\. .* views, model\."):
        sections.require({"source": {}}, "source", "views", "model")
