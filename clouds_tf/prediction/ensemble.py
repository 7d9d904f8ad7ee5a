"""Ensembling and test-time augmentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# Choices of --test_time_augmentation, which averages the predictions of several views of an image.
AUGMENTATIONS = ("none", "flips", "rotations", "scales", "flips+scales", "rotations+scales")
_MIRRORS: tuple[list[int], ...] = ([], [1], [2], [1, 2])  # axes of [B, H, W, C] to reverse
_SCALES = (0.75, 1.25)  # of the training size, in addition to it
_STRIDE = 32  # of the deepest features; multiples of it need no padding


def check_weights(weights: Sequence[float], num_models: int) -> None:
    """Checks the weights of the members of an ensemble; empty for equal weights.

    Raises:
        ValueError: the numbers of weights and models differ, or a weight is not above 0.
    """
    if weights and len(weights) != num_models:
        raise ValueError(
            f"member_weights: got {len(weights)}, expected one for each of {num_models} models"
        )
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"member_weights: got {weight}, expected numbers above 0")


def input_sizes(image_size: tuple[int, int], test_time_augmentation: str) -> list[tuple[int, int]]:
    """Sizes at which a network sees each image: one, or three with "scales".

    >>> input_sizes((256, 384), "flips+scales")
    [(256, 384), (192, 288), (320, 480)]
    """
    sizes = [image_size]
    if "scales" in test_time_augmentation.split("+"):
        for scale in _SCALES:
            height, width = (_STRIDE * max(1, round(scale * side / _STRIDE)) for side in image_size)
            sizes.append((height, width))
    return list(dict.fromkeys(sizes))


def views_of(test_time_augmentation: str) -> list[tuple[bool, list[int]]]:
    """Views of an image: whether to transpose it, and the axes to reverse after that."""
    if test_time_augmentation not in AUGMENTATIONS:
        raise ValueError(
            f"test_time_augmentation: got {test_time_augmentation!r}, expected one of "
            f"{', '.join(AUGMENTATIONS)}"
        )
    parts = test_time_augmentation.split("+")
    mirrors = _MIRRORS if "flips" in parts or "rotations" in parts else _MIRRORS[:1]
    # A rotation by 90 degrees is a transposition and a reflection.
    transposed = (False, True) if "rotations" in parts else (False,)
    return [(turn, axes) for turn in transposed for axes in mirrors]


def mean_prediction(
    models: Sequence[Callable[[tf.Tensor], dict[str, Any]]],
    images: Sequence[tf.Tensor],
    size: tuple[int, int],
    test_time_augmentation: str = "none",
    member_weights: Sequence[float] = (),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Averages the predictions of models, and of test-time augmentation.

    Args:
        models: functions from images [B, h, w, 3] in 0..255 to a dict of "logits" [B, h, w, C]
            and, with a classification head, "presence_logits" [B, C].
        images: for each model the same images, at a size of `input_sizes`.
        size: (height, width) of the result.
        test_time_augmentation: one of AUGMENTATIONS: "flips" averages the four mirror images,
            "rotations" the eight symmetries of a square. For "scales", pass a model and images for
            each size.
        member_weights: the weight of each model in the average; by default, all are equal.

    Returns:
        Probabilities, float32 [B, height, width, C] in [0, 1]; and presence, float32 [B, C] in
        [0, 1]: the mean of the classification heads or, if no model has one, the highest
        probability of the class in the image.

    Raises:
        ValueError: there is no model, or not one batch of images for each; the augmentation is
            unknown; or an image to rotate is not square.
    """
    if not models or len(models) != len(images):
        raise ValueError(
            f"got {len(models)} models and {len(images)} batches of images, expected one batch for "
            "each of at least one model"
        )
    check_weights(member_weights, len(models))
    views = views_of(test_time_augmentation)
    pixels, presences = [], []
    # Mirrored and averaged before resizing, which takes a quarter of the time.
    for model, image, weight in zip(models, images, member_weights or [1.0] * len(models)):
        upright = []
        for turn, axes in views:
            outputs = model(_mirrored(_transposed(image) if turn else image, axes))
            if "presence_logits" in outputs:
                logits = tf.cast(outputs["presence_logits"], tf.float32)
                presences.append((tf.sigmoid(logits), weight))
            found = _mirrored(tf.sigmoid(tf.cast(outputs["logits"], tf.float32)), axes)
            upright.append(_transposed(found) if turn else found)
        pixels.append((tf.image.resize(tf.add_n(upright) / len(upright), size), weight))
    mean = _weighted_mean(pixels)
    return mean, _weighted_mean(presences) if presences else tf.reduce_max(mean, axis=[1, 2])


def _mirrored(images: tf.Tensor, axes: list[int]) -> tf.Tensor:
    """tf.reverse of [B, H, W, C] along axes 1 and 2, in half to a quarter of its time."""
    height, width, channels = images.shape[1:]

    def reverse(*shape: int) -> tf.Tensor:
        flat = tf.reverse(tf.reshape(images, [-1, *shape]), [1])
        return tf.reshape(flat, [-1, height, width, channels])

    if 2 in axes:  # all pixels, which reverses the rows too
        images = reverse(height * width, channels)
    if axes in ([1], [2]):
        images = reverse(height, width * channels)
    return images


def _transposed(image: tf.Tensor) -> tf.Tensor:
    """Transposes square images [B, h, h, C]."""
    if image.shape[1] != image.shape[2]:
        raise ValueError(
            f"test_time_augmentation: rotations need square images, but a model takes "
            f"{image.shape[1]}x{image.shape[2]}"
        )
    return tf.transpose(image, [0, 2, 1, 3])


def _weighted_mean(values: Sequence[tuple[tf.Tensor, float]]) -> tf.Tensor:
    tensors, weights = zip(*values)
    if len(set(weights)) == 1:
        return tf.add_n(tensors) / len(tensors)
    return tf.add_n([x * weight for x, weight in values]) / sum(weights)
