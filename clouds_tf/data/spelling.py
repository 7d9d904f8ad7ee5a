"""Conversion between the run-length format of a data set and that of `clouds_tf.rle`.

The plain format, which the rest of the code uses, has absolute starts that count from 1, in the
order of the data set.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from clouds_tf import rle
from clouds_tf.dataset import Dataset


def is_plain(dataset: Dataset) -> bool:
    """Whether the data set uses the format of `clouds_tf.rle`."""
    return dataset.rle_start == 1 and dataset.rle_runs == "absolute"


def to_plain(text: str, dataset: Dataset) -> str:
    """Converts the format of a data set to the plain one.

    A text that is not pairs of numbers is returned unchanged; `rle.faults` describes its fault.

    >>> from clouds_tf.dataset import CLOUDS
    >>> import dataclasses
    >>> relative = dataclasses.replace(CLOUDS, rle_start=0, rle_runs="relative")
    >>> to_plain("4 2 3 1", relative), from_plain("5 2 10 1", relative)
    ('5 2 10 1', '4 2 3 1')
    """
    words = text.split()
    if len(words) % 2 or not all(word.isdecimal() and len(word) < 13 for word in words):
        return text
    start, length = _read_runs(text)
    if dataset.rle_runs == "relative":
        start = np.cumsum(start + length) - length
    return write_runs(start + 1 - dataset.rle_start, length)


def from_plain(text: str, dataset: Dataset) -> str:
    """Converts a plain run-length encoding to the format of a data set, the inverse of `to_plain`.

    A blank one becomes the data set's word for an absent class.
    """
    if not text.strip():
        return dataset.absent
    if is_plain(dataset):
        return text
    start, length = _read_runs(text)
    start = start - 1 + dataset.rle_start
    if dataset.rle_runs == "relative":
        start = start - np.append(0, (start + length)[:-1])
    return write_runs(start, length)


def union(texts: Iterable[str]) -> str:
    """Joins plain run-length encodings, which may overlap, to that of one mask.

    >>> union(["8 2", "1 3 9 4", ""])
    '1 3 8 5'
    """
    start, length = _read_runs(" ".join(texts))
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate((start + length)[order])
    first = np.flatnonzero(np.append(True, start[1:] > end[:-1])[: len(start)])
    last = np.append(first[1:], len(start))[: len(first)] - 1
    return write_runs(start[first], end[last] - start[first])


def objects(text: str, size: tuple[int, int], order: str) -> list[str]:
    """The connected components of a mask that is not empty, each as a plain run-length encoding."""
    labels = rle.components(rle.decode(text, size, size, order)).numpy()
    numbers = range(1, labels.max() + 1)  # one at a time, to save memory
    return [rle.encode(labels == number, order).numpy().decode() for number in numbers]


def _read_runs(text: str) -> np.ndarray:
    """Reads starts and lengths, int64 [2, R]."""
    return np.array(text.split(), np.int64).reshape(-1, 2).T


def write_runs(start: np.ndarray, length: np.ndarray) -> str:
    """Writes starts [R] and lengths [R] as text."""
    return " ".join(map(str, np.stack([start, length], axis=1).ravel().tolist()))
