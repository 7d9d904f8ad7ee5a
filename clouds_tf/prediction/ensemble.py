"""Ensembling and flip test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.models.metrics import probabilities

# Axes of [B, H, W, C] along which images are mirrored, one prediction for each entry.
FLIPS: dict[str, tuple[list[int], ...]] = {"none": ([],), "flips": ([], [1], [2], [1, 2])}


def mean_prediction(
    models: Sequence[Callable[[tf.Tensor], dict[str, Any]]],
    images: Sequence[tf.Tensor],
    size: tuple[int, int],
    test_time_augmentation: str = "none",
) -> tuple[tf.Tensor, tf.Tensor]:
    """Averages the predictions of models, and of mirror images if asked for.

    Args:
        models: functions from images [B, h, w, 3] in 0..255 to a dict of "logits" [B, h, w, C]
            and, with a classification head, "presence_logits" [B, C].
        images: for each model the same images, at the size that it was trained with.
        size: (height, width) of the result.
        test_time_augmentation: "none", or "flips" for the four mirror images.

    Returns:
        Probabilities, float32 [B, height, width, C] in [0, 1]; and presence, float32 [B, C] in
        [0, 1]: the mean of the classification heads or, where no model has one, the highest
        probability of the class in the image.

    Raises:
        ValueError: there is no model, not one batch of images for each, or no such augmentation.
    """
    if not models or len(models) != len(images):
        raise ValueError(
            f"got {len(models)} models and {len(images)} batches of images, expected one batch for "
            "each of at least one model"
        )
    if test_time_augmentation not in FLIPS:
        raise ValueError(
            f"test_time_augmentation: got {test_time_augmentation!r}, expected one of {list(FLIPS)}"
        )
    pixels, presences = [], []
    for model, image in zip(models, images):
        for axes in FLIPS[test_time_augmentation]:
            outputs = model(tf.reverse(image, axes))
            if "presence_logits" in outputs:
                logits = tf.cast(outputs["presence_logits"], tf.float32)
                presences.append(tf.sigmoid(logits))
            pixels.append(tf.reverse(probabilities(outputs["logits"], size), axes))
    mean = tf.add_n(pixels) / len(pixels)
    if presences:
        return mean, tf.add_n(presences) / len(presences)
    return mean, tf.reduce_max(mean, axis=[1, 2])
