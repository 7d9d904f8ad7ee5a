"""Conversion between strings and runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import numpy as np
import tensorflow as tf

from clouds_tf.rle.runs import Runs, Size, count_below, shift, split_size, to_ragged

# A string, or strings in nested lists, an array, a tensor, or a column of pandas. Outside graphs,
# missing values (None, NaN, pandas.NA) count as "", the encoding of an empty mask.
Strings = Any

# With 12 digits, more than any image needs, no sum of positions over a batch can overflow.
_PAIRS = r"(\s*\d{1,12}\s+\d{1,12}(\s|$))*\s*"
_NUMBERS = r"^(\s*\d{1,12}(\s|$))*\s*"


def to_strings(rle: Strings, name: str = "rle", allow_missing: bool = True) -> tf.Tensor:
    """Converts strings to a tensor; missing values become "".

    Args:
        rle: string [...]: a tensor, array, nested list or pandas column; None, NaN and pandas.NA
            are missing values.
        name: name of the argument, for the message.
        allow_missing: whether missing values are accepted.

    Returns:
        String [...].

    Raises:
        ValueError: names the first element that is not accepted.
    """
    try:
        return tf.convert_to_tensor(rle, tf.string)
    except (TypeError, ValueError):
        # TensorFlow's messages name neither the element nor its value.
        if tf.is_tensor(rle):
            got = f"a tensor of {rle.dtype.name}"
            raise ValueError(f"{name}: got {got}, expected strings") from None
    values = np.asarray(rle, object)
    missing = np.zeros(values.shape, bool)
    for index, value in np.ndenumerate(values):
        missing[index] = _is_missing(value)
        if not isinstance(value, (str, bytes)) and not (missing[index] and allow_missing):
            place = f"[{', '.join(map(str, index))}]" if index else ""
            expected = ", None, NaN or pandas.NA" if allow_missing else "; drop missing values"
            raise ValueError(f"{name}{place}: got {value!r}, expected a string{expected}")
    return tf.convert_to_tensor(np.where(missing, "", values), tf.string)


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    # By name, so that pandas need not be imported.
    return value is None or type(value).__name__ == "NAType"


def faults(rle: Strings, size: Optional[Size] = None) -> tf.Tensor:
    """Describes faults of run-length encodings.

    Args:
        rle: string [...], "start length start length ...", 1-based and column-major.
        size: (height, width) of the masks, ints or int tensors; None does not check it.

    Returns:
        String [...]: "" if the encoding is well formed, which blank ones are; otherwise a
        description of its first fault.
    """
    rle = to_strings(rle)
    *_, sentences = _read(tf.reshape(rle, [-1]), size)
    return tf.reshape(sentences, tf.shape(rle))


def parse(rle: Strings, size: Optional[Size] = None) -> Union[tf.Tensor, tf.RaggedTensor]:
    """Converts run-length encodings to runs.

    Args:
        rle: string [...], "start length start length ...", 1-based and column-major.
        size: (height, width) of the masks, ints or int tensors; None does not check it.

    Returns:
        int64 RaggedTensor [..., R, 2] (a Tensor where rle is a scalar): the 0-based position of
        each run's first pixel, and the run's length in pixels.

    Raises:
        tf.errors.InvalidArgumentError: a string is not well formed; the message has the index of
            the first one, and its fault as `faults` describes it.
    """
    rle = to_strings(rle)
    start, length, row = read_runs(rle, size)
    return to_ragged(tf.stack([start, length], axis=1), row, tf.shape(rle, tf.int64))


def read_runs(rle: tf.Tensor, size: Optional[Size] = None, name: str = "rle") -> Runs:
    """Strings [...] -> start, length, row [R]; raises InvalidArgumentError as `parse` does."""
    *runs, sentences = _read(tf.reshape(rle, [-1]), size)
    start, length, row = raise_faults(name, sentences, tf.shape(rle, tf.int64), runs)
    return start, length, row


def raise_faults(
    name: str, sentences: tf.Tensor, shape: tf.Tensor, tensors: Sequence[tf.Tensor]
) -> list[tf.Tensor]:
    """Returns tensors unchanged if all sentences, string [N] on the argument called name, are "".

    Otherwise, computing the returned tensors raises tf.errors.InvalidArgumentError with the index
    and the text of the first sentence.
    """
    faulty = sentences != ""
    # tf.where does not take scalars, so every shape gets one more axis.
    index = tf.where(tf.reshape(faulty, tf.concat([[1], shape], axis=0)))[:1, 1:]
    index = tf.strings.reduce_join(tf.strings.as_string(index), axis=1, separator=", ")
    message = tf.strings.join([name, "[", index, "]: ", tf.boolean_mask(sentences, faulty)[:1]])
    check = tf.raw_ops.Assert(
        condition=tf.equal(tf.size(message), 0), data=[tf.strings.reduce_join(message)]
    )
    with tf.control_dependencies([check]):
        return [tf.identity(x) for x in tensors]


def printable(text: tf.Tensor) -> tf.Tensor:
    """Cuts each string to the printable part of its first 24 bytes, up to the first blank."""
    # \C is any byte, including those that are not UTF-8 and cannot be part of an error.
    return tf.strings.regex_replace(tf.strings.substr(text, 0, 24), r"^([!-~]*)\C*", r"\1")


def write_runs(start: tf.Tensor, length: tf.Tensor, row: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Writes sorted runs [R] as strings [*shape]; rows count through shape."""
    numbers = tf.strings.as_string(tf.stack([start + 1, length], axis=1))
    rle = tf.strings.unsorted_segment_join(
        tf.reshape(numbers, [-1]), tf.repeat(row, 2), tf.reduce_prod(shape), separator=" "
    )
    return tf.reshape(rle, shape)


