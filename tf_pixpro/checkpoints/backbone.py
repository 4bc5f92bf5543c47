"""Encoders in and out of checkpoints: those of Model Garden's tasks, and those of training runs."""

from __future__ import annotations

import collections
import os
from collections.abc import Collection

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tf_evonorm.keras_generation import KERAS_2, layered
from tf_evonorm.mistakes import Mistake
from tf_pixpro.checkpoints import weight_files

# Where an encoder may lie in a checkpoint: a backbone file, a training run, a checkpoint of a model or of a Model
# Garden model. A pyramid in place of the encoder holds it as its own backbone; a frozen backbone holds it as its
# encoder.
_PLACES = (
    ("backbone",),
    ("model", "encoder", "backbone"),
    ("model", "encoder"),
    ("encoder",),
    ("model", "backbone", "encoder"),
    ("model", "backbone"),
)
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SHOWN = 8


def save_backbone(encoder: tf.keras.Model, path: str) -> str:
    """Writes an encoder as the checkpoint that Model Garden reads with `init_checkpoint_modules='backbone'`.

    Args:
      encoder: a built `tf.keras.Model`, usually `PixPro(...).encoder`. One of several parts
        (`tf_pixpro.transfer.models.pyramid`) is written part by part, as its `checkpoint_items` says: `backbone`,
        `decoder`, `head`.
      path: prefix of the files, `PATH.index` and `PATH.data-*`; or a name that ends in `.safetensors` or `.weights.h5`
        for a single file of that format. Existing files of that name are replaced.

    Returns:
      The path, to be given as `init_checkpoint`.

    Raises:
      Mistake: if `encoder` is no built encoder, the path is a folder, or a single file cannot be written.
    """
    _check_encoder(encoder)
    path = os.fspath(path)
    if tf.io.gfile.isdir(path):
        raise Mistake(
            f"path must be the prefix of a file. Received the folder {path!r}. Pass {os.path.join(path, 'backbone')!r}."
        )
    tf.io.gfile.makedirs(os.path.dirname(path) or ".")
    if weight_files.is_weight_file(path):
        return weight_files.write(encoder, path)
    return tf.train.Checkpoint(**getattr(encoder, "checkpoint_items", {"backbone": layered(encoder)})).write(path)


def load_backbone(encoder: tf.keras.Model, path: str) -> str:
    """Fills an encoder from a checkpoint: all of it, or an error that names what does not fit and leaves it untouched.

    Variables are compared by position, shape and dtype before the first is read. Layers are matched by their order, as
    Model Garden does, so their names may differ.

    Args:
      encoder: a built `tf.keras.Model`.
      path: a checkpoint, or a folder whose latest one is taken. The encoder may lie in it as `backbone`
        (`save_backbone`), as `model/encoder` (a training run), as `encoder` (`tf.train.Checkpoint` of a PixPro) or as
        `model/backbone`. Or a `.safetensors` or `.weights.h5` file that `save_backbone` has written.

    Returns:
      The path of the checkpoint that was read.

    Raises:
      FileNotFoundError: if there is no checkpoint at `path`.
      Mistake: if `encoder` is no built encoder, the file is damaged, holds no encoder, or its variables are not the
        encoder's.
    """
    _check_encoder(encoder)
    path = os.fspath(path)
    if weight_files.is_weight_file(path):
        own, in_file = weight_files.variables(encoder, path)
        _compare(_described(own), _described(in_file), path)
        weight_files.fill(encoder, path, in_file)
        return path
    path = _checkpoint(path)
    stored, graph = _contents(path)
    place = next((p for p in _PLACES if _at(p, stored, graph)), None)
    if place is None:
        places = ", ".join("/".join(p) for p in _PLACES)
        held = ", ".join(sorted({key.split("/")[0] for key in stored})) or "nothing"
        raise Mistake(f"a checkpoint must hold an encoder as one of {places}. Received {path!r}, which holds {held}.")
    found = _at(place, stored, graph)
    # A training run of Keras 3 keeps the encoder in that generation's own way.
    operations = any(key.startswith("_operations/") for key in found)
    if operations and KERAS_2:
        _read_operations(encoder, _at(place, {key: key for key in stored}, graph), stored, path)
        return path
    tree = encoder if operations else layered(encoder)
    _compare(_own_variables(tree), found, path)
    for name in reversed(place):
        tree = tf.train.Checkpoint(**{name: tree})
    tree.read(path).expect_partial().assert_existing_objects_matched()
    return path


