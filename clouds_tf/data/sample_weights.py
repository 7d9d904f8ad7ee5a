"""Weights of images in the loss, from a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from clouds_tf import files
from clouds_tf.messages import counted


def read_sample_weights(path: str) -> dict[str, float]:
    """Reads a CSV with the columns image, a file name, and weight, a number of at least 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, an image is listed twice, or a weight is not such a number;
            the line is named.
    """
    reader = csv.DictReader(io.StringIO(files.read_text(path)))
    if not {"image", "weight"} <= set(reader.fieldnames or ()):
        raise ValueError(
            f"sample_weights: {path}: has the columns {', '.join(reader.fieldnames or ['none'])}, "
            "expected image and weight"
        )
    weights: dict[str, float] = {}
    for number, row in enumerate(reader, start=2):
        image, text = row["image"], row["weight"]
        try:
            weight = float(text)
        except (TypeError, ValueError):
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0) or image in weights:
            fault = "is there twice" if image in weights else f"weight: got {text!r}, expected >= 0"
            raise ValueError(f"sample_weights: {path}, line {number}: {image}: {fault}")
        weights[image] = weight
    return weights


def weights_of(
    weights: Mapping[str, float], training: Sequence[str], others: Sequence[str]
) -> tf.Tensor:
    """Weights of the images to train on, float32 [N].

    Args:
        weights: weight of each image by its file name.
        training: names of the images to train on, each of which needs a weight.
        others: names of the other images of the records, which may have one.

    Raises:
        ValueError: an image to train on has no weight, a name is not in the records, or all weights
            are 0.
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
        raise ValueError("sample_weights: all images to train on have the weight 0")
    return tf.constant(found, tf.float32)
