"""Areas and overlaps of masks, computed from their runs."""

from __future__ import annotations

import tensorflow as tf

from clouds_tf.rle.runs import count_below
from clouds_tf.rle.text import Strings, read_runs, to_strings


def area(rle: Strings) -> tf.Tensor:
    """Counts the pixels of masks.

    Args:
        rle: string [...], run-length encodings.

    Returns:
        int64 [...].

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    rle = to_strings(rle)
    _, length, row = read_runs(rle)
    areas = tf.math.unsorted_segment_sum(length, row, tf.size(rle, tf.int64))
    return tf.reshape(areas, tf.shape(rle))


def intersection(a: Strings, b: Strings) -> tf.Tensor:
    """Counts the pixels that two masks share.

    Args:
        a: string [...], run-length encodings.
        b: string of the shape of a, run-length encodings of masks of the same height.

    Returns:
        int64 [...].

    Raises:
        ValueError: the shapes differ.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    return _overlap(a, b)[-1]


def dice(a: Strings, b: Strings) -> tf.Tensor:
    """Computes the Dice coefficient of pairs of masks: 2 |a and b| / (|a| + |b|).

    Two masks of 4 pixels that share 2, and two empty masks:

    >>> from clouds_tf import rle
    >>> rle.dice(["1 4", ""], ["3 4", ""]).numpy()
    array([0.5, 1. ], dtype=float32)

    Args:
        a: string [...], run-length encodings.
        b: string of the shape of a, run-length encodings of masks of the same height.

    Returns:
        float32 [...], 0 to 1; 1 where both are empty.

    Raises:
        ValueError: the shapes differ.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    a_area, b_area, shared = _overlap(a, b)
    both = tf.cast(a_area + b_area, tf.float64)
    ratio = tf.math.divide_no_nan(2 * tf.cast(shared, tf.float64), both)
    return tf.cast(tf.where(tf.equal(both, 0), tf.ones_like(ratio), ratio), tf.float32)


def _overlap(a: Strings, b: Strings) -> list[tf.Tensor]:
    """Strings [...] -> int64 [...]: the area of a, the area of b, and the area that they share."""
    a, b = to_strings(a, "a"), to_strings(b, "b")
    if not a.shape.is_compatible_with(b.shape):
        raise ValueError(f"b: got shape {b.shape}, expected that of a, {a.shape}")
    a_start, a_length, a_row = read_runs(a, name="a")
    b_start, b_length, b_row = read_runs(b, name="b")
    # All masks one after the other, on one line.
    span = tf.reduce_max(tf.concat([[0], a_start + a_length, b_start + b_length], axis=0))
    a_start += a_row * span
    b_start += b_row * span
    b_end = tf.concat([[0], b_start + b_length], axis=0)
    b_sum = tf.concat([[0], tf.cumsum(b_length)], axis=0)

    def b_before(position: tf.Tensor) -> tf.Tensor:
        """Counts pixels of b before a position: runs that began there, less what follows it."""
        begun = count_below(b_start, position)
        return tf.gather(b_sum, begun) - tf.nn.relu(tf.gather(b_end, begun) - position)

    shared = b_before(a_start + a_length) - b_before(a_start)
    return [
        tf.reshape(tf.math.unsorted_segment_sum(x, row, tf.size(a, tf.int64)), tf.shape(a))
        for x, row in ((a_length, a_row), (b_length, b_row), (shared, a_row))
    ]
