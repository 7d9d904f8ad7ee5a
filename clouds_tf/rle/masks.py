"""Strings <-> masks, at any size."""

import tensorflow as tf

from clouds_tf.rle.runs import count_up, merge_runs, split_size
from clouds_tf.rle.text import read_runs, write_runs


def decode(rle, source_size, size, order="F"):
    """Draws masks at any size.

    Equal to the masks of source_size resized by nearest neighbour at pixel centres: target row i
    shows source row floor((i + 0.5) * H / h). Those masks are never made: the time is O(runs +
    target pixels).

    Args:
        rle: string [...], 1-based "start length start length ...".
        source_size: (height, width) that rle speaks of, ints or int tensors.
        size: (height, width) of the masks to draw, ints or int tensors.
        order: "F", where rle counts down the columns, or "C", where it counts along the rows.

    Returns:
        uint8 [..., height, width] of 0 and 1.

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    if _along_rows(order):
        return tf.linalg.matrix_transpose(decode(rle, source_size[::-1], size[::-1]))
    rle = tf.convert_to_tensor(rle, tf.string)
    start, length, row = read_runs(rle, source_size)
    masks = _draw(start, length, row, tf.size(rle, tf.int64), source_size, size)
    return tf.reshape(masks, tf.concat([tf.shape(rle, tf.int64), split_size(size)], axis=0))


def draw(runs, count, source_size, size):
    """Draws masks from runs that need no parsing and no checks; equal to `decode` of their strings.

    Args:
        runs: int32 or int64 [R, 3]: mask (0 to count - 1), 0-based column-major start, length;
            sorted, and each inside source_size, as `parse` has made sure of before. int32 takes
            half the time; it is enough where no area, nor twice the product of two sides, reaches
            2^31.
        count: number of masks.
        source_size: (height, width) that runs speaks of, ints or int tensors.
        size: (height, width) of the masks to draw, ints or int tensors.

    Returns:
        uint8 [count, height, width] of 0 and 1.
    """
    row, start, length = tf.unstack(runs, num=3, axis=1)
    return _draw(start, length, row, count, source_size, size)


def _draw(start, length, row, count, source_size, size):
    """Runs [R] -> uint8 [count, height, width]."""
    dtype = start.dtype
    source_width = tf.cast(split_size(source_size)[1], dtype)
    height, width = tf.unstack(tf.cast(size, dtype), num=2)
    count = tf.cast(count, dtype)
    # A wider target shows columns of the source several times; they are drawn once.
    drawn = tf.minimum(width, source_width)
    start, end = _sample([start, start + length], source_size, [height, drawn])
    steps = count_up(
        row * drawn * height + start,
        row * drawn * height + end,
        tf.zeros_like(start, tf.int32),
        count * drawn * height,
    )
    masks = tf.reshape(tf.cast(steps >= 0, tf.uint8), tf.stack([count, drawn, height]))
    masks = tf.cond(
        width > drawn,
        lambda: tf.gather(masks, (2 * tf.range(width) + 1) * source_width // (2 * width), axis=1),
        lambda: masks,
    )
    return tf.linalg.matrix_transpose(masks)


def resize(rle, source_size, size):
    """Resizes masks by nearest neighbour at pixel centres, without drawing them.

    Args:
        rle: string [...], run-length encodings.
        source_size: (height, width) that rle speaks of, ints or int tensors.
        size: (height, width) of the result, ints or int tensors.

    Returns:
        String [...], canonical: encode(decode(rle, source_size, size)), in time O(runs) where the
        result is not wider than its source.

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    rle = tf.convert_to_tensor(rle, tf.string)

    def sample_runs():
        start, length, row = read_runs(rle, source_size)
        start, end = _sample([start, start + length], source_size, size)
        runs = (tf.boolean_mask(x, end > start) for x in (start, end - start, row))
        return write_runs(*merge_runs(*runs), tf.shape(rle, tf.int64))

    return tf.cond(
        split_size(size)[1] <= split_size(source_size)[1],
        sample_runs,
        lambda: encode(decode(rle, source_size, size)),
    )


def _sample(positions, source_size, size):
    """How many samples of a target, no wider than its source, stand before positions in that."""
    dtype = positions[0].dtype
    source_height, source_width = tf.unstack(tf.cast(source_size, dtype), num=2)
    height, width = tf.unstack(tf.cast(size, dtype), num=2)

    def before(position):
        x, y = position // source_height, position % source_height
        columns = _samples_before(x, source_width, width)
        in_column = _samples_before(x + 1, source_width, width) - columns
        return columns * height + in_column * _samples_before(y, source_height, height)

    return [before(position) for position in positions]


def _samples_before(position, source, target):
    """How many of the target's samples along one side stand before a position of the source.

    Sample i stands at floor((2 i + 1) source / (2 target)); before p are those with
    i < target p / source - 1 / 2.
    """
    return (2 * target * position + source - 1) // (2 * source)


