"""Conversion to and from the run-length encodings of COCO.

COCO lists the lengths of runs through the column-major mask, alternating between outside and inside
and starting outside. A compressed string has each count, from the fourth on as the difference from
the count two places before, in groups of 5 bits, lowest first, as characters from "0" (48) on. Bit
32 marks that more groups follow; bit 16 of the last group is the sign.
"""

from __future__ import annotations

from typing import Union

import numpy.typing as npt
import tensorflow as tf

from clouds_tf.rle.runs import (
    Size,
    count_below,
    expand,
    index_in_row,
    merge_runs,
    shift,
    split_size,
    to_ragged,
)
from clouds_tf.rle.text import (
    Strings,
    printable,
    raise_faults,
    read_runs,
    to_strings,
    write_runs,
)

_LONGEST = 7  # characters of a count below 2^32, COCO's limit


def to_coco_counts(rle: Strings, size: Size) -> Union[tf.Tensor, tf.RaggedTensor]:
    """Converts run-length encodings to COCO's lists of counts.

    Args:
        rle: string [...], run-length encodings.
        size: (height, width) of the masks, ints or int tensors.

    Returns:
        int64 RaggedTensor [..., C] (a Tensor where rle is a scalar).

    Raises:
        ValueError: size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    rle = to_strings(rle)
    return to_ragged(*_to_counts(rle, size), tf.shape(rle, tf.int64))


def from_coco_counts(
    counts: Union[npt.ArrayLike, tf.Tensor, tf.RaggedTensor], size: Size
) -> tf.Tensor:
    """Converts COCO's lists of counts to run-length encodings.

    Args:
        counts: int Tensor, nested list or RaggedTensor [..., C], ragged only in C.
        size: (height, width) of the masks, ints or int tensors.

    Returns:
        String [...], canonical run-length encodings.

    Raises:
        tf.errors.InvalidArgumentError: names the index of the first list with a negative count, or
            whose sum is not the area of the mask.
    """
    if isinstance(counts, tf.RaggedTensor):
        shape = counts.bounding_shape(out_type=tf.int64)[:-1]
        rows = counts.merge_dims(0, -2) if counts.shape.rank > 2 else counts
        values, row = rows.values, _row_ids(rows)
    else:
        counts = tf.convert_to_tensor(counts)
        shape = tf.shape(counts, tf.int64)[:-1]
        values = tf.reshape(counts, [-1])
        row = tf.repeat(tf.range(tf.reduce_prod(shape)), tf.shape(counts)[-1])
    return _from_counts("counts", tf.cast(values, tf.int64), row, shape, size)


def to_coco_string(rle: Strings, size: Size) -> tf.Tensor:
    """Converts run-length encodings to COCO's compressed strings.

    Args:
        rle: string [...], run-length encodings.
        size: (height, width) of the masks, ints or int tensors.

    Returns:
        String [...], as pycocotools writes them.

    Raises:
        ValueError: size is not (height, width), or rle has elements that are not strings.
        tf.errors.InvalidArgumentError: as `parse` does.
    """
    rle = to_strings(rle)
    shape = tf.shape(rle, tf.int64)
    counts, row = _to_counts(rle, size)
    before = shift(shift(counts, 0), 0)
    number = tf.where(index_in_row(row) > 2, counts - before, counts)[:, tf.newaxis]

    place = 5 * tf.range(_LONGEST + 2, dtype=tf.int64)
    group = tf.bitwise.right_shift(number, place) & 31
    rest = tf.bitwise.right_shift(number, place + 5)
    more = tf.not_equal(rest, tf.where(group < 16, tf.zeros_like(rest), -tf.ones_like(rest)))
    written = tf.concat([tf.ones_like(more[:, :1]), more[:, :-1]], axis=1)
    character = tf.cast(group, tf.int32) + tf.where(more, 32 + 48, 48)
    characters = tf.RaggedTensor.from_value_rowids(
        tf.boolean_mask(character, written),
        tf.gather(row, tf.where(written)[:, 0]),
        tf.reduce_prod(shape),
        validate=False,
    )
    return tf.reshape(tf.strings.unicode_encode(characters, "UTF-8"), shape)


def from_coco_string(string: Strings, size: Size) -> tf.Tensor:
    """Converts COCO's compressed strings to run-length encodings.

    Args:
        string: string [...], without missing values.
        size: (height, width) of the masks, ints or int tensors.

    Returns:
        String [...], canonical run-length encodings.

    Raises:
        tf.errors.InvalidArgumentError: names the index of the first string that is not a list of
            numbers, and as `from_coco_counts` does.
        ValueError: size is not (height, width), or an element is missing or not a string.
    """
    string = to_strings(string, "string", allow_missing=False)
    shape = tf.shape(string, tf.int64)
    string = tf.reshape(string, [-1])
    characters = tf.strings.unicode_decode(string, "UTF-8")
    row = _row_ids(characters)
    bits = tf.cast(characters.values, tf.int64) - 48
    more = tf.not_equal(bits & 32, 0)
    number = tf.cumsum(tf.cast(~more, tf.int64), exclusive=True)
    place = index_in_row(number)

    # A number must end in its own string.
    next_row = tf.concat([row, [-1]], axis=0)[1:]
    wrong = (bits < 0) | (bits > 63) | (place >= _LONGEST) | (more & tf.not_equal(row, next_row))
    is_wrong = tf.math.unsorted_segment_max(tf.cast(wrong, tf.int32), row, tf.size(string)) > 0
    expected = f": expected characters from 0 to o, at most {_LONGEST} for a count"
    sentences = tf.where(is_wrong, tf.strings.join([printable(string), expected]), "")
    bits, place, number = raise_faults("string", sentences, shape, [bits, place, number])

    value = tf.bitwise.left_shift(bits & 31, 5 * place)
    sign = tf.where(bits & 48 == 16, tf.bitwise.left_shift(-tf.ones_like(bits), 5 * place + 5), 0)
    row = tf.boolean_mask(row, ~more)
    counts = tf.math.segment_sum(value + sign, number)

    # Each count but the first ones is stored as the difference from the one two places before.
    index = index_in_row(row)
    turn = tf.equal(index[:, tf.newaxis] % 2, [0, 1])
    steps = tf.where(turn & (index > 0)[:, tf.newaxis], counts[:, tf.newaxis], 0)
    sums = tf.cumsum(steps, axis=0)
    sums -= tf.gather(tf.concat([[[0, 0]], sums], axis=0), count_below(row, row))
    sums = tf.reduce_sum(tf.where(turn, sums, 0), axis=1)
    counts = tf.where(tf.equal(index, 0), counts, sums)
    return _from_counts("string", counts, row, shape, size)


def _row_ids(ragged: tf.RaggedTensor) -> tf.Tensor:
    """Index of the row of each value of a RaggedTensor [N, None], int64 [V]."""
    lengths = tf.cast(ragged.row_lengths(), tf.int64)
    return expand(tf.zeros_like(lengths), lengths)[1]


def _to_counts(rle: tf.Tensor, size: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Strings [...] -> counts [C] and the row of each."""
    start, length, row = merge_runs(*read_runs(rle, size))
    area = tf.reduce_prod(split_size(size))
    # A mask ends with an edge even if no run reaches its last pixel.
    masks = tf.range(tf.size(rle, tf.int64))
    last = tf.math.unsorted_segment_max(start + length, row, tf.size(masks))
    ends = tf.boolean_mask(masks, last < area) * (area + 1) + area
    # Sorted on one line, on which each mask takes one position more than its pixels.
    start += row * (area + 1)
    edges = tf.sort(tf.concat([start, start + length, ends], axis=0))
    row = edges // (area + 1)
    return edges - tf.where(tf.equal(row, shift(row, -1)), shift(edges, 0), row * (area + 1)), row


