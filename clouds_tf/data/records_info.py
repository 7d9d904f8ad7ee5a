"""Reads a folder of shards: dataset_info.json, and single records at their byte offsets."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Collection
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.data.examples import SCHEMA_VERSION, parse_example
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.messages import short_repr

INFO_FILE = "dataset_info.json"
TRIES = 5  # number of attempts to read a record
_PAUSE = 1.0  # seconds before the second attempt; each later pause is twice as long
TRAINING_ONLY = -1  # fold of images that are never held out
FRAMING = 16  # bytes that a TFRecord file adds to each record: its length and two checksums


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of TFRecords.

    Attributes:
        file: name of the file in its folder.
        num_examples: number of images in it.
        folds: number of images by fold; folds without images are left out.
        num_bytes: length of the file.
        sha256: its SHA-256 in hexadecimal digits.
        offsets: byte offset of each record; empty in shards of earlier versions.
    """

    file: str
    num_examples: int
    folds: dict[int, int]
    num_bytes: int
    sha256: str
    offsets: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads; the offsets are one text, for a compact file."""
        fields = {**dataclasses.asdict(self), "offsets": " ".join(map(str, self.offsets))}
        return {**fields, "folds": {str(k): n for k, n in self.folds.items()}}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Shard:
        """Reads what `to_json` wrote."""
        offsets = tuple(map(int, fields.get("offsets", "").split()))
        folds = {int(k): n for k, n in fields["folds"].items()}
        return cls(**{**fields, "folds": folds, "offsets": offsets})


@dataclasses.dataclass(frozen=True)
class RecordsInfo:
    """Content of dataset_info.json, which describes a folder of shards.

    Attributes:
        dataset: the data set, with the size that its masks were read with.
        image_size: (height, width) that the images were reduced to; None for unchanged files.
        num_examples: number of images in all shards.
        num_folds: number of folds, without the fold -1 of images that are never held out.
        seed: seed of the folds and of the order of the images.
        num_rejected: number of faults that were skipped, see rejected.csv.
        shards: the shards, by name.
    """

    dataset: Dataset
    image_size: tuple[int, int] | None
    num_examples: int
    num_folds: int
    seed: int
    num_rejected: int
    shards: tuple[Shard, ...]

    __repr__ = short_repr

    @property
    def extra_folds(self) -> tuple[int, ...]:
        """(-1,) if there are images that are never held out, otherwise ()."""
        is_used = any(TRAINING_ONLY in shard.folds for shard in self.shards)
        return (TRAINING_ONLY,) if is_used else ()

    @property
    def all_folds(self) -> tuple[int, ...]:
        """The folds of all images, with -1 if there are images that are never held out."""
        return (*self.extra_folds, *range(self.num_folds))

    def count(self, folds: Collection[int]) -> int:
        """Counts the images of some folds; ValueError for an unknown or repeated fold."""
        if not set(folds) <= set(self.all_folds) or len(set(folds)) < len(folds):
            raise ValueError(
                f"folds: got {list(folds)}, expected some of 0 to {self.num_folds - 1}, each once"
            )
        return sum(shard.folds.get(fold, 0) for shard in self.shards for fold in folds)

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        parts = {"dataset": self.dataset.to_json(), "shards": [x.to_json() for x in self.shards]}
        return {"schema_version": SCHEMA_VERSION, **vars(self), **parts}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RecordsInfo:
        """Reads what `to_json` wrote, now or in earlier versions.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or wrong.
        """
        if "dataset" in fields:
            dataset = Dataset.from_json(fields["dataset"])
        else:  # version 0.1 supported only the competition's data set
            dataset = dataclasses.replace(
                CLOUDS, class_names=fields["class_names"], mask_size=fields["mask_size"]
            )
        image_size = fields.get("image_size")
        return cls(
            dataset=dataset,
            image_size=image_size and tuple(image_size),
            num_examples=fields["num_examples"],
            num_folds=fields["num_folds"],
            seed=fields.get("seed", 0),
            num_rejected=fields.get("num_rejected", 0),
            shards=tuple(map(Shard.from_json, fields["shards"])),
        )


def write_info(folder: str, info: RecordsInfo) -> None:
    """Writes dataset_info.json, whole or not at all."""
    text = json.dumps(info.to_json(), indent=1) + "\n"
    files.write_text(os.path.join(folder, INFO_FILE), text)


def read_info(folder: str) -> tuple[RecordsInfo, str]:
    """Reads and checks dataset_info.json: its content, and the identity of the records."""
    path = os.path.join(folder, INFO_FILE)
    try:
        text = files.read_text(path)
        fields = files.parse_json(text)
        version = fields["schema_version"]
        info = RecordsInfo.from_json(fields) if version == SCHEMA_VERSION else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: damaged, or not written by make_tfrecords ({error!r}); to repair it, repeat "
            "the command that wrote these records"
        ) from None
    if info is None:
        raise ValueError(
            f"{path}: schema_version: got {version}, expected {SCHEMA_VERSION}; write the records "
            "again with make_tfrecords"
        )
    for shard in info.shards:
        path = os.path.join(folder, shard.file)
        if not gfile.exists(path):
            raise FileNotFoundError(f"{path}: no such shard")
        length = gfile.stat(path).length
        if length != shard.num_bytes:
            raise ValueError(f"{path}: has {length} bytes, expected {shard.num_bytes}")
    return info, hashlib.sha256(text.encode()).hexdigest()[:16]


class Located:
    """Random access to the records of some folds, numbered in the order of the shards.

    Only the shards of these folds are opened.

    Attributes:
        count: number of records.

    Raises:
        ValueError: a shard of an earlier version, which has to be scanned, is damaged.
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
            tf.errors.OpError: TRIES attempts to read it failed; the message names the shard.
        """
        shard, offset, size = tf.unstack(tf.gather(tf.constant(self._places), number))
        return parse_example(_read(tf.gather(tf.constant(self._paths), shard), offset, size))

    @functools.cached_property
    def all_names(self) -> list[str]:
        """File names of all images; cached, since this reads the whole shards."""
        return self.names(range(self.count))

    def names(self, numbers: Collection[int]) -> list[str]:
        """File names of the images of some records."""
        found = tf.data.Dataset.from_tensor_slices(np.asarray(numbers, np.int64)).map(
            lambda number: self.read(number)["filename"], num_parallel_calls=tf.data.AUTOTUNE
        )
        return [name.decode() for name in found.as_numpy_iterator()]


def _places(path: str, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Offset and fold of each record of a shard, int64 [N] each."""
    if shard.offsets:  # in a shard, records are in the order of their folds
        return np.array(shard.offsets), np.repeat([*shard.folds], [*shard.folds.values()])
    # Written by an earlier version, which did not store the offsets.
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
    """Reads the serialized example at an offset of a shard; if that fails, waits and retries.

    An outage of a network share takes seconds, and must not end a training of days. tf.data's error
    about a damaged record does not name the file, so this function does.
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
