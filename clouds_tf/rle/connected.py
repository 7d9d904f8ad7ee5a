"""Connected components of masks, found on runs."""

from __future__ import annotations

from typing import Union

import tensorflow as tf

from clouds_tf.rle.masks import find_runs
from clouds_tf.rle.runs import Size, count_below, count_up, expand, split_size, to_ragged
from clouds_tf.rle.text import Strings, read_runs, to_strings


def components(mask: tf.Tensor, connectivity: int = 8) -> tf.Tensor:
    """Numbers the connected components of masks.

    Args:
        mask: integer or bool [..., height, width]; nonzero pixels belong to the mask.
        connectivity: 8 if pixels that touch at a corner are connected, else 4.

    Returns:
        int32 [..., height, width]: 0 outside the mask, and 1, 2, ... in the components, in the
        order of their first pixels, column-major.
    """
    mask = tf.convert_to_tensor(mask)
    shape = tf.shape(mask, tf.int64)
    height, width = shape[-2], shape[-1]
    y, x, length, row, root = _connect(*find_runs(mask), height, width, connectivity)

    number = tf.cumsum(tf.cast(_is_root(root), tf.int64))
    number -= tf.gather(tf.concat([[0], number], axis=0), count_below(row, row))
    # Each pixel of a run counts up from the number in the upper half, so the upper half keeps it.
    place = (row * width + x) * height + y
    base = tf.bitwise.left_shift(tf.gather(number - 1, root), 32)
    steps = count_up(place, place + length, base, tf.size(mask, tf.int64))
    labels = tf.cast(tf.bitwise.right_shift(steps, 32) + 1, tf.int32)
    labels = tf.reshape(labels, tf.concat([shape[:-2], [width, height]], axis=0))
    return tf.linalg.matrix_transpose(labels)


