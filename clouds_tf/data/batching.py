"""Divides epochs into even batches, and batches into the parts of several workers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf.data.mixing import Mix, Seed
from clouds_tf.messages import counted


def slices(
    num_examples: int, batch_size: int, worker: int = 0, num_workers: int = 1
) -> list[tuple[int, int]]:
    """Divides examples into the fewest batches, and computes one worker's part of each.

    The sizes of batches differ by at most 1: 33 images at a batch size of 32 become batches of 16
    and 17. A last batch of one image would be a whole step on that image, and would leave all
    replicas but one idle.

    Args:
        num_examples: number of examples in an epoch, at least 1.
        batch_size: maximum number of examples in a batch, over all workers.
        worker: number of the worker, from 0.
        num_workers: number of workers; their parts differ by at most one example.

    Returns:
        A list of (start, end), positions in the epoch, one pair for each batch.

    Raises:
        ValueError: there are no examples, no such worker, or fewer examples than workers in a
            batch.
    """
    if num_examples < 1:
        raise ValueError("folds: got folds without images, expected at least one image")
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    if not 0 <= worker < num_workers:
        raise ValueError(f"worker: got {worker}, expected 0 to {num_workers - 1}")
    steps = math.ceil(num_examples / batch_size)
    if num_examples // steps < num_workers:
        raise ValueError(
            f"batch_size: got {batch_size}, which divides {counted(num_examples, 'image')} into "
            f"batches of {num_examples // steps}, expected at least one image for each of "
            f"{num_workers} workers"
        )
    bounds = [num_examples * i // steps for i in range(steps + 1)]
    return [
        (
            start + (end - start) * worker // num_workers,
            start + (end - start) * (worker + 1) // num_workers,
        )
        for start, end in zip(bounds, bounds[1:])
    ]


def batch_pairs(
    examples: tf.data.Dataset, sizes: Sequence[int], initial_step: int = 0
) -> tf.data.Dataset:
    """Batches examples as (image, mask), or (image, mask, weight) if they have a weight.

    The batch sizes repeat in every epoch; the first batch is number `initial_step` of its epoch.
    """
    names = [name for name in ("image", "mask", "weight") if name in examples.element_spec]
    pairs = examples.map(lambda example: tuple(example[name] for name in names))
    return pairs.batch(max(sizes)).rebatch([*sizes[initial_step:], *sizes[:initial_step]])


@dataclasses.dataclass(frozen=True)
class Position:
    """Start of a stream of training batches, and the worker that reads it.

    Attributes:
        epoch: the first epoch, from 0.
        step: number of batches of that epoch to skip without decoding them.
        worker: number of the worker, from 0.
        num_workers: number of workers that share each batch. Their parts of a batch, concatenated
            in the order of the workers, are the batch of a single worker, mixed or not.
    """

    epoch: int = 0
    step: int = 0
    worker: int = 0
    num_workers: int = 1


@dataclasses.dataclass(frozen=True)
class MixedPart:
    """One worker's part of a batch whose examples are mixed with their predecessors.

    The predecessor of the first example of the batch is the last one.

    Attributes:
        positions: positions in the epoch, ascending, of the worker's examples and, with several
            workers, of the predecessor of the first one.
        places: these positions counted from the start of the batch.
        batch_size: number of examples in the whole batch.
        first: index in `positions` of the worker's first example.
        size: number of the worker's examples.
    """

    positions: tuple[int, ...]
    places: tuple[int, ...]
    batch_size: int
    first: int
    size: int

    @property
    def own(self) -> tuple[int, ...]:
        """The positions without the predecessor of the first example."""
        return self.positions[self.first : self.first + self.size]


def mixed_parts(
    num_examples: int, batch_size: int, worker: int = 0, num_workers: int = 1
) -> list[MixedPart]:
    """Lists the examples that one worker decodes for each mixed batch.

    Arguments and errors are those of `slices`.
    """
    parts = []
    for (start, end), (first, last) in zip(
        slices(num_examples, batch_size),
        slices(num_examples, batch_size, worker, num_workers),
    ):
        partner = first - 1 if first > start else end - 1
        positions = sorted({*range(first, last), partner})
        parts.append(
            MixedPart(
                positions=tuple(positions),
                places=tuple(position - start for position in positions),
                batch_size=end - start,
                first=positions.index(first),
                size=last - first,
            )
        )
    return parts


def mix_batches(
    numbered_batches: tf.data.Dataset, mix: Mix, parts: Sequence[MixedPart], seed: int
) -> tf.data.Dataset:
    """Mixes batches, (step of the run, (images, masks)), with seeds that follow from the step.

    Predecessors that belong to other workers are left out of the result; `parts` has one entry for
    each batch of an epoch.
    """
    places = tf.ragged.constant([part.places for part in parts])
    numbers = tf.constant([(part.batch_size, part.first, part.size) for part in parts])

    def mix_one(step: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        part = step % len(parts)
        batch_size, first, size = tf.unstack(numbers[part])
        # The 0 keeps the mixes of earlier versions, which folded in the number of the worker.
        mixed = mix(*batch, fold_in([seed, 1], step, 0), places[part], batch_size)
        return tuple(x[first : first + size] for x in mixed)

    return numbered_batches.map(mix_one)


def fold_in(seed: Seed, *numbers: tf.Tensor | int) -> tf.Tensor:
    """Derives a seed int [2] from a seed and numbers."""
    for number in numbers:
        seed = tf.random.experimental.stateless_fold_in(seed, number)
    return seed
