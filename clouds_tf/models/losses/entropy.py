"""Cross-entropy losses: means over pixels and classes.

All are written with log q = -softplus(-x) and log(1 - q) = -softplus(x), q the probability of the
logit x: these are exact where q is 0 or 1 to the last bit, and so are their gradients.
"""

from __future__ import annotations

import tensorflow as tf

from clouds_tf.models.losses.inputs import checked, prepared


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values, axis=[1, 2, 3])


def bce(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy, -[p log q + (1-p) log(1-q)]: float32 [B], >= 0."""
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(mask, logits))


def weighted_bce(mask: tf.Tensor, logits: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """Cross entropy with weight `beta` on mask pixels: -[beta p log q + (1-p) log(1-q)].

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.weighted_cross_entropy_with_logits(mask, logits, beta))


def balanced_bce(mask: tf.Tensor, logits: tf.Tensor, beta: float | None = None) -> tf.Tensor:
    """Cross entropy with weights on both sides: -[beta p log q + (1-beta) (1-p) log(1-q)].

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


def focal(mask: tf.Tensor, logits: tf.Tensor, gamma: float = 2.0, alpha: float = 0.25) -> tf.Tensor:
    """Focal loss: cross entropy that weighs down pixels that are already right.

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


def presence_bce(mask: tf.Tensor, presence: tf.Tensor) -> tf.Tensor:
    """Cross entropy of the presence of each class in the image, the mean over classes.

    Args:
        mask: see the package; the truth is its maximum, which in blended images is the share.
        presence: logits [B, C], of the classification head.

    Returns:
        float32 [B], >= 0.
    """
    present = tf.reduce_max(checked(mask), axis=[1, 2])
    presence = tf.cast(presence, tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(present, presence), axis=1)