def check_parts(items: dict, path: str, partial: Collection[str] = ()) -> list[str]:
    """Compares the parts of a model with those of the same name in a checkpoint, before anything is read.

    Args:
      items: name -> built layer or model.
      path: a checkpoint, as `save_backbone` writes it.
      partial: parts of which the checkpoint may hold less.

    Returns:
      Names of the parts that both have, in the order of `items`.

    Raises:
      FileNotFoundError: if there is no checkpoint at `path`.
      Mistake: if there is no such part, or one's variables differ.
    """
    stored = _variables(_checkpoint(path))
    own = _own_variables(tf.train.Checkpoint(**items))
    parts = [name for name in items if _below(stored, (name,))]
    if not parts:
        held = ", ".join(sorted({key.split("/")[0] for key in stored})) or "nothing"
        raise Mistake(f"a checkpoint must hold one of {', '.join(items)}. Received {path!r}, which holds {held}.")
    for name in parts:
        expected, found = _below(own, (name,)), _below(stored, (name,))
        if name in partial:
            expected = {key: value for key, value in expected.items() if key in found}
        _compare(expected, found, path)
    return parts


def _check_encoder(encoder):
    if hasattr(encoder, "momentum_encoder"):
        raise Mistake(f"an encoder is needed. Received the pretext model {encoder.name!r}. Pass its `encoder`.")
    if not isinstance(encoder, tf.keras.Model) or not encoder.built:
        raise Mistake(f"an encoder must be a built tf.keras.Model. Received {encoder!r}. Build it before.")


def _checkpoint(path):
    found = tf.train.latest_checkpoint(path) if tf.io.gfile.isdir(path) else path
    if found is None or not tf.io.gfile.exists(f"{found}.index"):
        what = "a folder without a checkpoint" if tf.io.gfile.isdir(path) else "a path at which there is none"
        raise FileNotFoundError(
            f"path must be a checkpoint, its name without '.index', or a folder with one. Received {path!r}, {what}."
        )
    return found


def _variables(path):
    return _contents(path)[0]


def _contents(path):
    """(key -> (name, shape, dtype) of every variable of a checkpoint, its graph of objects). Each variable is read once
    so that damage shows before it is used."""
    try:
        reader = tf.train.load_checkpoint(path)
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
        for key in shapes:
            reader.get_tensor(key)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise Mistake(
            f"{path!r} must be a complete checkpoint of tf.train.Checkpoint. Reading it gave: {error}"
        ) from error
    names = {a.checkpoint_key: a.full_name for node in graph.nodes for a in node.attributes}
    return {key: (names.get(key) or key, tuple(shapes[key]), dtypes[key]) for key in shapes if key != _GRAPH}, graph


def _at(place, stored, graph):
    """The variables of the object at a place, by their shortest paths from there. An object that is nearer to the root,
    such as an optimizer of Keras 3, may give them the keys that they have in the checkpoint."""
    root = 0
    for name in place:
        root = next((child.node_id for child in graph.nodes[root].children if child.local_name == name), None)
        if root is None:
            return {}
    found, seen, waiting = {}, {root}, collections.deque([(root, ())])
    while waiting:
        number, path = waiting.popleft()
        for child in graph.nodes[number].children:
            if child.node_id in seen:
                continue
            seen.add(child.node_id)
            waiting.append((child.node_id, (*path, _escaped(child.local_name))))
            for attribute in graph.nodes[child.node_id].attributes:
                if attribute.checkpoint_key in stored:
                    key = "/".join((*waiting[-1][1], ".ATTRIBUTES", attribute.name))
                    found[key] = stored[attribute.checkpoint_key]
    return found


