"""The batches of a training run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Optional

import tensorflow as tf

from clouds_tf.data.batching import Position


@dataclasses.dataclass(frozen=True)
class Feed:
    """Functions that make the batches of a training run.

    Attributes:
        training: a function from a Position to a tf.data.Dataset of that worker's part of every
            batch from there on.
        validation: a function (worker, num_workers) -> its part of the held-out batches.
        names: a function (epoch, step), both counted from 0 -> names of the images in that batch,
            for error messages.
        held_out_names: a function (number) -> names of the first held-out images, for pictures.
        data_service: address of the tf.data service that makes the training batches, in no fixed
            order; None for this process.
    """

    training: Callable[[Position], tf.data.Dataset]
    validation: Callable[[int, int], tf.data.Dataset]
    names: Callable[[int, int], "list[str]"]
    held_out_names: Callable[[int], "list[str]"] = lambda number: []
    data_service: Optional[str] = None
