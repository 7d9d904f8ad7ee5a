"""Checks and conversions that every loss applies to its arguments."""

from __future__ import annotations

import tensorflow as tf


def checked(mask: tf.Tensor) -> tf.Tensor:
    """Casts a mask to float32; raises InvalidArgumentError if a number is not in 0..1."""
    mask = tf.cast(mask, tf.float32)
    inside = tf.reduce_all((mask >= 0) & (mask <= 1))
    message = "mask: expected numbers from 0 to 1 (divide masks of 0 and 255 by 255), got up to"
    with tf.control_dependencies([tf.debugging.Assert(inside, [message, tf.reduce_max(mask)])]):
        return tf.identity(mask)


def prepared(mask: tf.Tensor, logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Casts mask and logits to float32, checks the mask, and resizes the logits to its size.

    An additional last map of logits, that of the background, is left out.
    """
    logits = tf.cast(logits, tf.float32)
    if logits.shape[-1] == mask.shape[-1] + 1:
        logits = logits[..., :-1]
    if logits.shape[1:3] != mask.shape[1:3]:
        logits = tf.image.resize(logits, tf.shape(mask)[1:3])
    return checked(mask), logits