def _read(rle: tf.Tensor, size: Optional[Size]) -> tuple[tf.Tensor, ...]:
    """Strings [N] -> start, length, row [R] of the readable ones, and sentences [N]."""
    readable = tf.strings.regex_full_match(rle, _PAIRS)
    tokens = tf.strings.split(tf.where(readable, rle, ""))
    pairs = tf.reshape(tf.strings.to_number(tokens.values, tf.int64), [-1, 2])
    start, length = tf.unstack(pairs, axis=1)
    row = tokens.value_rowids()[::2]

    end = start + length
    least = tf.where(tf.equal(row, shift(row, -1)), shift(end, 1), 1)
    wrong = (length < 1) | (start < least)
    if size is not None:
        wrong |= end > tf.reduce_prod(split_size(size)) + 1

    def describe() -> tf.Tensor:
        pair = tf.where(wrong)[:, 0]
        pair = tf.boolean_mask(pair, tf.gather(row, pair) != shift(tf.gather(row, pair), -1))
        sentences = tf.tensor_scatter_nd_update(
            tf.fill(tf.shape(rle), ""),
            tf.gather(row, pair)[:, tf.newaxis],
            _describe_pairs(pair, start, length, row, least, size),
        )
        return tf.tensor_scatter_nd_update(
            sentences, tf.where(~readable), _describe_text(tf.boolean_mask(rle, ~readable))
        )

    sentences = tf.cond(
        tf.reduce_all(readable) & ~tf.reduce_any(wrong),
        lambda: tf.fill(tf.shape(rle), ""),
        describe,
    )
    return start - 1, length, row, sentences


def _describe_pairs(
    pair: tf.Tensor,
    start: tf.Tensor,
    length: tf.Tensor,
    row: tf.Tensor,
    least: tf.Tensor,
    size: Optional[Size],
) -> tf.Tensor:
    """Describes faults of the runs of index pair [P] -> sentences [P]."""
    join, text = tf.strings.join, tf.strings.as_string
    number = pair - count_below(row, tf.gather(row, pair)) + 1
    start, length, least = (tf.gather(x, pair) for x in (start, length, least))
    problem = tf.where(
        length < 1,
        join(["length ", text(length), ", expected at least 1"]),
        join(["start ", text(start), ", expected at least ", text(least)]),
    )
    if size is not None:
        height, width = split_size(size)
        most = join([text(height * width), " (", text(height), " x ", text(width), ")"])
        beyond = join(["last pixel ", text(start + length - 1), ", expected at most ", most])
        problem = tf.where((length < 1) | (start < least), problem, beyond)
    return join(["pair ", text(number), " (", text(start), " ", text(length), "): ", problem])


def _describe_text(rle: tf.Tensor) -> tf.Tensor:
    """Describes faults of strings [N] that are not pairs of numbers -> sentences [N]."""
    join, text = tf.strings.join, tf.strings.as_string
    rest = tf.strings.regex_replace(rle, _NUMBERS, "", replace_global=False)
    numbers = tf.strings.split(rle).row_lengths() - tf.strings.split(rest).row_lengths()
    return tf.where(
        tf.equal(rest, ""),
        join(["odd count of numbers (", text(numbers), "), expected pairs of start and length"]),
        join(["number ", text(numbers + 1), " (", printable(rest), "): expected 1 to 12 digits"]),
    )
