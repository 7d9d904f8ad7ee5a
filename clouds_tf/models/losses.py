"""Losses from logits: Keras' order (mask, logits), one float32 number per image."""

import tensorflow as tf


def _prepared(mask, logits):
    """Both as float32, the logits brought to the size of the mask if they differ."""
    logits = tf.cast(logits, tf.float32)
    if logits.shape[1:3] != mask.shape[1:3]:
        logits = tf.image.resize(logits, tf.shape(mask)[1:3])
    return tf.cast(mask, tf.float32), logits


def bce(mask, logits):
    """Binary cross entropy, the mean over pixels and classes.

    Args:
        mask: [B, h, w, C] of {0, 1}, any numeric dtype.
        logits: [B, h', w', C]; resized bilinearly where h', w' differ from h, w.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = _prepared(mask, logits)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(mask, logits)
    return tf.reduce_mean(entropy, axis=[1, 2, 3])


def dice(mask, logits, smooth=1.0):
    """1 - soft Dice of each image, over all its pixels and classes together.

    1 - (2 sum(pq) + s) / (sum p + sum q + s) with truth p and probability q. Milletari et al.,
    "V-Net", 2016, section 3, has the form with squares; this one is the baseline's. Taken per
    image, it does not depend on how a batch is divided over replicas.

    Args:
        mask: [B, h, w, C] of {0, 1}, any numeric dtype.
        logits: [B, h', w', C]; resized bilinearly where h', w' differ from h, w.
        smooth: s, in pixels; keeps the loss finite where both are empty.

    Returns:
        float32 [B] in [0, 1].
    """
    mask, logits = _prepared(mask, logits)
    q = tf.sigmoid(logits)
    intersection = tf.reduce_sum(mask * q, axis=[1, 2, 3])
    total = tf.reduce_sum(mask, axis=[1, 2, 3]) + tf.reduce_sum(q, axis=[1, 2, 3])
    return 1 - (2 * intersection + smooth) / (total + smooth)


def bce_dice(mask, logits):
    """`bce` + `dice`: the baseline's loss. float32 [B]."""
    return bce(mask, logits) + dice(mask, logits)


def presence_bce(mask, presence):
    """Binary cross entropy of whether a class is anywhere in the image, the mean over classes.

    Args:
        mask: [B, h, w, C] of {0, 1}, any numeric dtype.
        presence: logits [B, C], of the classification head.

    Returns:
        float32 [B], >= 0.
    """
    present = tf.cast(tf.reduce_any(tf.cast(mask, tf.bool), axis=[1, 2]), tf.float32)
    presence = tf.cast(presence, tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(present, presence), axis=1)


LOSSES = {"bce": bce, "dice": dice, "bce_dice": bce_dice}