def _from_counts(
    name: str, counts: tf.Tensor, row: tf.Tensor, shape: tf.Tensor, size: Size
) -> tf.Tensor:
    """Counts [C] of the argument called name, and the row of each -> strings [*shape]."""
    join, text = tf.strings.join, tf.strings.as_string
    area = tf.reduce_prod(split_size(size))
    sums = tf.math.unsorted_segment_sum(counts, row, tf.reduce_prod(shape))
    sentences = tf.where(
        tf.equal(sums, area), "", join(["sum ", text(sums), ", expected ", text(area)])
    )
    # Single counts are checked too, because the sum of huge counts may overflow.
    wrong = tf.where((counts < 0) | (counts > area))[:, 0]
    sentences = tf.tensor_scatter_nd_update(
        sentences,
        tf.gather(row, wrong)[:, tf.newaxis],
        join(["count ", text(tf.gather(counts, wrong)), ", expected 0 to ", text(area)]),
    )
    counts, row = raise_faults(name, sentences, shape, [counts, row])
    end = tf.cumsum(counts) - row * area
    inside = (index_in_row(row) % 2 == 1) & (counts > 0)
    runs = (tf.boolean_mask(x, inside) for x in (end - counts, counts, row))
    return write_runs(*merge_runs(*runs), shape)
