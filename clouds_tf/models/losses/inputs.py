"""What every loss does with its arguments first."""

import tensorflow as tf


def checked(mask):
    """The mask as float32; InvalidArgumentError where a number is not in 0..1."""
    mask = tf.cast(mask, tf.float32)
    inside = tf.reduce_all((mask >= 0) & (mask <= 1))
    message = "mask: expected numbers from 0 to 1 (divide masks of 0 and 255 by 255), got up to"
    with tf.control_dependencies([tf.debugging.Assert(inside, [message, tf.reduce_max(mask)])]):
        return tf.identity(mask)


def prepared(mask, logits):
    """Both as float32, the mask checked, the logits brought to its size if they differ."""
    logits = tf.cast(logits, tf.float32)
    if logits.shape[1:3] != mask.shape[1:3]:
        logits = tf.image.resize(logits, tf.shape(mask)[1:3])
    return checked(mask), logits
