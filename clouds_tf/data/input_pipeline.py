"""Batches of a folder of records by its path; `Records` opens the folder once for all calls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.data.batching import Position
from clouds_tf.data.records import Records, Size


def training_batches(
    records_dir: str,
    folds: Sequence[int],
    image_size: Size,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    initial_epoch: int = 0,
    initial_step: int = 0,
    worker: int = 0,
    num_workers: int = 1,
    **settings: Any,
) -> tf.data.Dataset:
    """Batches of every epoch to come of a folder of shards: `Records.training_batches`."""
    start = Position(initial_epoch, initial_step, worker, num_workers)
    records = Records.open(records_dir)
    return records.training_batches(folds, image_size, batch_size, epochs, seed, start, **settings)


def validation_batches(records_dir: str, *args: Any, **settings: Any) -> tf.data.Dataset:
    """Batches of held-out images of a folder of shards: `Records.held_out_batches`."""
    return Records.open(records_dir).held_out_batches(*args, **settings)


def count_examples(records_dir: str, folds: Collection[int]) -> int:
    """Counts the images of some folds of a folder of shards."""
    return Records.open(records_dir).info.count(folds)


def split_folds(records_dir: str, fold: int) -> tuple[list[int], list[int]]:
    """The folds to train on and to hold out: `Records.split`."""
    return Records.open(records_dir).split(fold)


def steps_per_epoch(records_dir: str, folds: Collection[int], batch_size: int) -> int:
    """Number of batches in which an epoch shows every image once."""
    return Records.open(records_dir).steps_per_epoch(folds, batch_size)
