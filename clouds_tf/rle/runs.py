"""Runs, the form between strings and masks.

In this package the runs of a batch of N masks are three int64 vectors [R], sorted by mask and
position: `start`, the 0-based column-major position of a run's first pixel in its mask; `length`,
in pixels; and `row`, the index of its mask, 0..N-1.
"""

import tensorflow as tf


def split_size(size):
    """(height, width), of ints or int scalars, or an int tensor [2] -> two int64 scalars."""
    return tf.unstack(tf.cast(size, tf.int64), num=2)


def shift(x, first):
    """Vector x [R] moved up by one place: first, x[0], ..., x[R - 2]."""
    return tf.concat([tf.cast([first], x.dtype), x], axis=0)[:-1]


def count_below(x, limit):
    """How many of the sorted x [R] are below each limit [L] -> int64 [L]."""
    # Not tf.searchsorted: it fails on empty vectors.
    return tf.raw_ops.LowerBound(
        sorted_inputs=x[tf.newaxis], values=limit[tf.newaxis], out_type=tf.int64
    )[0]


def expand(first, last):
    """Lists the whole numbers first .. last - 1 of each pair of bounds.

    Args:
        first: int64 [R], at least 0.
        last: int64 [R], at least first, below 2^32.

    Returns:
        int64 [E], the numbers, and int64 [E], the index of the pair of bounds of each.
    """
    # Counted in the lower half of each number, the index in the upper half. The row ids of a
    # tf.RaggedTensor would take a matrix of R times the longest range.
    index = tf.bitwise.left_shift(tf.range(tf.size(first, tf.int64)), 32)
    numbers = tf.ragged.range(index + first, index + last).values
    return tf.bitwise.bitwise_and(numbers, 2**32 - 1), tf.bitwise.right_shift(numbers, 32)


def index_in_row(row):
    """Numbers the places of each row from 0 on; row, a sorted vector [R] -> int64 [R]."""
    return tf.range(tf.size(row, tf.int64)) - count_below(row, row)


def merge_runs(start, length, row):
    """Joins the runs that touch."""
    begins = (start != shift(start + length, -1)) | (row != shift(row, -1))
    run = tf.cumsum(tf.cast(begins, tf.int64)) - 1
    start, row = tf.boolean_mask(start, begins), tf.boolean_mask(row, begins)
    return start, tf.math.segment_sum(length, run), row


def count_up(start, end, base, size):
    """Writes along a line of pixels: up to -1 in each gap, upwards from a base in each run.

    One kernel does so at the speed of memory, unlike tf.repeat, tf.cumsum or a scatter.

    Args:
        start: int64 or int32 [R], the runs' first places, sorted.
        end: [R], the places behind them.
        base: int64 [R], at least 0; or int32, where gaps and runs are shorter than 2^31.
        size: the length of the line.

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


def to_ragged(values, row, shape):
    """Gathers values [R, ...] by their row, 0..N-1 -> RaggedTensor [*shape, None, ...].

    Where shape, an int64 vector of static length, is that of a scalar, just the values.
    """
    ragged = tf.RaggedTensor.from_value_rowids(values, row, tf.reduce_prod(shape), validate=False)
    rank = shape.shape[0]
    for axis in range(rank - 1, 0, -1):
        ragged = tf.RaggedTensor.from_uniform_row_length(
            ragged, shape[axis], tf.reduce_prod(shape[:axis]), validate=False
        )
    return ragged if rank else values
