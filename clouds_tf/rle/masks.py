"""Conversion between strings and masks, at any size."""

from __future__ import annotations

from typing import Union

import tensorflow as tf

from clouds_tf.rle.runs import Runs, Size, count_up, merge_runs, split_size
from clouds_tf.rle.text import Strings, read_runs, to_strings, write_runs

# Whether runs count along the rows; F and C are names of earlier versions.
_ORDERS = {"columns": False, "rows": True, "F": False, "C": True}


def decode(rle: Strings, source_size: Size, size: Size, order: str = "columns") -> tf.Tensor:
    """Draws masks at any size.

    The result equals the masks of source_size resized by nearest neighbour at pixel centres: target
    row i shows source row floor((i + 0.5) * H / h). The full-size masks are never made; the time is
    O(runs + target pixels).

    >>> from clouds_tf import rle
    >>> rle.decode("1 3 8 2", source_size=(3, 4), size=(3, 4)).numpy()
    array([[1, 0, 0, 0],
           [1, 0, 1, 0],
           [1, 0, 1, 0]], dtype=uint8)
    >>> rle.decode(["1 3 8 2", None], source_size=(3, 4), size=(1, 2)).numpy().tolist()
    [[[0, 0]], [[0, 0]]]

    Args:
        rle: string [...], 1-based "start length start length ..."; a column of pandas too. Missing
            values are empty masks.
        source_size: (height, width) of the masks that rle encodes, ints or int tensors.
        size: (height, width) of the masks to draw, ints or int tensors.
        order: "columns" if runs count down the columns, "rows" if they count along the rows.

    Returns:
        uint8 [..., height, width] of 0 and 1.

    Raises:
        ValueError: a size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    source_size, size = split_size(source_size, "source_size"), split_size(size)
    if _along_rows(order):
        return tf.linalg.matrix_transpose(decode(rle, source_size[::-1], size[::-1]))
    rle = to_strings(rle)
    start, length, row = read_runs(rle, source_size)
    masks = _draw(start, length, row, tf.size(rle, tf.int64), source_size, size)
    return tf.reshape(masks, tf.concat([tf.shape(rle, tf.int64), size], axis=0))


def draw(runs: tf.Tensor, count: Union[int, tf.Tensor], source_size: Size, size: Size) -> tf.Tensor:
    """Draws masks from runs that are known to be valid; equal to `decode` of their strings.

    Args:
        runs: int32 or int64 [R, 3]: mask (0 to count - 1), 0-based column-major start, length;
            sorted and inside source_size, which is not checked again. int32 takes half the time;
            it suffices if no area, nor twice the product of two sides, reaches 2^31.
        count: number of masks.
        source_size: (height, width) of the masks that runs describe, ints or int tensors.
        size: (height, width) of the masks to draw, ints or int tensors.

    Returns:
        uint8 [count, height, width] of 0 and 1.

    Raises:
        ValueError: a size is not (height, width).
    """
    source_size, size = split_size(source_size, "source_size"), split_size(size)
    row, start, length = tf.unstack(runs, num=3, axis=1)
    return _draw(start, length, row, count, source_size, size)


def draw_words(runs: tf.Tensor, count: int, source_size: Size, size: Size) -> tf.Tensor:
    """Draws masks like `draw`, four in each 32-bit word, in half the time.

    Args:
        runs: int32 [R, 3], see `draw`; areas are below 2^27.
        count: number of masks.
        source_size: (height, width) of the masks that runs describe, ints or int tensors.
        size: (height, width) of the masks to draw, ints or int tensors.

    Returns:
        int32 [ceil(count / 4), height, width]; byte k of word i, from the lowest, is a pixel of
        mask 4 i + k, 0 or 1.
    """
    source_size, size = split_size(source_size, "source_size"), split_size(size)
    drawn, (height, width) = _drawn(source_size, size, tf.int32)
    row, start, length = tf.unstack(runs, num=3, axis=1)
    start, end = _sample([start, start + length], source_size, [height, drawn])
    row, start, end = (tf.boolean_mask(x, start < end) for x in (row, start, end))
    # The edges of the runs of four masks, in order, and which of them are in a run after each.
    line = row // 4 * (drawn * height)
    bit = tf.bitwise.left_shift(1, row % 4)
    edges, changes = tf.concat([line + start, line + end], 0), tf.concat([bit, -bit], 0)
    order, last = tf.argsort(edges), -(-count // 4) * drawn * height
    edges = tf.concat([[0], tf.gather(edges, order), [last]], 0)
    inside = tf.concat([[0], tf.cumsum(tf.gather(changes, order))], 0)
    # As in `count_up`, a single kernel fills the line: the lower 27 bits count.
    base = tf.bitwise.left_shift(inside, 27)
    pixels = tf.ragged.range(base, base + edges[1:] - edges[:-1]).values
    bits = tf.bitwise.right_shift(pixels, 27)
    words = tf.bitwise.bitwise_and(bits * 0x00204081, 0x01010101)  # bit k to byte k
    words = tf.reshape(words, tf.stack([-(-count // 4), drawn, height]))
    return tf.linalg.matrix_transpose(_repeat_columns(words, source_size[1], width))


def _drawn(source_size: Size, size: Size, dtype: tf.DType) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Number of columns to draw, and [height, width]; wider targets repeat source columns."""
    height, width = tf.unstack(tf.cast(size, dtype), num=2)
    return tf.minimum(width, tf.cast(source_size[1], dtype)), [height, width]


