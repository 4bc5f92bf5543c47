"""Opening and resuming TFRecords of ImageNet's size: time, memory, and the bytes that each host reads.

    python -m experiments.benchmark open [--records=1281167] [--shards=1024] [--folder=FOLDER] [--keep]

Writes records of some hundred bytes, then starts a fresh process for each measurement: the set without and with its
index, the first batch at step 0 and at epoch 300, and each of four hosts over a whole epoch. Nothing is decoded. A host
that looks in on another's records reads more than its quarter of the bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from experiments.studies.runs import markdown
from tf_pixpro import data

_BATCH = 1024
_HOSTS = 4


def main(arguments: Sequence[str]) -> None:
    """Prints a table of times and memory and one of hosts."""
    parser = argparse.ArgumentParser(prog="experiments.benchmark open", description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1281167)
    parser.add_argument("--shards", type=int, default=1024)
    parser.add_argument("--folder", help="where the records are written; default: a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the records there")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(_measured(os.path.join(options.folder, "*.tfrecord"), *json.loads(options.measure))))
        return
    folder = options.folder or tempfile.mkdtemp(prefix="records")
    try:
        size = write(folder, options.records, options.shards)
        _report(folder, options.records, options.shards, size)
    finally:
        if not options.keep:
            shutil.rmtree(folder)


def write(folder: str, records: int, shards: int) -> int:
    """Writes TFRecords with Model Garden's keys: in place of an image its number and random bytes; 1,000 classes.

    Returns:
      Bytes of all files.
    """
    os.makedirs(folder, exist_ok=True)
    generator = np.random.default_rng(0)
    ends = np.linspace(0, records, shards + 1).astype(int)
    for shard in range(shards):
        path = os.path.join(folder, f"train-{shard:05d}-of-{shards:05d}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for number in range(ends[shard], ends[shard + 1]):
                image = struct.pack("<q", number) + generator.bytes(int(generator.integers(500, 900)))
                feature = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 1000])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def _report(folder, records, shards, size):
    epoch = records // _BATCH
    print(f"{records} records in {shards} files, {size / 1e9:.2f} GB, batches of {_BATCH}\n")
    rows = []
    for name, step in (("without index", 0), ("with index", 0), ("with index, epoch 300", 300 * epoch)):
        found = _in_process(folder, step, 1, 1, 0)
        rows.append([name, *(f"{found[key]:.2f}" for key in ("open", "first_batch")), f"{found['memory'] / 1e6:.0f}"])
    print(markdown(["start", "open, s", "first batch after that, s", "memory above the start, MB"], rows), flush=True)
    seen, rows = [], []
    for host in range(_HOSTS):
        steps = -(-records // _BATCH)  # the last one reaches into the next epoch
        found = _in_process(folder, 0, steps, _HOSTS, host)
        seen.append(np.array(found["numbers"]).reshape(steps, -1))
        share = found["bytes"] / (size * steps * _BATCH / records)
        rows.append([str(host), f"{found['bytes'] / 1e6:.1f}", f"{share:.4f}", f"{found['epoch']:.0f}"])
    print("\n" + markdown(["host of four", "MB read in an epoch", "of all that is read once", "s"], rows))
    order = np.concatenate(seen, axis=1).ravel()[:records]
    once = np.array_equal(np.sort(order), np.arange(records))
    print(f"\nthe four hosts' records of an epoch are the set, each exactly once: {'yes' if once else 'NO'}")


def _in_process(folder, *measure):
    command = [sys.executable, "-m", "experiments.benchmark", "open", f"--folder={folder}"]
    done = subprocess.run([*command, f"--measure={json.dumps(measure)}"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measured(pattern, step, steps, hosts, host):
    """Figures of one process that opens the set and takes `steps` batches from `step` on."""
    tf.data.Dataset.range(1).map(lambda x: x + 1).get_single_element()  # TensorFlow is loaded
    base, start = _memory(), time.monotonic()
    source = data.source(pattern)
    opened = time.monotonic()
    context = tf.distribute.InputContext(hosts, host, hosts)
    batches = data.training_dataset(source, _number, _BATCH, 0, context, step)
    read = _bytes_read()
    iterator = iter(batches.take(steps))
    numbers = [next(iterator)]
    first = time.monotonic()
    numbers.extend(iterator)
    return {
        "open": opened - start,
        "first_batch": first - opened,
        "epoch": time.monotonic() - opened,
        "memory": _memory() - base,
        "bytes": _bytes_read() - read,
        "numbers": np.concatenate(numbers).tolist(),
    }


def _number(example, seed):
    return tf.io.decode_raw(tf.strings.substr(example["bytes"], 0, 8), tf.int64)[0]


def _memory():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes_read():
    """Bytes that this process has asked the system for, of the page cache too."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])
