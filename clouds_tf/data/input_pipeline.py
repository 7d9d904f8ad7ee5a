"""Training batches of a folder of records, given by its path."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Opens a folder of shards and returns its `Records.training_batches`."""
    start = Position(initial_epoch, initial_step, worker, num_workers)
    records = Records.open(records_dir)
    return records.training_batches(folds, image_size, batch_size, epochs, seed, start, **settings)
