"""How images become batches, through tf.data.

Where examples can be picked by number, their order and what is done to each depend only on the seed and on the running
number of the example: several replicas or workers see together what one would see, and a run that starts again at step
k resumes with batch k. Of a stream this holds for each number of pipelines by itself: each passes over files of its
own, where there are enough, and an epoch's order depends on the seed and on the number of the epoch.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from tf_evonorm.mistakes import Mistake
from tf_pixpro.data.interface import Source
from tf_pixpro.data.service import check_number, check_served, served
from tf_pixpro.data.sources import source
from tf_pixpro.views.augment import View, centre_view, recipe_views, two_views

__all__ = ["Source", "labelled_dataset", "pretrain_dataset", "source", "training_dataset"]

_TRIES = 8
_AT_ONCE = 16  # images read and decoded side by side


def pretrain_dataset(
    source: Source,
    size: tuple[int, int] = (224, 224),
    global_batch: int = 256,
    seed: int = 0,
    recipe: str | tuple[View, View] = "BYOL",
    input_context: Optional[tf.distribute.InputContext] = None,
    start_step: int = 0,
    max_bad_share: float = 0.01,
    exif: bool = False,
    bits: int = 16,
    tf_data_service_address: Optional[str] = None,
    **changes: Any,
) -> tf.data.Dataset:
    """Endless batches of two views per image, for `PixPro`.

    Args:
      source: from `tf_pixpro.data.source`.
      size: (height, width) of the views, pixels.
      global_batch: images per step over all replicas.
      seed: of order and augmentation.
      recipe: see `tf_pixpro.views.augment.two_views`.
      input_context: of the strategy; this pipeline then gives its own part of each global batch, in batches of one
        replica.
      start_step: step whose batch comes first. Where images can be picked this costs nothing; of compressed TFRecords
        at most one epoch is read over, without decoding images.
      max_bad_share: share of images that may fail to decode. Each is logged by name, counted, and replaced by another
        image. A single bad file is let pass, unless this is 0.
      exif, bits: see `tf_pixpro.views.augment.two_views`.
      tf_data_service_address: of tf.data's service, see `training_dataset`; workers decode JPEG, PNG and BMP alone.
      **changes: of the recipe: scale, ratio, vertical_flip or any other attribute of `tf_pixpro.views.augment.View`,
        for both views.

    Returns:
      Dataset of {'view1', 'view2': [b, H, W, 3] float32, 'box1', 'box2': [b, 4] float32}, static shapes.

    Raises:
      Mistake: if the global batch does not divide over the replicas, or an argument is out of its range.
      tf.errors.InvalidArgumentError: while running, when more than max_bad_share of the images so far could not be
        decoded.
    """
    _check_size(size)
    pair = recipe_views(recipe, **changes)

    def views(example, seed):
        return two_views(example["bytes"], seed, size, pair, exif, bits, pillow=not tf_data_service_address)

    return training_dataset(
        source, views, global_batch, seed, input_context, start_step, max_bad_share, tf_data_service_address
    )


def training_dataset(
    source: Source,
    prepare: Callable,
    global_batch: int = 256,
    seed: int = 0,
    input_context: Optional[tf.distribute.InputContext] = None,
    start_step: int = 0,
    max_bad_share: float = 0.01,
    tf_data_service_address: Optional[str] = None,
) -> tf.data.Dataset:
    """Endless batches of whatever is made of each image; each epoch has its own order and its own seeds.

    Args:
      source: from `tf_pixpro.data.source`.
      prepare: (example, seed [2] int32) -> tensors of fixed shapes; see `Source` for an example.
      global_batch, seed, input_context, start_step, max_bad_share: see `pretrain_dataset`.
      tf_data_service_address: such as 'grpc://host:5000': workers of tf.data's service make the batches, the same in
        the same order (see `tf_pixpro.data.service`); `prepare` must not call Python then.

    Returns:
      Dataset of what `prepare` gives, in batches of one replica.

    Raises:
      Mistake, tf.errors.InvalidArgumentError: see `pretrain_dataset`.
    """
    per_replica, part, parts = _share_of(global_batch, input_context)
    if not 0 <= max_bad_share <= 1:
        raise Mistake(f"max_bad_share must be in [0, 1]. Received max_bad_share={max_bad_share}.")
    _check_readable(source, max_bad_share)
    mine = global_batch // parts
    fails = _Failures(max_bad_share, source, shuffled=True)

    def number_of(local):
        """Running number, over all pipelines, of this pipeline's example."""
        return local // mine * global_batch + part * mine + local % mine

    def prepared(number, example):
        return prepare(example, _seed32(tf.stack([tf.cast(seed, tf.int64), number])))

    if tf_data_service_address:
        check_served(source)
        made = _by_workers(source, seed, number_of, prepared, per_replica)
        first = start_step * mine // per_replica
        batches = served(made, first, tf_data_service_address)
        return batches.enumerate(first).map(fails.noted(per_replica)).prefetch(2)
    numbers = tf.data.Dataset.range(start_step * mine, tf.int64.max).map(number_of)
    if source.read is not None:
        order = _shuffled(source.num_examples, seed)

        @tf.autograph.experimental.do_not_convert
        def attempts(number):
            return fails.first_good(lambda t: source.read(order(number + t)), lambda e: prepared(number, e))

        examples = _each(numbers, attempts)
    else:
        # A stream cannot be asked for another image, so a bad one is replaced by the one before it, once more.
        rows = _rows(source, seed, start_step, global_batch, part, parts)
        pairs = rows.map(lambda local, example: (number_of(local), example))
        pairs = pairs.scan(_none_yet(source), lambda last, pair: (pair[1], (*pair, last)))

        @tf.autograph.experimental.do_not_convert
        def attempts(number, example, last):
            return fails.first_good(
                lambda t: tf.nest.map_structure(lambda a, b: tf.where(t > 0, b, a), example, last),
                lambda e: prepared(number, e),
            )

        examples = _each(pairs, attempts)
    batches = examples.batch(per_replica, drop_remainder=True)
    return batches.map(fails.checked(per_replica)).prefetch(2)


