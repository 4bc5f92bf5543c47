"""Found layers: what is shipped has its evidence; a written layer is one by its name, in code and in configs."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from tf_evonorm import found, layer_from_graph
from tf_evonorm.backbones import preactivation_resnet
from tf_evonorm.found import Found
from tf_evonorm.layers import named
from tf_evonorm.mistakes import Mistake
from tf_evonorm.search.space.graph import BASELINES, Graph
from tf_evonorm.search.space.graph_layer import found_layers
from tf_evonorm.search.space.simplify import simplify

GRAPH = simplify(BASELINES["s0"])
LAYER = Found(
    graph=json.loads(GRAPH.to_json()),
    formula=GRAPH.formula(),
    evidence="a layer of the paper, for a test",
    date="2026-11-28",
    licence="Apache-2.0",
    options={"groups": 4},
)


def problems(layer):
    """What keeps a layer from being shipped."""
    graph = Graph.read(layer.graph)
    claims = {
        "formula": layer.formula == graph.formula() == simplify(graph).formula(),
        "evidence": "BatchNorm-ReLU" in layer.evidence,  # a comparison with it
        "licence": layer.licence == "Apache-2.0",
    }
    return [name for name, holds in claims.items() if not holds]


def test_shipped_layers_are_what_their_files_say():
    assert problems(LAYER) == ["evidence"]  # so nothing like it is shipped
    other = dataclasses.replace(LAYER, formula="tanh(x)", licence="secret")
    assert problems(other) == ["formula", "evidence", "licence"]
    for name in found.names():
        assert not problems(found.read(name)), name
        assert f"found:{name}" in named.LAYERS


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(found, "FOLDER", tmp_path)
    found.write("swish_like", LAYER, tmp_path)
    monkeypatch.setattr(named, "LAYERS", {**named.LAYERS, **found_layers()})
    return tmp_path


def test_a_found_layer_by_its_name(shipped):
    assert found.names() == ("swish_like",) and found.read("swish_like") == LAYER
    layer = layer_from_graph("found:swish_like")()
    x = np.random.default_rng(0).normal(size=[3, 5, 5, 8]).astype(np.float32)
    want = tf.sigmoid(x) * x / np.repeat(x.reshape(3, 25, 4, 2).std((1, 3)), 2, -1)[:, None, None]
    np.testing.assert_allclose(layer(x), want, rtol=1e-4)
    assert layer.groups == 4 and layer_from_graph("found:swish_like", groups=2)().groups == 2
    assert type(layer).from_config(layer.get_config()).graph == GRAPH  # a saved model needs no file of ours


def test_a_found_layer_in_configs(shipped):
    make = named.norm_act("found:swish_like", momentum=0.5)
    assert make().graph == GRAPH and (make().groups, make().momentum) == (4, 0.5)
    assert preactivation_resnet(18, make, blocks=(1, 1, 1), width=0.125, stem="small").outputs
    with pytest.raises(Mistake, match=r"norm_act.name must be default or one of .*found:swish_like"):
        named.norm_act("found:other")
    with pytest.raises(Mistake, match=r"holds options of found:swish_like"):
        named.norm_act("found:swish_like", colour=1)


@pytest.mark.parametrize("name", ["other", "../swish_like", "swish_like.json", "", "Swish_like"])
def test_an_unknown_name_is_a_mistake(shipped, name):
    with pytest.raises(Mistake, match=r"found:NAME is a shipped layer: swish_like. Received"):
        layer_from_graph(f"found:{name}")


def test_without_layers_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(found, "FOLDER", tmp_path)
    with pytest.raises(Mistake, match=r"no layer in this version"):
        layer_from_graph("found:best")


@pytest.mark.parametrize(
    "change",
    [{"evidence": ""}, {"date": "yesterday"}, {"licence": None}, {"formula": 3}, {"graph": {}}, {"options": "groups"}],
)
def test_a_layer_without_its_evidence_is_refused(change):
    with pytest.raises(Mistake, match=next(iter(change))):
        dataclasses.replace(LAYER, **change)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "evonorm-found-1", "graph": 3}', '{"format": "other"}'])
def test_a_damaged_file_is_a_mistake(shipped, text):
    (shipped / "swish_like.json").write_text(text)
    with pytest.raises(Mistake, match=r"swish_like.json must be the file of a found layer"):
        found.read("swish_like")


@pytest.mark.parametrize("name", ["", "../up", "Big", "a b", "1st"])
def test_a_wrong_name_is_not_written(tmp_path, name):
    with pytest.raises(Mistake, match="a found layer is named like"):
        found.write(name, LAYER, tmp_path)
    assert not list(tmp_path.iterdir())
