"""Runs, the representation between strings and masks.

The runs of a batch of N masks are three int64 vectors [R], sorted by mask and position: `start`,
the 0-based column-major position of a run's first pixel in its mask; `length`, in pixels; and
`row`, the index of its mask, 0..N-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Tuple, Union

import numpy as np
import tensorflow as tf

# (height, width) in pixels: whole numbers, an int array or tensor [2], or two int scalars.
Size = Union[Sequence[int], Sequence["tf.Tensor"], np.ndarray, "tf.Tensor"]
# start, length and row.
Runs = Tuple["tf.Tensor", "tf.Tensor", "tf.Tensor"]


def split_size(size: Size, name: str = "size") -> tuple[tf.Tensor, tf.Tensor]:
    """Checks a (height, width), the argument of that name, and splits it into two int64 scalars.

    Raises:
        ValueError: it is not a pair of whole numbers of at least 1, if its value is known when the
            graph is built.
    """
    shown: Any = size
    if tf.is_tensor(shown):
        value = tf.get_static_value(shown)  # None if it is known only when the graph runs
        is_size = shown.shape.is_compatible_with([2]) and (value is None or _are_lengths(value))
        shown = shown.shape if value is None else value.tolist()
    else:
        is_size = _are_lengths(shown)
    if not is_size:
        raise ValueError(
            f"{name}: got {shown}, expected (height, width) in whole pixels, such as (350, 525)"
        )
    height, width = tf.unstack(tf.cast(size, tf.int64), num=2)
    return height, width


def _are_lengths(sides: Any) -> bool:
    """Whether a value is a pair of scalars that are, if known, whole numbers of at least 1."""
    if isinstance(sides, (str, bytes)) or not hasattr(sides, "__len__") or len(sides) != 2:
        return False
    known = [tf.get_static_value(side) if tf.is_tensor(side) else side for side in sides]
    unknown = [tf.is_tensor(side) and value is None for side, value in zip(sides, known)]
    return all(
        is_unknown
        or np.ndim(value) == 0
        and np.issubdtype(np.asarray(value).dtype, np.integer)
        and value >= 1
        for value, is_unknown in zip(known, unknown)
    )


def shift(x: tf.Tensor, first: int) -> tf.Tensor:
    """Shifts a vector x [R] by one place: first, x[0], ..., x[R - 2]."""
    return tf.concat([tf.cast([first], x.dtype), x], axis=0)[:-1]


def count_below(x: tf.Tensor, limit: tf.Tensor) -> tf.Tensor:
    """Counts the values of the sorted x [R] that are below each limit [L] -> int64 [L]."""
    # Not tf.searchsorted: it fails on empty vectors.
    return tf.raw_ops.LowerBound(
        sorted_inputs=x[tf.newaxis], values=limit[tf.newaxis], out_type=tf.int64
    )[0]


def expand(first: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Lists the whole numbers first .. last - 1 of each pair of bounds.

    Args:
        first: int64 [R], at least 0.
        last: int64 [R], at least first, below 2^32.

    Returns:
        int64 [E], the numbers, and int64 [E], the index of the pair of bounds of each.
    """
    # Counts in the lower half of each number, with the index in the upper half. The row ids of a
    # tf.RaggedTensor would take a matrix of R times the longest range.
    index = tf.bitwise.left_shift(tf.range(tf.size(first, tf.int64)), 32)
    numbers = tf.ragged.range(index + first, index + last).values
    return tf.bitwise.bitwise_and(numbers, 2**32 - 1), tf.bitwise.right_shift(numbers, 32)


def index_in_row(row: tf.Tensor) -> tf.Tensor:
    """Numbers the elements of each row from 0 on; row, a sorted vector [R] -> int64 [R]."""
    return tf.range(tf.size(row, tf.int64)) - count_below(row, row)


def merge_runs(start: tf.Tensor, length: tf.Tensor, row: tf.Tensor) -> Runs:
    """Joins runs that touch."""
    begins = (start != shift(start + length, -1)) | (row != shift(row, -1))
    run = tf.cumsum(tf.cast(begins, tf.int64)) - 1
    start, row = tf.boolean_mask(start, begins), tf.boolean_mask(row, begins)
    return start, tf.math.segment_sum(length, run), row


def count_up(
    start: tf.Tensor, end: tf.Tensor, base: tf.Tensor, size: Union[int, tf.Tensor]
) -> tf.Tensor:
    """Fills a line of pixels: counts up to -1 in each gap, and up from base in each run.

    A single kernel does it at the speed of memory, unlike tf.repeat, tf.cumsum or a scatter.

    Args:
        start: int64 or int32 [R], the first position of each run, sorted.
        end: [R], the position after each run.
        base: int64 [R], at least 0; or int32, where gaps and runs are shorter than 2^31.
        size: length of the line.

    Returns:
        [size] of the dtype of base: at least 0 exactly inside the runs.
    """
    end = tf.concat([[0], end], axis=0)
    gap = tf.cast(tf.concat([start, [size]], axis=0) - end, base.dtype)
    run = tf.cast(end[1:] - start, base.dtype)
    # The last gap is followed by a run of no pixels.
    base, limit = (tf.concat([x, [0]], axis=0) for x in (base, base + run))
    first, last = tf.stack([-gap, base], axis=1), tf.stack([tf.zeros_like(gap), limit], axis=1)
    return tf.ragged.range(tf.reshape(first, [-1]), tf.reshape(last, [-1])).values


def to_ragged(
    values: tf.Tensor, row: tf.Tensor, shape: tf.Tensor
) -> Union[tf.Tensor, tf.RaggedTensor]:
    """Groups values [R, ...] by their row, 0..N-1 -> RaggedTensor [*shape, None, ...].

    Returns the values themselves if shape, an int64 vector of static length, is that of a scalar.
    """
    ragged = tf.RaggedTensor.from_value_rowids(values, row, tf.reduce_prod(shape), validate=False)
    rank = shape.shape[0]
    for axis in range(rank - 1, 0, -1):
        ragged = tf.RaggedTensor.from_uniform_row_length(
            ragged, shape[axis], tf.reduce_prod(shape[:axis]), validate=False
        )
    return ragged if rank else values
