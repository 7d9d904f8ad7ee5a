"""Converts logits to probabilities, and makes those of exclusive classes disjoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


def probabilities(logits: tf.Tensor, size: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Applies the sigmoid, then resizes bilinearly.

    Args:
        logits: [B, h, w, C].
        size: (height, width) of the result, ints or an int32 tensor [2].

    Returns:
        float32 [B, height, width, C] in [0, 1].
    """
    return tf.image.resize(tf.sigmoid(tf.cast(logits, tf.float32)), size)


def for_masks(probabilities: np.ndarray | tf.Tensor, exclusive: bool) -> Any:
    """Prepares probabilities for thresholding, so that masks of exclusive classes never overlap.

    Args:
        probabilities: [..., C], of numpy or TensorFlow.
        exclusive: whether to set all but the most probable class of each pixel to 0; of equally
            probable classes, the first is kept.

    >>> for_masks(np.array([[0.2, 0.4, 0.4], [0.6, 0.1, 0.3]]), exclusive=True)
    array([[0. , 0.4, 0. ],
           [0.6, 0. , 0. ]])
    """
    if not exclusive:
        return probabilities
    arrays = tf if tf.is_tensor(probabilities) else np
    best = arrays.argmax(probabilities, axis=-1)[..., np.newaxis]
    is_best = best == np.arange(probabilities.shape[-1])
    return arrays.where(is_best, probabilities, arrays.zeros_like(probabilities))