def _repeat_columns(masks: tf.Tensor, source_width: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Widens transposed masks [N, drawn, height] to [N, width, height]."""
    source_width = tf.cast(source_width, width.dtype)
    return tf.cond(
        width > source_width,
        lambda: tf.gather(masks, (2 * tf.range(width) + 1) * source_width // (2 * width), axis=1),
        lambda: masks,
    )


def _draw(
    start: tf.Tensor,
    length: tf.Tensor,
    row: tf.Tensor,
    count: Union[int, tf.Tensor],
    source_size: Size,
    size: Size,
) -> tf.Tensor:
    """Runs [R] -> uint8 [count, height, width]."""
    dtype = start.dtype
    count = tf.cast(count, dtype)
    drawn, (height, width) = _drawn(source_size, size, dtype)
    start, end = _sample([start, start + length], source_size, [height, drawn])
    steps = count_up(
        row * drawn * height + start,
        row * drawn * height + end,
        tf.zeros_like(start, tf.int32),
        count * drawn * height,
    )
    masks = tf.reshape(tf.cast(steps >= 0, tf.uint8), tf.stack([count, drawn, height]))
    return tf.linalg.matrix_transpose(_repeat_columns(masks, source_size[1], width))


def resize(rle: Strings, source_size: Size, size: Size, order: str = "columns") -> tf.Tensor:
    """Resizes masks by nearest neighbour at pixel centres, without drawing them.

    >>> from clouds_tf import rle
    >>> rle.resize("1 3 8 2", source_size=(3, 4), size=(6, 8)).numpy()
    b'1 12 27 4 33 4'

    Args:
        rle: string [...], run-length encodings.
        source_size: (height, width) of the masks that rle encodes, ints or int tensors.
        size: (height, width) of the result, ints or int tensors.
        order: "columns" if runs count down the columns, "rows" if they count along the rows.

    Returns:
        String [...], canonical: encode(decode(rle, source_size, size)), in time O(runs) if the
        result has no more columns (under "rows": rows) than its source.

    Raises:
        ValueError: a size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    source_size, size = split_size(source_size, "source_size"), split_size(size)
    if _along_rows(order):  # rows are the columns of the transposed mask
        source_size, size = source_size[::-1], size[::-1]
    rle = to_strings(rle)

    def sample_runs() -> tf.Tensor:
        start, length, row = read_runs(rle, source_size)
        start, end = _sample([start, start + length], source_size, size)
        runs = (tf.boolean_mask(x, end > start) for x in (start, end - start, row))
        return write_runs(*merge_runs(*runs), tf.shape(rle, tf.int64))

    return tf.cond(
        size[1] <= source_size[1], sample_runs, lambda: encode(decode(rle, source_size, size))
    )


def _sample(positions: list[tf.Tensor], source_size: Size, size: Size) -> list[tf.Tensor]:
    """Number of target samples that precede each source position; the target is no wider."""
    dtype = positions[0].dtype
    source_height, source_width = tf.unstack(tf.cast(source_size, dtype), num=2)
    height, width = tf.unstack(tf.cast(size, dtype), num=2)

    def before(position: tf.Tensor) -> tf.Tensor:
        x, y = position // source_height, position % source_height
        columns = _samples_before(x, source_width, width)
        in_column = _samples_before(x + 1, source_width, width) - columns
        return columns * height + in_column * _samples_before(y, source_height, height)

    return [before(position) for position in positions]


def _samples_before(position: tf.Tensor, source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Number of target samples along one side that precede a source position.

    Sample i lies at floor((2 i + 1) source / (2 target)), so that position p is preceded by the
    samples with i < target p / source - 1 / 2.
    """
    return (2 * target * position + source - 1) // (2 * source)


def coverage(rle: Strings, source_size: Size, size: Size, order: str = "columns") -> tf.Tensor:
    """Computes the fraction of each target cell that the mask covers.

    The result is the area average of the masks of source_size, also for fractional ratios, and is
    exact, as it is summed in integers. The full-size masks are never made; the time is
    O(runs + target pixels).

    Args:
        rle: string [...], 1-based "start length start length ...".
        source_size: (height, width) of the masks that rle encodes, ints or int tensors.
        size: (height, width) of the result, ints or int tensors.
        order: "columns" if runs count down the columns, "rows" if they count along the rows.

    Returns:
        float32 [..., height, width], 0 to 1.

    Raises:
        ValueError: a size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    source_height, source_width = split_size(source_size, "source_size")
    height, width = split_size(size)
    if _along_rows(order):
        transposed = coverage(rle, (source_width, source_height), (width, height))
        return tf.linalg.matrix_transpose(transposed)
    rle = to_strings(rle)
    start, length, row = read_runs(rle, source_size)

    # A run is everything from its start on, minus everything from its end on. Everything from the
    # pixel (y, x) on, column-major, is the sum of quadrants (pixels neither above y nor left of x):
    # the quadrants of (y, x) and (0, x + 1), minus the quadrant of (y, x + 1).
    position = tf.concat([start, start + length], axis=0)
    sign = tf.concat([tf.ones_like(start), -tf.ones_like(start)], axis=0)
    y, x = position % source_height, position // source_height
    beside = tf.minimum(x + 1, source_width)
    y = tf.concat([y, tf.zeros_like(y), y], axis=0)
    x = tf.concat([x, beside, beside], axis=0)
    sign = tf.concat([sign, sign, -sign], axis=0)
    row = tf.tile(row, [6])

    # A quadrant is the cumulative sum of four numbers at its corner. In this unit of area they are
    # integers: a target cell measures source_height * source_width.
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


def encode(mask: tf.Tensor, order: str = "columns") -> tf.Tensor:
    """Writes masks as canonical run-length encodings: maximal runs, single spaces.

    >>> from clouds_tf import rle
    >>> rle.encode([[1, 0, 0], [1, 0, 1]]).numpy()
    b'1 2 6 1'
    >>> rle.encode([[1, 0, 0], [1, 0, 1]], order="rows").numpy()
    b'1 1 4 1 6 1'

    Args:
        mask: integer or bool [..., height, width]; nonzero pixels belong to the mask.
        order: "columns" to count down the columns, "rows" to count along the rows.

    Returns:
        String [...], 1-based "start length start length ..."; "" for an empty mask.

    Raises:
        TypeError: the mask is neither integer nor bool.
        ValueError: the mask has fewer than two dimensions.
    """
    mask = tf.convert_to_tensor(mask)
    if _along_rows(order):
        mask = tf.linalg.matrix_transpose(mask)
    return write_runs(*find_runs(mask), tf.shape(mask, tf.int64)[:-2])


def find_runs(mask: tf.Tensor) -> Runs:
    """Integer or bool masks [..., H, W] -> maximal runs: start, length, row [R]."""
    if not (mask.dtype.is_integer or mask.dtype.is_bool):
        raise TypeError(f"mask of dtype {mask.dtype.name}, expected an integer or bool")
    if mask.shape.rank is not None and mask.shape.rank < 2:
        raise ValueError(f"mask: got shape {mask.shape}, expected [..., height, width]")
    shape = tf.shape(mask, tf.int64)
    height, width = shape[-2], shape[-1]
    count = tf.reduce_prod(shape[:-2])
    # Each pixel is compared with its predecessor in column-major order, in place: sorting the few
    # positions that differ takes less time than transposing the masks.
    pixels = tf.reshape(tf.cast(mask, tf.bool), tf.stack([count, height, width]))
    pixels = tf.cast(pixels, tf.uint8)
    above = tf.pad(pixels[:, -1:, :-1], [[0, 0], [0, 0], [1, 0]])
    before = tf.concat([above, pixels[:, :-1]], axis=1)
    place = tf.where(tf.reshape(pixels != before, [-1]))[:, 0]
    row, y, x = place // (height * width), place // width % height, place % width
    # A run that includes the last pixel ends after it.
    full = tf.where(pixels[:, -1, -1] != 0)[:, 0]
    area = height * width + 1
    edges = tf.concat([row * area + x * height + y, full * area + area - 1], axis=0)
    start, end = tf.unstack(tf.reshape(tf.sort(edges), [-1, 2]), axis=1)
    return start % area, end - start, start // area


def _along_rows(order: str) -> bool:
    if order not in _ORDERS:
        raise ValueError(f"order: got {order!r}, expected 'columns' or 'rows'")
    return _ORDERS[order]
