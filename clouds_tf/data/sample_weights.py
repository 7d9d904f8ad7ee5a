"""Weights of images in the loss, from a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from clouds_tf.data.csv_tables import read_table, repeated
from clouds_tf.messages import Fault, counted, raise_faults


def read_sample_weights(path: str) -> dict[str, float]:
    """Reads a CSV with the columns image, a file name, and weight, a number of at least 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an image is listed twice, or a weight is not a number of at
            least 0; the first ten faults are named by their lines.
    """
    table = read_table(path, ("image", "weight"))
    weights = [_parse_weight(text) for text in table["weight"]]
    faults = repeated(path, table, "image")
    for line, image, text, weight in zip(table.index, table["image"], table["weight"], weights):
        if not 0 <= weight < math.inf:
            faults.append(Fault(path, line, f"{image}: weight: got {text!r}, expected >= 0"))
    raise_faults(sorted(faults))
    return dict(zip(table["image"], weights))


def _parse_weight(text: str) -> float:
    """The number in a cell; NaN if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def weights_of(
    weights: Mapping[str, float], training: Sequence[str], others: Sequence[str]
) -> tf.Tensor:
    """Looks up the weights of the training images, float32 [N], by their file names.

    Raises:
        ValueError: a training image has no weight, all weights are 0, or a name is neither a
            training image nor among `others`, the other images of the records.
    """
    missing = sorted({*training} - {*weights})
    unknown = sorted({*weights} - {*training} - {*others})
    for names, fault in ((missing, "without a weight"), (unknown, "not in the records")):
        if names:
            raise ValueError(
                f"sample_weights: {counted(len(names), 'image')} {fault}, the first is {names[0]}"
            )
    found = [weights[name] for name in training]
    if not any(found):
        raise ValueError("sample_weights: all training images have the weight 0")
    return tf.constant(found, tf.float32)
