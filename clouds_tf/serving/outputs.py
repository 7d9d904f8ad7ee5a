"""Writes the outputs of a prediction: submissions, tables, masks and pictures."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import figures, files, gfile, rle
from clouds_tf.data.annotations import spelled
from clouds_tf.dataset import Dataset
from clouds_tf.lazy import traced
from clouds_tf.prediction.untrusted import MAX_IMAGE_PIXELS, decode_images
from clouds_tf.serving.answers import Answer

TABLE_COLUMNS = (
    *("filename", "class", "presence", "area_fraction", "expected_area_fraction"),
    "likeness",
)

# Compiled, because separate calls of hundreds of small operations would take most of the time.
_decode_images, _decode_masks = traced(decode_images), traced(rle.decode)


def check_submission(path: str) -> None:
    """Checks that a submission can be written; raises ValueError with the reason if not."""
    files.check_output(path)
    if path.endswith(".parquet"):
        files.require("pyarrow", "parquet", path)


def write_submission(path: str, rows: Iterable[tuple[str, str, str]], dataset: Dataset) -> None:
    """Writes the rows of a submission as they come, whole or not at all.

    Args:
        path: a Parquet file if it ends in .parquet, otherwise a CSV.
        rows: (file name, class name, RLE).
        dataset: defines the columns and the format.
    """
    cells = spelled(rows, dataset)
    if not path.endswith(".parquet"):
        files.write_table(path, dataset.columns, cells)
        return
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.string()) for name in dataset.columns])
    files.write_parquet(path, schema, cells)


def write_table(path: str, answers: Iterable[Answer], dataset: Dataset) -> None:
    """Writes a CSV of presence, areas and likeness with a row for every image and class.

    Numbers are blank for unreadable images, or if an older SavedModel does not provide them.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for answer in answers:
            numbers = (answer.presence, answer.area_fraction, answer.expected_area_fraction)
            columns = (dataset.class_names, *numbers)
            for row in itertools.zip_longest(*columns, fillvalue=""):
                yield (answer.filename, *row, answer.likeness)

    files.write_table(path, TABLE_COLUMNS, rows())


def _masks(answer: Answer, size: tuple[int, int], dataset: Dataset) -> np.ndarray:
    """Masks of an answer, uint8 [C, *size] of {0, 1}."""
    encoded = tf.constant(answer.encoded_pixels)
    # The size is a tensor, so that images of all sizes share one trace.
    masks = _decode_masks(encoded, dataset.submission_size, tf.constant(size), dataset.rle_order)
    return masks.numpy()


def draw(answers: Sequence[Answer], images_dir: str, dataset: Dataset, num_columns: int = 3) -> Any:
    """Draws readable images with their masks, `num_columns` in a row."""
    size, channels, images, masks = dataset.submission_size, dataset.channels, [], []
    for answer in answers:
        masks.append(_masks(answer, size, dataset).transpose(1, 2, 0))
        encoded = tf.io.read_file(os.path.join(images_dir, answer.filename))
        decoded = _decode_images(encoded[tf.newaxis], size, MAX_IMAGE_PIXELS, channels)
        images.append(decoded[0].numpy())
    names = [answer.filename for answer in answers]
    return figures.overlays(
        images, masks, names, num_columns=num_columns, class_names=dataset.class_names
    )


def _overlay_path(folder: str, filename: str) -> str:
    return os.path.join(folder, f"{filename}.png")


def _mask_path(folder: str, filename: str, class_name: str) -> str:
    return os.path.join(folder, f"{filename}_{class_name}.png")


def write_overlay(folder: str, answer: Answer, images_dir: str, dataset: Dataset) -> None:
    """Writes a picture of an image with its masks: a.jpg becomes a.jpg.png."""
    figure = draw([answer], images_dir, dataset, num_columns=1)
    figures.save(figure, _overlay_path(folder, answer.filename), compression=2)


def write_masks(folder: str, answer: Answer, dataset: Dataset) -> None:
    """Writes the masks of an image at its own size, a PNG of {0, 255} for each class.

    The masks of a.jpg become a.jpg_Fish.png and so on; absent classes are black.
    """
    assert answer.size is not None
    for name, mask in zip(dataset.class_names, 255 * _masks(answer, answer.size, dataset)):
        with files.written_whole(_mask_path(folder, answer.filename, name)) as temporary:
            tf.io.write_file(temporary, tf.io.encode_png(mask[..., np.newaxis]))


def remove_pictures(
    overlay_dir: str | None, masks_dir: str | None, filename: str, dataset: Dataset
) -> None:
    """Removes the files of an image that has become unreadable."""
    paths = [_overlay_path(overlay_dir, filename)] if overlay_dir else []
    if masks_dir:
        paths += [_mask_path(masks_dir, filename, name) for name in dataset.class_names]
    for path in filter(gfile.exists, paths):
        gfile.remove(path)