def component_areas(
    rle: Strings, size: Size, connectivity: int = 8
) -> Union[tf.Tensor, tf.RaggedTensor]:
    """Counts the pixels of each connected component of masks.

    Args:
        rle: string [...], run-length encodings.
        size: (height, width) of the masks, ints or int tensors.
        connectivity: 8 if pixels that touch at a corner are connected, else 4.

    Returns:
        int64 RaggedTensor [..., C] (a Tensor where rle is a scalar), in the order of the
        components' first pixels, column-major.

    Raises:
        ValueError: size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    height, width = split_size(size)
    rle = to_strings(rle)
    runs = read_runs(rle, (height, width))
    _, _, length, row, root = _connect(*runs, height, width, connectivity)
    areas = tf.math.unsorted_segment_sum(length, root, tf.size(root))
    is_root = _is_root(root)
    return to_ragged(
        tf.boolean_mask(areas, is_root), tf.boolean_mask(row, is_root), tf.shape(rle, tf.int64)
    )


def remove_small(
    mask: tf.Tensor, min_area: Union[int, tf.Tensor], connectivity: int = 8
) -> tf.Tensor:
    """Removes the connected components of fewer than min_area pixels.

    Args:
        mask: integer or bool [..., height, width]; nonzero pixels belong to the mask.
        min_area: int, or an int tensor that broadcasts to [...], such as one area per class.
        connectivity: 8 if pixels that touch at a corner are connected, else 4.

    Returns:
        The mask in its own dtype, 0 in removed components.
    """
    mask = tf.convert_to_tensor(mask)
    shape = tf.shape(mask, tf.int64)
    height, width = shape[-2], shape[-1]
    y, x, length, row, root = _connect(*find_runs(mask), height, width, connectivity)

    areas = tf.gather(tf.math.unsorted_segment_sum(length, root, tf.size(root)), root)
    min_area = tf.reshape(tf.broadcast_to(tf.cast(min_area, tf.int64), shape[:-2]), [-1])
    is_small = areas < tf.gather(min_area, row)
    y, x, length, row = (tf.boolean_mask(v, is_small) for v in (y, x, length, row))
    rows, index = expand(y, y + length)
    place = (tf.gather(row, index) * height + rows) * width + tf.gather(x, index)
    pixels = tf.tensor_scatter_nd_update(
        tf.reshape(mask, [-1]), place[:, tf.newaxis], tf.zeros_like(place, mask.dtype)
    )
    return tf.reshape(pixels, shape)


def fill_holes(mask: tf.Tensor) -> tf.Tensor:
    """Fills the holes of masks: background without a 4-connected path to the image border.

    Args:
        mask: integer or bool [..., height, width]; nonzero pixels belong to the mask.

    Returns:
        bool [..., height, width].
    """
    mask = tf.convert_to_tensor(mask)
    frame = [[0, 0]] * (mask.shape.rank - 2) + [[1, 1]] * 2
    outside = tf.pad(~tf.cast(mask, tf.bool), frame, constant_values=True)
    # The first pixel belongs to the frame, so component 1 is the outside.
    return components(outside, connectivity=4)[..., 1:-1, 1:-1] != 1


def fill_boxes(mask: tf.Tensor, connectivity: int = 8) -> tf.Tensor:
    """Fills the bounding rectangle of each connected component of masks.

    Args:
        mask: integer or bool [..., height, width]; nonzero pixels belong to the mask.
        connectivity: 8 if pixels that touch at a corner are connected, else 4.

    Returns:
        bool [..., height, width].
    """
    mask = tf.convert_to_tensor(mask)
    shape = tf.shape(mask, tf.int64)
    height, width = shape[-2], shape[-1]
    y, x, length, row, root = _connect(*find_runs(mask), height, width, connectivity)

    is_root = _is_root(root)
    count = tf.size(root)
    top, left = (
        tf.boolean_mask(tf.math.unsorted_segment_min(v, root, count), is_root) for v in (y, x)
    )
    bottom, right = (
        tf.boolean_mask(tf.math.unsorted_segment_max(v, root, count), is_root)
        for v in (y + length, x + 1)
    )
    row = tf.boolean_mask(row, is_root)
    # A rectangle is the cumulative sum of 1 and -1 at its corners.
    corners = [
        tf.stack([row, *corner], axis=1)
        for corner in ((top, left), (bottom, right), (top, right), (bottom, left))
    ]
    one = tf.ones_like(row, tf.int32)
    steps = tf.scatter_nd(
        tf.concat(corners, axis=0),
        tf.concat([one, one, -one, -one], axis=0),
        tf.stack([tf.reduce_prod(shape[:-2]), height + 1, width + 1]),
    )
    covering = tf.cumsum(tf.cumsum(steps, axis=1), axis=2)[:, :-1, :-1]
    return tf.reshape(covering > 0, shape)


def _connect(
    start: tf.Tensor,
    length: tf.Tensor,
    row: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    connectivity: int,
) -> list[tf.Tensor]:
    """Splits runs [R] at column ends and finds the pieces that are connected.

    Returns, int64 [S] each, y, x, length and row of each piece, and its root: the index of the
    first piece of its component.
    """
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity: got {connectivity!r}, expected 4 or 8")
    end = start + length
    x, run = expand(start // height, (end - 1) // height + 1)
    y = tf.maximum(tf.gather(start, run) - x * height, 0)
    length = tf.minimum(tf.gather(end, run) - x * height, height) - y
    row = tf.gather(row, run)

    # All pixels on one line. An empty pixel after each column and an empty column after each mask
    # make sure that a shift by one column overlaps only neighbouring columns of the same mask.
    column = height + 1
    start = (row * (width + 1) + x) * column + y
    end = start + length
    reach = 1 if connectivity == 8 else 0
    right, left = expand(
        count_below(end, start + column - reach + 1), count_below(start, end + column + reach)
    )

    # Each round attaches the larger root of each pair of neighbours to the smaller one, then halves
    # the paths to the roots, until all neighbours agree (Shiloach and Vishkin, 1982).
    def disagree(root: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(tf.gather(root, left) != tf.gather(root, right))

    def hook_and_jump(root: tf.Tensor) -> list[tf.Tensor]:
        a, b = tf.gather(root, left), tf.gather(root, right)
        root = tf.tensor_scatter_nd_min(root, tf.maximum(a, b)[:, tf.newaxis], tf.minimum(a, b))
        root = tf.gather(root, root)
        return [tf.gather(root, root)]

    pieces = tf.range(tf.size(start, tf.int64))
    return [y, x, length, row, *tf.while_loop(disagree, hook_and_jump, [pieces])]


def _is_root(root: tf.Tensor) -> tf.Tensor:
    return tf.equal(root, tf.range(tf.size(root, tf.int64)))