def _read_operations(encoder, keys, stored, path):
    """Fills an encoder of Keras 2 from a run of Keras 3, whose checkpoints count all operations and hide names.

    Args:
      encoder: of Keras 2.
      keys: path below the encoder -> key of the checkpoint.
      stored: see `_variables`.
      path: of the checkpoint.
    """
    own = weight_files.table(encoder)
    places = [key.partition("/.ATTRIBUTES")[0].split("/")[1:] for key in keys]
    order = sorted({int(number) for number, *_ in places})
    found = {}
    for (number, *inside), key in zip(places, keys.values()):
        rank, name = order.index(int(number)), "/".join(part.lstrip("_") for part in inside)
        found[rank, name if (rank, name) in own else f"depthwise_{name}"] = key
    expected = {place: (name, tuple(weight.shape), weight.dtype) for place, (name, weight) in own.items()}
    _compare(expected, {place: stored[key] for place, key in found.items()}, path)
    reader = tf.train.load_checkpoint(path)
    for place, (_, weight) in own.items():
        weight.assign(reader.get_tensor(found[place]))


def _escaped(name):
    return name.replace(".", "..").replace("/", ".S")


def _own_variables(tree):
    """The same for what is in memory: keys are the shortest paths of attributes, as tf.train.Checkpoint makes them."""
    view, found = tf.train.TrackableView(tree), {}
    seen, waiting = {id(tree)}, collections.deque([(tree, ())])
    while waiting:
        parent, path = waiting.popleft()
        for name, child in view.children(parent).items():
            if id(child) in seen:
                continue
            seen.add(id(child))
            place = (*path, _escaped(name))
            waiting.append((child, place))
            if hasattr(child, "_serialize_to_tensors") and hasattr(child, "shape"):  # a variable, of Keras 3 as well
                key = "/".join((*place, ".ATTRIBUTES", "VARIABLE_VALUE"))
                full_name = getattr(child, "_shared_name", "") or child.name.split(":")[0]
                found[key] = full_name, tuple(child.shape), tf.as_dtype(child.dtype)
    return found


def _described(table):
    """Key -> (name, shape, dtype) of key -> (name, array)."""
    return {key: (name, array.shape, array.dtype) for key, (name, array) in table.items()}


def _below(variables, place):
    prefix = "/".join(place) + "/"
    # An optimizer of the older kind keeps its slots below the weights.
    inside = {key[len(prefix) :]: value for key, value in variables.items() if key.startswith(prefix)}
    return {key: value for key, value in inside.items() if ".OPTIMIZER_SLOT" not in key}


def _compare(expected, stored, path):
    faults = _faults(expected, stored)
    if not faults:
        return
    by_name = [{name: (name, *kind) for name, *kind in variables.values()} for variables in (expected, stored)]
    # One block more or less moves all later layers by some positions; names then say it in fewer words.
    faults = min(faults, _faults(*by_name) or faults, key=len)
    rest = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    raise Mistake(
        f"the checkpoint must hold exactly the encoder's variables. {path!r} does not: "
        f"{'; '.join(faults[:_SHOWN])}{rest}. "
        "Build the encoder with the options that it was trained with."
    )


def _faults(expected, stored):
    faults = [f"{expected[key][0]} is missing" for key in sorted(expected.keys() - stored.keys(), key=str)]
    faults += [f"{stored[key][0]} is not in the encoder" for key in sorted(stored.keys() - expected.keys(), key=str)]
    for key in sorted(expected.keys() & stored.keys(), key=str):
        (name, *own), (other, *theirs) = expected[key], stored[key]
        if own != theirs:
            kinds = [f"{list(shape)} {dtype.name}" for shape, dtype in (own, theirs)]
            faults.append(f"{name} is {kinds[0]}, but {other} in the file is {kinds[1]}")
    return faults
