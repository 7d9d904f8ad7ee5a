"""Areas and overlaps of masks, from their runs."""

import tensorflow as tf

from clouds_tf.rle.runs import count_below
from clouds_tf.rle.text import read_runs


def area(rle):
    """Counts the pixels of masks.

    Args:
        rle: string [...], run-length encodings.

    Returns:
        int64 [...].

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    rle = tf.convert_to_tensor(rle, tf.string)
    _, length, row = read_runs(rle)
    areas = tf.math.unsorted_segment_sum(length, row, tf.size(rle, tf.int64))
    return tf.reshape(areas, tf.shape(rle))


def intersection(a, b):
    """Counts the pixels that two masks share.

    Args:
        a: string [...], run-length encodings.
        b: string of the same shape, run-length encodings of masks of the same height.

    Returns:
        int64 [...].

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    return _overlap(a, b)[-1]


def dice(a, b):
    """Gives the Dice coefficient of pairs of masks: 2 |a and b| / (|a| + |b|).

    Args:
        a: string [...], run-length encodings.
        b: string of the same shape, run-length encodings of masks of the same height.

    Returns:
        float32 [...], 0 to 1; 1 where both are empty.

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    a_area, b_area, shared = _overlap(a, b)
    both = tf.cast(a_area + b_area, tf.float64)
    ratio = tf.math.divide_no_nan(2 * tf.cast(shared, tf.float64), both)
    return tf.cast(tf.where(tf.equal(both, 0), tf.ones_like(ratio), ratio), tf.float32)


def _overlap(a, b):
    """Strings [...] -> int64 [...]: the area of a, that of b, and that of both at once."""
    a, b = tf.convert_to_tensor(a, tf.string), tf.convert_to_tensor(b, tf.string)
    a.shape.assert_is_compatible_with(b.shape)
    a_start, a_length, a_row = read_runs(a, name="a")
    b_start, b_length, b_row = read_runs(b, name="b")
    # All masks one behind the other, on one line.
    span = tf.reduce_max(tf.concat([[0], a_start + a_length, b_start + b_length], axis=0))
    a_start += a_row * span
    b_start += b_row * span
    b_end = tf.concat([[0], b_start + b_length], axis=0)
    b_sum = tf.concat([[0], tf.cumsum(b_length)], axis=0)

    def b_before(position):
        """Pixels of b before a position: of the runs begun there, less what follows it."""
        begun = count_below(b_start, position)
        return tf.gather(b_sum, begun) - tf.nn.relu(tf.gather(b_end, begun) - position)

    shared = b_before(a_start + a_length) - b_before(a_start)
    return [
        tf.reshape(tf.math.unsorted_segment_sum(x, row, tf.size(a, tf.int64)), tf.shape(a))
        for x, row in ((a_length, a_row), (b_length, b_row), (shared, a_row))
    ]
