"""Shards -> parsed records, in their order or shuffled by a seed alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf.data.examples import parse_example
from clouds_tf.data.records_info import RecordsInfo, read_info

# Bounds what a shuffle holds: serialized records, about 0.7 MB each at 1400x2100.
SHUFFLE_BUFFER = 1024


def read_records(
    records_dir: str, info: RecordsInfo, folds: Sequence[int], shuffle_seed: tf.Tensor | None = None
) -> tf.data.Dataset:
    """Reads the records of some folds.

    Args:
        records_dir: a folder of shards.
        info: what it holds.
        folds: the folds to read; only their shards are opened.
        shuffle_seed: int64 [2]; None keeps the order of the shards.

    Returns:
        A tf.data.Dataset of dicts, as `parse_example` returns them; iterating over it raises
        InvalidArgumentError where a shard is damaged.
    """
    shards = [shard for shard in info.shards if set(folds) & set(shard.folds)]
    paths = tf.constant([os.path.join(records_dir, shard.file) for shard in shards])
    counts = tf.constant([shard.num_examples for shard in shards], tf.int64)
    order = tf.range(len(shards))
    if shuffle_seed is not None:
        order = tf.random.experimental.stateless_shuffle(order, shuffle_seed)
    files = tf.data.Dataset.from_tensor_slices((tf.gather(paths, order), tf.gather(counts, order)))
    if shuffle_seed is None:
        records = files.flat_map(_read_shard)
    else:
        records = files.interleave(
            _read_shard, cycle_length=len(shards), num_parallel_calls=tf.data.AUTOTUNE
        )
        records = shuffle(records, shuffle_seed)
    wanted = tf.constant(folds, tf.int64)
    records = records.map(parse_example)
    return records.filter(lambda record: tf.reduce_any(record["fold"] == wanted))


def _read_shard(path: tf.Tensor, num_examples: tf.Tensor) -> tf.data.Dataset:
    """Reads the serialized examples of a shard.

    Args:
        path: path of the shard, string [].
        num_examples: number of examples that were written, int64 [].

    Returns:
        A tf.data.Dataset of string []. Where one cannot be read, it raises InvalidArgumentError,
        which names the shard; the DataLossError of tf.data does not.
    """

    def fail(path: tf.Tensor) -> tf.Tensor:
        message = tf.strings.join(
            [path, ": damaged, got fewer than the ", tf.strings.as_string(num_examples)]
            + [" examples that were written; see make_tfrecords.py --verify"]
        )
        with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=[message])]):
            return tf.identity(path)

    # What follows the readable examples is never looked at, unless there are too few of them.
    readable = tf.data.TFRecordDataset(path).ignore_errors(log_warning=True)
    return readable.concatenate(tf.data.Dataset.from_tensors(path).map(fail)).take(num_examples)


def shuffle(
    elements: tf.data.Dataset, seed: tf.Tensor, buffer_size: int = SHUFFLE_BUFFER
) -> tf.data.Dataset:
    """Shuffles a dataset by a seed int64 [2] that may be a tensor.

    `tf.data.Dataset.shuffle` mixes the global seed into its own, and takes no tensor; this is the
    same op, but its order follows from `seed` alone.
    """
    spec = elements.element_spec
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(elements),
        buffer_size=buffer_size,
        seed=seed[0] + 1,  # two zeros would mean an order that nobody can repeat
        seed2=seed[1],
        reshuffle_each_iteration=False,
        output_types=[part.dtype for part in tf.nest.flatten(spec)],
        output_shapes=[part.shape for part in tf.nest.flatten(spec)],
    )
    return tf.data.experimental.from_variant(shuffled, spec)


def first_files(records_dir: str, folds: Sequence[int], number: int) -> list[str]:
    """Names of the first images of some folds, at most `number`, in the order of the shards."""
    records = read_records(records_dir, read_info(records_dir), folds).take(number)
    return [record["filename"].numpy().decode() for record in records]
