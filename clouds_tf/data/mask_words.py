"""Masks as 32-bit words of four classes each, which are faster to move than single bytes."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_BYTES = 4


def to_words(mask: tf.Tensor) -> list[tf.Tensor]:
    """Packs uint8 [..., C] into ceil(C / 4) words, int32 [...]; no copy for four classes."""
    num_classes = mask.shape[-1]
    missing = -num_classes % _BYTES
    if missing:
        mask = tf.pad(mask, [[0, 0]] * (len(mask.shape) - 1) + [[0, missing]])
    return [
        tf.bitcast(mask[..., i : i + _BYTES] if num_classes > _BYTES else mask, tf.int32)
        for i in range(0, num_classes, _BYTES)
    ]


def from_words(words: Sequence[tf.Tensor], num_classes: int) -> tf.Tensor:
    """Unpacks words, int32 [...], to uint8 [..., num_classes]."""
    masks = [tf.bitcast(word, tf.uint8) for word in words]
    mask = tf.concat(masks, axis=-1) if len(masks) > 1 else masks[0]
    return mask[..., :num_classes] if num_classes % _BYTES else mask
