"""Records of shards, read one by one at their byte offsets, so that an epoch can have any order."""

from __future__ import annotations

import os
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from clouds_tf.data.examples import parse_example
from clouds_tf.data.records_info import FRAMING, RecordsInfo, Shard

TRIES = 5  # to read a record, before an error
_PAUSE = 1.0  # seconds before the second try; each later pause is twice as long


class Located:
    """The records of some folds of a folder of shards, numbered in the order of the shards.

    Args:
        folder: a folder of shards.
        info: what it holds.
        folds: the folds to read; only their shards are opened.

    Attributes:
        count: number of records.

    Raises:
        ValueError: a shard of an earlier version, which has to be searched, is damaged.
    """

    def __init__(self, folder: str, info: RecordsInfo, folds: Collection[int]) -> None:
        shards = [shard for shard in info.shards if set(folds) & set(shard.folds)]
        self._paths = [os.path.join(folder, shard.file) for shard in shards]
        places = [np.zeros([0, 3], np.int64)]
        for i, (path, shard) in enumerate(zip(self._paths, shards)):
            offsets, found = _places(path, shard)
            ends = np.append(offsets[1:], shard.num_bytes)
            rows = np.stack([np.full(len(ends), i), offsets, ends - offsets], axis=1)
            places.append(rows[np.isin(found, list(folds))])
        self._places = np.concatenate(places)
        self.count = len(self._places)

    def read(self, number: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads the record of a number, int64 []; see `parse_example`.

        Raises:
            tf.errors.OpError: it cannot be read in TRIES tries; the shard is named.
        """
        shard, offset, size = tf.unstack(tf.gather(tf.constant(self._places), number))
        return parse_example(_read(tf.gather(tf.constant(self._paths), shard), offset, size))

    def names(self, numbers: Collection[int]) -> list[str]:
        """File names of the images of records."""
        return [self.read(number)["filename"].numpy().decode() for number in numbers]


def _places(path: str, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Offset and fold of each record of a shard, int64 [N] each."""
    if shard.offsets:  # in a shard, records are in the order of their folds
        return np.array(shard.offsets), np.repeat([*shard.folds], [*shard.folds.values()])
    # Written by an earlier version, which did not note the offsets.
    records = tf.data.TFRecordDataset(path).take(shard.num_examples)
    try:
        found = np.array(
            [
                (int(size), int(fold))
                for size, fold in records.map(
                    lambda x: (tf.strings.length(x), parse_example(x)["fold"]),
                    num_parallel_calls=tf.data.AUTOTUNE,
                )
            ],
            np.int64,
        ).reshape(-1, 2)
    except tf.errors.DataLossError as error:
        raise ValueError(_damage(path, error.message)) from None
    if len(found) < shard.num_examples:
        raise ValueError(_damage(path, f"{len(found)} records, expected {shard.num_examples}"))
    return np.cumsum([0, *found[:-1, 0] + FRAMING]), found[:, 1]


def _damage(path: str, reason: str) -> str:
    return f"{path}: damaged: {reason}; see make_tfrecords.py --verify"


def _read(path: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Reads the serialized example at an offset of a shard; waits and tries again where it fails.

    An outage of a network share takes seconds, and must not end a training of days. The errors of
    tf.data do not name the file where a record is damaged, so that is done here.
    """

    def pause(attempt: tf.Tensor) -> tf.Tensor:
        microseconds = tf.cast(_PAUSE * 1e6 * 2.0 ** (tf.cast(attempt, tf.float32) - 1), tf.int64)
        slept = tf.raw_ops.SleepDataset(
            input_dataset=tf.data.experimental.to_variant(tf.data.Dataset.from_tensors(attempt)),
            sleep_microseconds=microseconds,
            output_types=[tf.int64],
            output_shapes=[[]],
        )
        spec = tf.TensorSpec([], tf.int64)
        return tf.data.experimental.from_variant(slept, spec).get_single_element()

    def attempt(number: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.cond(number > 0, lambda: pause(number), lambda: number)]):
            variant = tf.raw_ops.TFRecordDatasetV2(
                filenames=[path],
                compression_type="",
                buffer_size=size,
                byte_offsets=[offset],
            )
        record = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
        return record.take(1).get_single_element()

    def explain(_: tf.Tensor) -> tf.Tensor:
        # Raises the reason if the file cannot be opened.
        first = tf.data.FixedLengthRecordDataset(path, 1).take(1)
        byte = first.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()
        message = tf.strings.join(
            [path, ": damaged: no whole record at byte ", tf.strings.as_string(offset)]
            + ["; see make_tfrecords.py --verify"]
        )
        with tf.control_dependencies([tf.raw_ops.Assert(condition=False, data=[message])]):
            return tf.identity(byte)

    tries = tf.data.Dataset.range(TRIES).map(attempt).ignore_errors()
    last = tf.data.Dataset.from_tensors(tf.constant(0)).map(explain)
    return tries.concatenate(last).take(1).get_single_element()
