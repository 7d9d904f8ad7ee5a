"""The geometry of run-length encodings: their order, and the masks that they can be of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.dataset import Dataset

# `check_geometry` needs this many steps between runs, and this share of them to be the same.
_MIN_STEPS = 100
_MIN_SHARE = 0.25  # 0.63 to 0.74 in the masks of the competition


def to_column_major(
    rles: tf.Tensor | Sequence[str], dataset: Dataset, size: tuple[int, int] | None = None
) -> tf.Tensor:
    """Rewrites the RLE of a data set so that runs count down the columns, as `rle` expects.

    Args:
        rles: string [...], in the order of the data set.
        dataset: has the order of the RLE.
        size: (height, width) of the masks; None takes dataset.mask_size.

    Returns:
        String [...]; unchanged where the data set counts down the columns already.

    Raises:
        tf.errors.InvalidArgumentError: a RLE is malformed.
    """
    if dataset.rle_order == "columns":
        return tf.convert_to_tensor(rles, tf.string)
    size = size or dataset.mask_size
    return rle.encode(rle.decode(rles, size, size, order="rows"))


def check_geometry(
    table: Any, dataset: Dataset, path: str, flag: str, size: tuple[int, int] | None = None
) -> None:
    """Makes sure that the RLE of a table can be of masks of a size, by the step from run to run.

    Masks are blunt shapes, so most runs begin exactly one column (one row, where the RLE runs along
    rows) after the run before: the most frequent step between starts is the height (the width) of
    the masks. Tables with too few runs to tell pass.

    Args:
        table: masks as `read_csv` returns them.
        dataset: has the order of the RLE.
        path: the file, for the message.
        flag: the flag or argument that sets the size, for the message.
        size: (height, width) that the masks were read with; None for dataset.mask_size.

    Raises:
        ValueError: the runs are those of masks of another height or width.
    """
    size = size or dataset.mask_size
    along_rows = dataset.rle_order == "rows"
    step = _most_frequent_step(table.drop(columns="filename").to_numpy().ravel())
    if step is not None and step != size[along_rows]:
        other = "columns" if along_rows else "rows"
        order = f", or rle_order={other!r} if it is {size[0]}x{size[1]}"
        raise ValueError(
            f"{path}: the runs are those of masks of {step} {'columns' if along_rows else 'rows'}, "
            f"got {size[0]}x{size[1]} (height x width); give their size with {flag}"
            f"{order if step == size[not along_rows] else ''}"
        )


def _most_frequent_step(rles: Iterable[str]) -> int | None:
    """The most frequent step between the starts of runs; None where no step is frequent."""
    steps: list[np.ndarray] = []
    for text in filter(None, rles):
        steps.append(np.diff(np.array(text.split()[::2], np.int64)))
        if sum(map(len, steps)) > 1_000_000:
            break
    values, counts = np.unique(np.concatenate([[], *steps]), return_counts=True)
    if counts.sum() < _MIN_STEPS or counts.max() < _MIN_SHARE * counts.sum():
        return None
    return int(values[counts.argmax()])
