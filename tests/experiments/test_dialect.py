"""One dialect in configs: any backbone and any layer by name in every program, and configs recorded before it was
one."""

import runpy

import pytest
from ml_collections import ConfigDict

from experiments.builders import classifier, pretext
from experiments.configs.classify import evonorm_r20_cifar10
from experiments.configs.pretrain import pixpro_r18_photos
from experiments.launch import session
from tf_evonorm.mistakes import Mistake


def layers_of(model):
    return {type(layer).__name__ for layer in model.submodules}


def test_pretraining_takes_any_backbone_and_layer_by_name():
    config = pixpro_r18_photos.get_config("smoke")
    config.backbone.name, config.norm_act.name = "mobilenetv2", "evonorm_b0"
    encoder = pretext.pretext_encoder(config)
    assert "EvoNormB0" in layers_of(encoder) and any("Depthwise" in name for name in layers_of(encoder))


def test_an_argument_of_no_backbone_is_a_mistake():
    config = evonorm_r20_cifar10.get_config("smoke")
    with config.unlocked():
        config.backbone.widht = 0.5
    with pytest.raises(Mistake, match=r"config\.backbone .* Received widht=0\.5.* Did you mean width\?"):
        classifier.model(config, 3)


def test_recorded_configs_of_before_are_read():
    before = {"encoder": {"depth": 18, "width": 0.125}, "norm_act": {"synchronized": True}, "seed": 0}
    now = session.translated(before)
    assert now["backbone"] == {"name": "resnet", "depth": 18, "width": 0.125} and "encoder" not in now
    assert now["norm_act"] == {"name": "bn_relu", "synchronized": True}
    assert session.translated({"norm_act": {"layer": "evonorm_s0"}}) == {"norm_act": {"name": "evonorm_s0"}}
    assert session.translated(now) == now


def test_config_files_of_before_are_read(tmp_path):
    config = pixpro_r18_photos.get_config("smoke").to_dict()
    config["encoder"], config["norm_act"] = config.pop("backbone"), {"synchronized": False}
    del config["encoder"]["name"]
    with session.start_session(ConfigDict(config), str(tmp_path)) as started:
        assert started.config.backbone.name == "resnet" and started.config.norm_act.name == "bn_relu"
        assert pretext.pretext_encoder(started.config).output_shape["5"][-1] == 64


def test_config_files_of_before_change_our_configs(tmp_path):
    lines = ["from experiments.configs import pixpro_r18_photos", "def get_config(variant=''):"]
    lines += ["  c = pixpro_r18_photos.get_config('smoke')", "  c.encoder.update(width=0.25)", "  return c"]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    config = runpy.run_path(str(tmp_path / "mine.py"))["get_config"]()
    with session.start_session(config, str(tmp_path / "run")) as started:
        assert started.config.backbone.width == 0.25 and "encoder" not in started.config
        assert pretext.pretext_encoder(started.config).output_shape["5"][-1] == 128
