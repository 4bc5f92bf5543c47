"""Writes one generation of frozen files: what a version saves, and what it computes from that, for test_frozen.py.

PYTHONPATH=.:tests python tests/frozen/write.py [FOLDER_OF_RUNS]

The result is `tests/frozen/VERSION-keras2.zip`, or `-keras3.zip` with TF_USE_LEGACY_KERAS=0 under Keras 3. See the
README beside this file.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys
import tempfile
import zipfile

import stack  # before TensorFlow: the Keras of this run

import numpy as np  # isort: skip
import tensorflow as tf  # isort: skip

import contract

import tf_evonorm
import tf_pixpro
from tf_evonorm import backbones, biggan
from tf_evonorm.layers.conditional import ConditionalNormAct
from tf_evonorm.search.space.graph import Graph
from tf_evonorm.search.study.evolution import Rules
from tf_evonorm.search.study.study import Outcome, Study
from tf_pixpro.export import export_classifier

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = [[2, 64, 64, 3], "float32"]
BOXES = [[0.0, 0.0, 0.8, 0.9], [0.9, 0.2, 0.1, 1.0]]
GRAPH = "std_batch(0) mul(3,0) std_group(0) add(5,6) max(4,7) div(0,8) add(9,2)"
PROGRAMS = ("pretrain", "classify", "synthesize", "transfer", "search")
# What of a run's folder is kept: no summaries, logs or images.
KEPT = ("classifier.*", "generator.*", "labels.txt", "config.json", "*.db", "known.json")


def values(spec: list) -> np.ndarray:
    """An input from its (shape, dtype), alike for ever: NumPy promises the stream of RandomState."""
    shape, dtype = spec
    random = np.random.RandomState(7)
    drawn = random.randint(0, 3, shape) if dtype == "int64" else random.normal(0.3, 1.0, shape)
    return drawn.astype(dtype)


def answers(model, inputs: list) -> list[np.ndarray]:
    """What a model gives, in inference."""
    given = [tf.constant(values(spec)) for spec in inputs]
    outputs = model(given if len(given) > 1 else given[0], training=False)
    return [np.asarray(value) for value in tf.nest.flatten(outputs)]


def sampled(values: list) -> list[np.ndarray]:
    """At most 511 numbers of each array, evenly spread."""
    flat = [np.asarray(value).reshape(-1) for value in values]
    return [value[:: max(1, len(value) // 256)] for value in flat]


def batch() -> dict[str, np.ndarray]:
    """One batch of a pretext model."""
    view = values(IMAGES)
    boxes = np.array(BOXES, "float32")
    return {"view1": view, "view2": view[:, ::-1], "box1": boxes, "box2": boxes[::-1]}


def losses(model) -> list[np.ndarray]:
    """The pretext loss without training, and the encoder's levels."""
    loss = model.pretext_loss({name: tf.constant(value) for name, value in batch().items()}, training=False)["loss"]
    return [np.asarray(loss), *answers(model, [IMAGES])]


def one_step(model) -> list[np.ndarray]:
    """All weights after one more step of a compiled model."""
    x = values([[8, 6], "float32"])
    model.fit(x, x[:, :2], batch_size=8, epochs=1, shuffle=False, verbose=0)
    return [np.asarray(weight) for weight in model.weights]


def study(url: str, seed: int = 0) -> Study:
    """The search whose database is kept."""
    return Study(url, ("a", "b"), 6, Rules(initial=3, window=6), seed=seed, clock=lambda: 1.7e9)


def main(runs: str | None) -> None:
    tf.keras.utils.set_random_seed(0)
    keras = "keras3" if stack.KERAS_3 else "keras2"
    with tempfile.TemporaryDirectory() as folder:
        generation = _Generation(pathlib.Path(folder))
        _layers(generation)
        _networks(generation)
        _pretext(generation)
        if not stack.KERAS_3:
            _served(generation)
            _search(generation)
            if runs:
                _runs(generation, pathlib.Path(runs))
        generation.pack(HERE / f"{tf_pixpro.__version__}-{keras}.zip")


