"""Pictures of predictions: images with the outlines of their masks, and the masks as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import figures, files, gfile, rle
from clouds_tf.dataset import Dataset
from clouds_tf.prediction.untrusted import decode_images
from clouds_tf.serving.answers import Answer


def _masks(answer: Answer, size: tuple[int, int], dataset: Dataset) -> tf.Tensor:
    """Masks of an answer, uint8 [C, *size] of {0, 1}."""
    encoded = list(answer.encoded_pixels)
    return rle.decode(encoded, dataset.submission_size, size, dataset.rle_order)


def draw(answers: Sequence[Answer], images_dir: str, dataset: Dataset, num_columns: int = 3) -> Any:
    """Draws readable images with their masks, `num_columns` in a row."""
    size, channels, images, masks = dataset.submission_size, dataset.channels, [], []
    for answer in answers:
        masks.append(tf.transpose(_masks(answer, size, dataset), [1, 2, 0]).numpy())
        encoded = tf.io.read_file(os.path.join(images_dir, answer.filename))
        images.append(decode_images(encoded[tf.newaxis], size, channels=channels)[0].numpy())
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
    figures.save(figure, _overlay_path(folder, answer.filename))


def write_masks(folder: str, answer: Answer, dataset: Dataset) -> None:
    """Writes the masks of an image at the image's own size, as one PNG of {0, 255} for each class.

    The masks of a.jpg become a.jpg_Fish.png and so on; absent classes are black.
    """
    assert answer.size is not None
    for i, name in enumerate(dataset.class_names):
        one = Answer("", (), encoded_pixels=answer.encoded_pixels[i : i + 1])
        mask = _masks(one, answer.size, dataset)[0, :, :, tf.newaxis]
        with files.written_whole(_mask_path(folder, answer.filename, name)) as temporary:
            tf.io.write_file(temporary, tf.io.encode_png(255 * mask))


def remove(overlay_dir: str | None, masks_dir: str | None, filename: str, dataset: Dataset) -> None:
    """Removes the files of an image that has become unreadable."""
    paths = [_overlay_path(overlay_dir, filename)] if overlay_dir else []
    if masks_dir:
        paths += [_mask_path(masks_dir, filename, name) for name in dataset.class_names]
    for path in filter(gfile.exists, paths):
        gfile.remove(path)
