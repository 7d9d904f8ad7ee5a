"""Folders of soft targets: a probability for each pixel and class, as 8-bit PNG files.

The map of a.jpg is a.jpg.png, grey, with the classes one below the other: [C * h, w], where 255 is
a probability of 1. Maps may be of any one size; they cover whole images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf import files
from clouds_tf.dataset import Dataset

INFO_FILE = "soft_targets.json"  # written last
_VERSION = 1
_REDUCTION = 4  # of the submission size, in each direction


def map_size(dataset: Dataset) -> tuple[int, int]:
    """(height, width) of the maps that `evaluate` writes: a quarter of the submission size."""
    height, width = (-(-side // _REDUCTION) for side in dataset.submission_size)
    return height, width


def write_maps(
    folder: str, filenames: Sequence[str], probabilities: tf.Tensor, size: tuple[int, int]
) -> None:
    """Writes the maps of a batch of images.

    Args:
        folder: a folder that exists.
        filenames: names of B images.
        probabilities: float32 [B, h, w, C] in [0, 1]; averaged over the area of each pixel.
        size: (height, width) of the maps.
    """
    smaller = tf.image.resize(probabilities, size, "area")
    maps = tf.cast(tf.round(255 * tf.transpose(smaller, [0, 3, 1, 2])), tf.uint8)
    for filename, classes in zip(filenames, maps):
        encoded = tf.io.encode_png(tf.reshape(classes, [-1, size[1], 1]))
        tf.io.write_file(os.path.join(folder, f"{filename}.png"), encoded)


def write_info(folder: str, dataset: Dataset, size: tuple[int, int], source: str) -> None:
    """Writes the description of a folder of maps.

    Args:
        folder: the folder.
        dataset: the Dataset of the classes.
        size: (height, width) of the maps.
        source: what the probabilities are from, for readers.
    """
    content = {
        "version": _VERSION,
        "class_names": list(dataset.class_names),
        "size": list(size),
        "source": source,
    }
    files.write_text(os.path.join(folder, INFO_FILE), json.dumps(content, indent=1) + "\n")