def coverage(rle, source_size, size, order="F"):
    """Gives the fraction of each target cell that the mask covers.

    Equal to the area average of the masks of source_size, at ratios that are no whole numbers too,
    and counted in whole numbers. Those masks are never made: the time is O(runs + target pixels).

    Args:
        rle: string [...], 1-based "start length start length ...".
        source_size: (height, width) that rle speaks of, ints or int tensors.
        size: (height, width) of the result, ints or int tensors.
        order: "F", where rle counts down the columns, or "C", where it counts along the rows.

    Returns:
        float32 [..., height, width], 0 to 1.

    Raises:
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    if _along_rows(order):
        return tf.linalg.matrix_transpose(coverage(rle, source_size[::-1], size[::-1]))
    rle = tf.convert_to_tensor(rle, tf.string)
    start, length, row = read_runs(rle, source_size)
    source_height, source_width = split_size(source_size)
    height, width = split_size(size)

    # A run is what follows its start less what follows its end; what follows the pixel (y, x) are
    # three quadrants (all that is not above y and not left of x):
    # those of (y, x) and (0, x + 1), less that of (y, x + 1).
    position = tf.concat([start, start + length], axis=0)
    sign = tf.concat([tf.ones_like(start), -tf.ones_like(start)], axis=0)
    y, x = position % source_height, position // source_height
    beside = tf.minimum(x + 1, source_width)
    y = tf.concat([y, tf.zeros_like(y), y], axis=0)
    x = tf.concat([x, beside, beside], axis=0)
    sign = tf.concat([sign, sign, -sign], axis=0)
    row = tf.tile(row, [6])

    # A quadrant is the sum from the upper left of four numbers at its corner. The unit of area
    # makes them whole: a target cell has source_height * source_width.
    i, lower = y * height // source_height, y * height % source_height
    j, right = x * width // source_width, x * width % source_width
    shape = tf.stack([tf.size(rle, tf.int64), height + 1, width + 2])
    corner = (row * shape[1] + i) * shape[2] + j
    corners = tf.concat([corner, corner + 1, corner + shape[2], corner + shape[2] + 1], axis=0)
    upper, left = source_height - lower, source_width - right
    areas = tf.concat([upper * left, upper * right, lower * left, lower * right], axis=0)
    areas *= tf.tile(sign, [4])
    covered = tf.reshape(
        tf.math.unsorted_segment_sum(areas, corners, tf.reduce_prod(shape)), shape
    )[:, :-1, :-2]
    covered = tf.cumsum(tf.cumsum(covered, axis=1), axis=2)
    fraction = tf.cast(covered, tf.float32) / tf.cast(source_height * source_width, tf.float32)
    return tf.reshape(fraction, tf.concat([tf.shape(rle, tf.int64), [height, width]], axis=0))


def encode(mask, order="F"):
    """Writes masks as canonical run-length encodings: of maximal runs, with single spaces.

    Args:
        mask: integer or bool [..., height, width]; whatever is not 0 belongs to the mask.
        order: "F" to count down the columns, or "C" to count along the rows.

    Returns:
        String [...], 1-based "start length start length ..."; "" for an empty mask.
    """
    mask = tf.convert_to_tensor(mask)
    if _along_rows(order):
        mask = tf.linalg.matrix_transpose(mask)
    return write_runs(*find_runs(mask), tf.shape(mask, tf.int64)[:-2])


def find_runs(mask):
    """Integer or bool masks [..., H, W] -> maximal runs: start, length, row [R]."""
    if not (mask.dtype.is_integer or mask.dtype.is_bool):
        raise TypeError(f"mask of dtype {mask.dtype.name}, expected an integer or bool")
    shape = tf.shape(mask, tf.int64)
    height, width = shape[-2], shape[-1]
    count = tf.reduce_prod(shape[:-2])
    # Each pixel is compared with the one before it, in column-major order, where it lies: sorting
    # the few places that differ takes less time than transposing the masks.
    pixels = tf.reshape(tf.cast(mask, tf.bool), tf.stack([count, height, width]))
    pixels = tf.cast(pixels, tf.uint8)
    above = tf.pad(pixels[:, -1:, :-1], [[0, 0], [0, 0], [1, 0]])
    before = tf.concat([above, pixels[:, :-1]], axis=1)
    place = tf.where(tf.reshape(pixels != before, [-1]))[:, 0]
    row, y, x = place // (height * width), place // width % height, place % width
    # Masks that reach their last pixel end behind it.
    full = tf.where(pixels[:, -1, -1] != 0)[:, 0]
    area = height * width + 1
    edges = tf.concat([row * area + x * height + y, full * area + area - 1], axis=0)
    start, end = tf.unstack(tf.reshape(tf.sort(edges), [-1, 2]), axis=1)
    return start % area, end - start, start // area


def _along_rows(order):
    if order not in ("F", "C"):
        raise ValueError(f"order {order!r}, expected 'F' or 'C'")
    return order == "C"
