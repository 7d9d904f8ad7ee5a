"""Pictures of an image and its masks under each augmentation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.data import augmentation
from clouds_tf.data.augmentations import AUGMENTATIONS, find_augmentation, suits
from clouds_tf.data.mixing import MIXES, Example, Mix
from clouds_tf.data.records import Records, Size

_BATCH_SIZE = 4


def _augment_examples(
    records: Records,
    image_size: Size,
    seed: int = 0,
    num_columns: int = 3,
    more: Sequence[str] = (),
) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Applies every augmentation, every part of `strong` and every mix to a few images.

    Returns num_columns pairs of image uint8 [h, w, 3] and mask uint8 [h, w, C] for each name, each
    of another image and with another seed.
    """
    info = records.info
    if info.num_examples < 2:
        raise ValueError(f"{records.path}: has one image, expected two or more to mix")
    if num_columns < 1:
        raise ValueError(f"num_columns: got {num_columns}, expected at least 1")
    # All folds, so that the batch has at least two images.
    folds = range(info.num_folds)
    batches = records.held_out_batches(folds, image_size, _BATCH_SIZE, image_size)
    images, masks = next(iter(batches))
    shown: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for column in range(num_columns):
        first, second = (tf.roll(batch, -column, axis=0) for batch in (images, masks))
        for name, step in _steps(first, second, more).items():
            shown.setdefault(name, []).append(_as_pixels(step([seed, column])))
    return shown


def _steps(
    images: tf.Tensor, masks: tf.Tensor, more: Sequence[str]
) -> dict[str, Callable[[list[int]], Example]]:
    """Named functions from a seed to an augmented example of the first image."""
    example = {"image": images[0], "mask": masks[0]}
    *size, channels = example["image"].shape
    still = augmentation.affine_places(size, [0, 0], strength=0.0)

    def mixed(mix: Mix) -> Callable[[list[int]], Example]:
        def first(seed: list[int]) -> Example:
            mixed_images, mixed_masks = mix(images, masks, seed)
            return {"image": mixed_images[0], "mask": mixed_masks[0]}

        return first

    whole: dict[str, Callable[[list[int]], Example]] = {
        name: functools.partial(find_augmentation(name, channels), example)
        for name in (*(name for name in AUGMENTATIONS if suits(name, channels)), *more)
    }
    parts: dict[str, Callable[[list[int]], Example]] = {
        "affine_places": lambda seed: augmentation.warp(
            example, augmentation.affine_places(size, seed)
        ),
        "bend": lambda seed: augmentation.warp(example, augmentation.bend(still, seed)),
        "cutout": lambda seed: augmentation.warp(example, augmentation.cutout(still, seed)),
        "photometric": lambda seed: {
            **example,
            "image": augmentation.photometric(example["image"], seed),
        },
    }
    mixes = {name: mixed(mix) for name, mix in MIXES.items() if name != "none"}
    return {**whole, **parts, **mixes}


def _as_pixels(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an example as uint8; those of mixup are rounded."""
    image, mask = (np.rint(np.asarray(example[name])) for name in ("image", "mask"))
    return image.astype(np.uint8), mask.astype(np.uint8)


def draw_augmentations(
    records: Records,
    image_size: Size,
    seed: int = 0,
    num_columns: int = 3,
    more: Sequence[str] = (),
) -> Any:
    """Draws images under every augmentation: a matplotlib Figure with a row for each."""
    shown = _augment_examples(records, image_size, seed, num_columns, more)
    cells = [(*pair, name) for name, pairs in shown.items() for pair in pairs]
    images, masks, names = zip(*cells)
    return figures.overlays(images, masks, names, records.dataset.class_names, num_columns)