class _Generation:
    """The files of one generation, and what each should give."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.manifest, self.expected = folder, {}, {}

    def add(self, name: str, kind: str, expected: list, **more) -> None:
        self.manifest[name] = {"kind": kind, **more}
        self.expected.update({f"{name}/{number}": value for number, value in enumerate(sampled(expected))})

    def model(self, name: str, model, *inputs) -> None:
        """A `.keras` file of a model with other weights than at its making."""
        _move_weights(model)
        model.save(self.folder / f"{name}.keras")
        self.add(name, "keras", answers(model, list(inputs)), inputs=list(inputs))

    def pack(self, path: pathlib.Path) -> None:
        (self.folder / "manifest.json").write_text(json.dumps(self.manifest, indent=1))
        np.savez_compressed(self.folder / "expected.npz", **self.expected)
        with zipfile.ZipFile(path, "w") as file:
            for source in sorted(self.folder.rglob("*")):
                if source.is_file():
                    entry = zipfile.ZipInfo(str(source.relative_to(self.folder)))
                    file.writestr(entry, source.read_bytes(), zipfile.ZIP_LZMA)
        print(f"{path}: {len(self.manifest)} entries, {path.stat().st_size:,} bytes")


def _move_weights(model):
    """Other values for all weights, of few digits so that they compress; moving statistics stay positive."""
    random, trained = np.random.RandomState(3), {id(weight) for weight in model.trainable_weights}
    for weight in model.weights:
        if tf.as_dtype(weight.dtype).is_floating:
            change = np.round(random.normal(0, 0.1, weight.shape) * 32) / 32
            change = change if id(weight) in trained else np.abs(change)
            weight.assign(np.round(np.asarray(weight) * 32) / 32 + change)


def _layers(generation):
    for number, case in enumerate(contract.CASES):
        images = tf.keras.Input((None, None, case.input_shape[-1]))
        model = tf.keras.Model(images, case.make(name="layer")(images))
        generation.model(f"layer{number:02}-{case.layer.__name__}", model, [list(case.input_shape), "float32"])
    images, condition = tf.keras.Input((None, None, 8)), tf.keras.Input((5,))
    conditional = ConditionalNormAct(tf_evonorm.EvoNormS0(affine=False, groups=2))([images, condition])
    shapes = ([[2, 4, 4, 8], "float32"], [[2, 5], "float32"])
    generation.model("ConditionalNormAct", tf.keras.Model([images, condition], conditional), *shapes)
    layers = {case.layer.__name__.lower(): case.make() for case in contract.CASES if not case.options.get("hidden")}
    for layer in layers.values():
        layer.build((None, None, None, 8))
        _move_weights(layer)
    tf.train.Checkpoint(**layers).write(str(generation.folder / "layers"))
    weights = {name: [np.asarray(weight) for weight in layer.weights] for name, layer in layers.items()}
    for name, layer in layers.items():
        config = {"class": type(layer).__name__, "config": layer.get_config()}
        config = json.loads(json.dumps(config, default=str))
        generation.add(f"checkpoint-{name}", "layer_checkpoint", weights[name], file="layers", item=name, **config)


def _networks(generation):
    s0, small = functools.partial(tf_evonorm.EvoNormS0, groups="auto"), {"width": 1 / 16}
    tiny = {"blocks": (1, 1, 1, 1), **small}
    networks = {
        "resnet": backbones.resnet(18, **tiny),
        "resnet-bottlenecks-b0": backbones.resnet(50, tf_evonorm.EvoNormB0, **tiny),
        "preactivation_resnet": backbones.preactivation_resnet(18, **tiny),
        "mobilenetv2": backbones.mobilenetv2(s0, **small),
        "mnasnet": backbones.mnasnet(**small),
        "efficientnet": backbones.efficientnet("b0", **small),
        "spinenet": backbones.spinenet("49S", **small),
    }
    for name, network in networks.items():
        side = 128 if name == "spinenet" else 64
        generation.model(name, network, [[1, side, side, 3], "float32"])
    gan = {"resolution": 32, "width": 1 / 32, "num_classes": 3}
    generator = biggan.generator(**gan, latent=8, embedding=4, attention=8)
    generation.model("generator", generator, [[2, 8], "float32"], [[2], "int64"])
    discriminator = biggan.discriminator(**gan, attention=16)
    generation.model("discriminator", discriminator, [[2, 32, 32, 3], "float32"], [[2], "int64"])
    tf_pixpro.save_backbone(networks["resnet"], str(generation.folder / "backbone"))
    expected = answers(networks["resnet"], [IMAGES])
    generation.add("backbone", "backbone", expected, arguments={"depth": 18, **tiny}, inputs=[IMAGES])


def _pretext(generation):
    tiny = {"width": 1 / 32, "blocks": (1, 1, 1, 1)}
    heads = {"hidden": 4, "features": 4}
    pretext = {
        "PixPro": tf_pixpro.PixPro(
            backbones.resnet(18, **tiny),
            tf_pixpro.ProjectionHead(**heads, name="projection"),
            steps=10,
            instance=tf_pixpro.BYOL(**heads),
        ),
        "PixContrast": tf_pixpro.PixContrast(
            backbones.resnet(18, **tiny),
            tf_pixpro.ProjectionHead(**heads, name="projection"),
            instance=tf_pixpro.SimCLR(**heads),
        ),
    }
    for name, model in pretext.items():
        _move_weights(model)
        model.save(generation.folder / f"{name}.keras")
        tf.train.Checkpoint(model=model).write(str(generation.folder / f"{name}-checkpoint"))
        generation.add(name, "pretext", losses(model), checkpoint=f"{name}-checkpoint")
    schedules = {"LARS": tf_pixpro.WarmupCosine(0.5, 10, 2), "LARS-steps": tf_pixpro.WarmupStep(0.5, (4, 8), 2)}
    for name, schedule in schedules.items():
        vectors = tf.keras.Input((6,))
        hidden = tf_evonorm.EvoNormS0(groups=2)(tf.keras.layers.Dense(4)(vectors)[:, None, None])
        model = tf.keras.Model(vectors, tf.keras.layers.Dense(2)(tf.keras.layers.Flatten()(hidden)))
        _move_weights(model)
        model.compile(tf_pixpro.LARS(schedule, weight_decay=1e-3), "mse")
        one_step(model)
        model.save(generation.folder / f"{name}.keras")
        generation.add(name, "fit", one_step(model))


def _served(generation):
    encoder = backbones.resnet(18, width=1 / 16, blocks=(1, 1, 1, 1))
    _move_weights(encoder)
    path = tf_pixpro.export_encoder(encoder, str(generation.folder / "served_encoder"), image_size=(64, 64))
    generation.add("served_encoder", "served", signature(path))
    pooled = tf.keras.layers.GlobalAveragePooling2D()(encoder.output["5"])
    classifier = tf.keras.Model(encoder.input, tf.keras.layers.Dense(2)(pooled))
    path = str(generation.folder / "served_classifier")
    export_classifier(classifier, path, class_names=("cat", "dog"), image_size=(64, 64))
    generation.add("served_classifier", "served", signature(path))
    images = tf.keras.Input((None, None, 3))
    maps = tf_evonorm.EvoNormB0()(tf.keras.layers.Conv2D(8, 3, strides=8)(images))
    model = tf.keras.Model(images, tf_evonorm.EvoNormS0(groups=4)(maps))
    _move_weights(model)
    model.save(str(generation.folder / "saved_model"), save_format="tf")
    generation.add("saved_model", "saved_model", answers(model, [IMAGES]), inputs=[IMAGES])


def signature(path: str, side: int = 64) -> list[np.ndarray]:
    """The numbers that the signature `images` of a SavedModel gives, by name."""
    pixels = tf.constant(np.clip(values([[2, side, side, 3], "float32"]) * 60 + 120, 0, 255))
    answer = tf.saved_model.load(path).signatures["images"](images=pixels)
    return [answer[name].numpy() for name in sorted(answer) if answer[name].dtype != tf.string]


def _search(generation):
    (generation.folder / "graph.json").write_text(Graph.read(GRAPH).to_json())
    layer = tf_evonorm.layer_from_graph(str(generation.folder / "graph.json"))()
    shape = [[2, 4, 4, 8], "float32"]
    generation.add("graph", "graph", answers(layer, [shape]), inputs=[shape])
    search = study(f"sqlite:///{generation.folder}/study.db")
    while (job := search.claim("worker")) is not None:
        size = len(job.graph.live)
        outcome = Outcome((size / 10, size / 20), numbers={"size": size}) if size % 3 else Outcome(None, "by size")
        search.tell(job, "worker", outcome)
    records = [[r.number, str(r.graph), r.state, list(r.scores or ())] for r in search.records()]
    generation.add("study", "study", [], records=records)


def _runs(generation, folder):
    from experiments.export import export

    for name in PROGRAMS:
        (generation.folder / "runs" / name).mkdir(parents=True)
        for pattern in (*KEPT, *(("checkpoint", "ckpt-*") if name == "pretrain" else ())):
            for path in (folder / name).glob(pattern):
                (generation.folder / "runs" / name / path.name).write_bytes(path.read_bytes())
        expected, side = [], {"pretrain": 96, "classify": 32}.get(name)
        if side:
            with tempfile.TemporaryDirectory() as out:
                export(f"{out}/served", workdir=str(generation.folder / "runs" / name))
                expected = signature(f"{out}/served", side)
        generation.add(f"run-{name}", "run", expected, folder=f"runs/{name}", side=side)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(sys.argv[1] if len(sys.argv) > 1 else None)
