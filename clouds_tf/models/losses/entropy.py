"""Cross entropies: a number for each pixel and class, of which the mean is taken.

All are written with log q = -softplus(-x) and log(1 - q) = -softplus(x), q the probability of the
logit x: these are exact where q is 0 or 1 to the last bit, and so are their gradients.
"""

import tensorflow as tf

from clouds_tf.models.losses.inputs import checked, prepared


def _mean(values):
    return tf.reduce_mean(values, axis=[1, 2, 3])


def bce(mask, logits):
    """Binary cross entropy, -[p log q + (1-p) log(1-q)]: float32 [B], >= 0."""
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(mask, logits))


def weighted_bce(mask, logits, beta=2.0):
    """Cross entropy in which the pixels of the mask weigh `beta`: -[beta p log q + (1-p) log(1-q)].

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.weighted_cross_entropy_with_logits(mask, logits, beta))


def balanced_bce(mask, logits, beta=None):
    """Cross entropy weighed on both sides: -[beta p log q + (1-beta) (1-p) log(1-q)].

    Xie and Tu, "Holistically-Nested Edge Detection", 2015, equation 2.

    Args:
        mask: see the package.
        logits: see the package.
        beta: a number in 0..1; None takes 1 - mean(p) of each image, over pixels and classes.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    if beta is None:
        beta = 1 - tf.reduce_mean(mask, axis=[1, 2, 3], keepdims=True)
    present = mask * tf.math.softplus(-logits)
    absent = (1 - mask) * tf.math.softplus(logits)
    return _mean(beta * present + (1 - beta) * absent)


def focal(mask, logits, gamma=2.0, alpha=0.25):
    """Cross entropy that looks away from what is right already.

    -[alpha (1-q)^gamma p log q + (1-alpha) q^gamma (1-p) log(1-q)]: Lin et al., "Focal Loss for
    Dense Object Detection", 2017, equation 5.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    log_q, log_not_q = -tf.math.softplus(-logits), -tf.math.softplus(logits)
    present = alpha * tf.exp(gamma * log_not_q) * mask * log_q
    absent = (1 - alpha) * tf.exp(gamma * log_q) * (1 - mask) * log_not_q
    return _mean(-present - absent)


def presence_bce(mask, presence):
    """Cross entropy of whether a class is anywhere in the image, the mean over classes.

    Args:
        mask: see the package; the truth is its maximum, which in blended images is their share.
        presence: logits [B, C], of the classification head.

    Returns:
        float32 [B], >= 0.
    """
    present = tf.reduce_max(checked(mask), axis=[1, 2])
    presence = tf.cast(presence, tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(present, presence), axis=1)
