"""The table of backbone names: every public backbone is in it, and mistakes name the choices."""

import pytest

from tf_evonorm import backbones
from tf_evonorm.backbones.named import BACKBONES, backbone
from tf_evonorm.layers.named import norm_act
from tf_evonorm.mistakes import Mistake


def test_every_public_backbone_has_its_name():
    functions = [name for name in backbones.__all__ if name.islower()]
    assert sorted(BACKBONES) == sorted(functions)
    assert all(BACKBONES[name] is getattr(backbones, name) for name in functions)


def test_arguments_reach_the_backbone():
    model = backbone("mobilenetv2", norm_act=norm_act("evonorm_s0"), width=0.25, stem="small", model_name="tiny")
    assert model.name == "tiny" and set(model.output) == {"2", "3", "4", "5", "6"}
    assert "EvoNormS0" in {type(layer).__name__ for layer in model.layers}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "vgg"}, r"backbone\.name must be one of resnet, .* Received name='vgg'"),
        ({"name": "mnasnet", "depth": 18}, r"backbone mnasnet takes norm_act, .* Received depth"),
    ],
)
def test_mistakes_name_the_choices(settings, message):
    with pytest.raises(Mistake, match=message):
        backbone(**settings)
