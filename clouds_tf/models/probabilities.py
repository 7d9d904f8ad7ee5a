"""Logits to probabilities."""

from __future__ import annotations

from collections.abc import Sequence

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