def _by_workers(source, seed, number_of, prepared, per_replica):
    """Dataset of numbers of batches -> (number, (batch, names of images that failed)), without any Python in it."""
    order = _shuffled(source.num_examples, seed)

    @tf.autograph.experimental.do_not_convert
    def first_good(local):
        number = number_of(local)

        def attempt(t):
            failed = tf.map_fn(
                lambda one: source.read(order(number + one))["name"], tf.range(t), fn_output_signature=tf.string
            )
            example = prepared(number, source.read(order(number + t)))
            return local // per_replica, (example, tf.strings.reduce_join(failed, separator="\n"))

        return tf.data.Dataset.range(_TRIES).map(attempt).ignore_errors().take(1)

    def made(batches):
        each = batches.flat_map(lambda n: tf.data.Dataset.range(n * per_replica, (n + 1) * per_replica))
        made = _each(each, first_good).batch(per_replica, drop_remainder=True)
        return made.map(lambda numbers, batch: (numbers[0], batch))

    return made


def _rows(source, seed, start_step, global_batch, part, parts):
    """(running number in this pipeline, example) of a source that only comes in a row, from a step on.

    Each epoch is shuffled by its own seed, so that only a part of one epoch is skipped.
    """
    mine = global_batch // parts
    divided = parts == 1 or len(source.file_sizes) >= parts  # else each pipeline reads all and leaves others' out
    files = list(range(part, len(source.file_sizes), parts)) if divided and source.file_sizes else None
    count = source.num_examples if files is None else sum(source.file_sizes[file] for file in files)
    start = start_step * (mine if divided else global_batch)

    def epoch(number):
        key = _seed64(seed, number)
        skip = tf.where(number == start // count, tf.constant(start % count, tf.int64), 0)
        return source.stream(key, files, skip).take(count - skip)

    rows = tf.data.Dataset.range(start // count, tf.int64.max).flat_map(epoch)
    rows = tf.data.Dataset.zip((tf.data.Dataset.range(start, tf.int64.max), rows))
    if divided:
        return rows
    rows = rows.filter(lambda number, _: number % global_batch // mine == part)
    return rows.map(lambda number, example: (number // global_batch * mine + number % mine, example))


def labelled_dataset(
    source: Source,
    size: tuple[int, int] = (224, 224),
    batch: int = 64,
    input_context: tf.distribute.InputContext | None = None,
    limit: Optional[int] = None,
    margin: float = 256 / 224,
    max_bad_share: float = 0.01,
    exif: bool = False,
    bits: int = 16,
) -> tf.data.Dataset:
    """All images once, in their order, with labels and without augmentation.

    Args:
      source: from `tf_pixpro.data.source`, with labels.
      size: (height, width), pixels; the short side is scaled to `margin` times it, and the centre cut out.
      batch: images per step over all replicas.
      input_context: of the strategy.
      limit: at most so many images, evenly spread over the source; a stream is read to its end for them.
      margin: 1 takes the largest centre there is.
      max_bad_share: share of images that may fail to decode. Each is logged by name, counted, and left out.
      exif, bits: see `tf_pixpro.views.decode.decode_image`.

    Returns:
      Dataset of {'image': [b, H, W, 3] float32 normalized, 'label': [b] int64}; the last batch may be smaller.

    Raises:
      Mistake: if the source has no labels.
      tf.errors.InvalidArgumentError: while running, when more than max_bad_share of the images so far could not be
        decoded.
    """
    _check_size(size)
    check_labels(source)
    _check_readable(source, max_bad_share)
    per_replica, part, parts = _share_of(batch, input_context)
    if source.read is not None:
        count = source.num_examples if limit is None else min(limit, source.num_examples)
        examples = (
            tf.data.Dataset.range(count).shard(parts, part).map(lambda i: source.read(i * source.num_examples // count))
        )
    else:
        examples = _spread(source.stream(None), source.num_examples, limit).shard(parts, part)

    fails = _Failures(max_bad_share, source, shuffled=False)

    def prepared(example):
        return {"image": centre_view(example["bytes"], size, margin, exif, bits), "label": example["label"]}

    @tf.autograph.experimental.do_not_convert
    def if_good(example):
        # The second try is of the same image: it notes the failure and fails again.
        return fails.first_good(lambda _: example, prepared, tries=2)

    return _each(examples, if_good).batch(per_replica).map(fails.checked(per_replica)).prefetch(2)


def _spread(examples, count, limit):
    """The images `number * count // limit` of a stream of `count`, which all is read."""
    if limit is None or limit >= count:
        return examples

    def up_to(position):
        return (position * limit + count - 1) // count

    chosen = examples.enumerate().filter(lambda position, _: up_to(position + 1) > up_to(position))
    return chosen.map(lambda _, example: example)


def check_labels(source: Source, class_names: Optional[tuple[str, ...]] = None) -> None:
    """Refuses a source without labels, or of other classes than `class_names`, without reading images.

    Raises:
      Mistake: there are no labels, or their numbers stand for other names.
    """
    if not source.class_names:
        raise Mistake(
            f"labels are needed. Received {source.name} without classes. Put images into one folder per class."
        )
    if class_names is not None and tuple(class_names) != source.class_names:
        only = sorted({*class_names} ^ {*source.class_names})
        raise Mistake(
            "both sets must have the same classes, since labels are numbers of names. Received "
            f"{len(class_names)} and, in "
            f"{source.name}, {len(source.class_names)}; only one of them has {', '.join(only[:5])}. "
            "Give each class an image in both, or use `with_classes`."
        )


def _check_readable(source, max_bad_share):
    """Refuses a source of which too many files are known to be no images, before anything is trained."""
    bad = len(source.unreadable)
    if bad > max(1 if max_bad_share else 0, max_bad_share * source.num_examples):
        raise Mistake(
            f"at most {max_bad_share:.2%} of the images may be undecodable. Received {bad} of {source.num_examples} in "
            f"{source.name}, such as {', '.join(source.unreadable[:3])}. Repair or remove them, or raise max_bad_share."
        )


def _check_size(size):
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, (int, np.integer)) and side > 0 for side in sides):
        raise Mistake(f"size must be (height, width) in pixels. Received size={size!r}.")


def _share_of(global_batch, context):
    """(images of one replica, number of this pipeline, number of pipelines)."""
    replicas, part, parts = (1, 0, 1) if context is None else (
        context.num_replicas_in_sync, context.input_pipeline_id, context.num_input_pipelines
    )  # fmt: skip
    if global_batch < 1 or global_batch % replicas:
        raise Mistake(
            f"the global batch must divide over the replicas. Received {global_batch} images, {replicas} replicas. "
            f"Pass a multiple of {replicas}."
        )
    return global_batch // replicas, part, parts


def _shuffled(count: int, seed: int) -> Callable:
    """Running number -> index: every epoch another permutation, without a buffer."""

    def index(number):
        epoch, place = number // count, number % count
        key = tf.stack([tf.cast(seed, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(place, key, tf.cast(count - 1, tf.int64)) if count > 1 else place

    return index


def _seed64(seed, epoch):
    """One seed of an epoch of a stream."""
    key = tf.cast(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.int32)
    return tf.random.stateless_uniform([], key, 1, tf.int64.max, tf.int64)


def _seed32(seed64):
    return tf.cast(seed64 % (2**31 - 1), tf.int32)


def _each(dataset, make):
    """One element of `make(element)` for each element, side by side on all cores, in order."""
    return dataset.interleave(
        make, cycle_length=_AT_ONCE, block_length=1, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _none_yet(source):
    return {"bytes": tf.constant(b""), "label": tf.constant(0, tf.int64), "name": tf.constant("")}


class _Failures:
    """Images that could not be decoded: counted, named in the log, and too many of them an error.

    Files have names of their own, and one that is read again in the next epoch is no second one. Records have none:
      each reading counts.
    """

    def __init__(self, max_share: float, source: Source, shuffled: bool):
        self.max_share, self.source, self.seen = max_share, source.name, 0
        self.shuffled, self.total = shuffled, source.num_examples
        self.images = source.num_examples if source.read is not None else None
        self.count = 0
        self.names: set[str] = set()
        self.last: list[str] = []

    def first_good(self, read, prepare, tries=_TRIES):
        """Dataset of the one `prepare(read(t))` that works, for t = 0, 1, ...; what failed before it is noted."""

        @tf.autograph.experimental.do_not_convert
        def attempt(t):
            noted = tf.cond(t > 0, lambda: tf.numpy_function(self._note, [read(t - 1)["name"]], tf.int64), lambda: t)
            with tf.control_dependencies([noted]):
                return prepare(read(t))

        return tf.data.Dataset.range(tries).map(attempt).ignore_errors().take(1)

    def checked(self, batch):
        """A map over batches that fails as soon as too many images were bad."""

        def check(*parts):
            with tf.control_dependencies([tf.numpy_function(self._check, [batch], tf.int64)]):
                return tf.nest.map_structure(tf.identity, parts if len(parts) > 1 else parts[0])

        return check

    def noted(self, batch):
        """A map over (expected number, (number, (batch, names of failed images))) that fails like `checked`."""

        def note(number, expected, names):
            check_number(number, expected)
            for name in b"\n".join(names).split(b"\n"):
                if name:
                    self._note(name)
            return self._check(batch)

        def check(expected, served):
            number, (parts, names) = served
            with tf.control_dependencies([tf.numpy_function(note, [number, expected, names], tf.int64)]):
                return tf.nest.map_structure(tf.identity, parts)

        return check

    def _note(self, name):
        name = name.decode(errors="replace")
        if self.images is None or name not in self.names:
            self.names.add(name)
            self.count += 1
            self.last = [*self.last[-2:], name]
            tf.get_logger().warning(
                "An image could not be decoded and is left out (number %d so far): %s", self.count, name
            )
        return np.int64(self.count)

    def _check(self, batch):
        self.seen += int(batch)
        known = self.seen + self.count
        if self.count > self._allowed(known):
            known = known if self.images is None else min(known, self.images)
            raise Mistake(
                f"at most {self.max_share:.2%} of the images may be undecodable. Received {self.count} of {known} in "
                f"{self.source}, such as {', '.join(self.last)}. Repair or remove them, or raise max_bad_share."
            )
        return np.int64(self.seen)

    def _allowed(self, known):
        """How many bad images may have been found among `known`, from the first batch on.

        No more than the share of the whole source: files count once, so that a small set is judged by its size, not by
          the batches
        of many epochs. And, in a random order, no more than chance could show so early: five standard deviations.
        """
        if self.max_share == 0:
            return 0
        whole = self.max_share * (self.total if self.images is not None else max(self.total, known))
        # What is read ahead of the batches may hold bad images that were noted and sound ones that were not yet seen.
        expected = self.max_share * (known + _AT_ONCE)
        early = expected + 5 * expected**0.5 if self.shuffled else whole
        return max(1, min(whole, early))
