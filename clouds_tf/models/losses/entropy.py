"""Cross-entropy losses: means over pixels and classes.

All use log q = -softplus(-x) and log(1 - q) = -softplus(x) for the probability q of the logit x.
These and their gradients are exact even where q rounds to 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf import rle
from clouds_tf.models.losses.inputs import checked, prepared


def _mean(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values, axis=[1, 2, 3])


def bce(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Binary cross entropy, -[p log q + (1-p) log(1-q)]: float32 [B], >= 0."""
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.sigmoid_cross_entropy_with_logits(mask, logits))


def cce(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Categorical cross entropy of exclusive classes and the background, the mean over pixels.

    -sum_c p_c log q_c, where q are the probabilities of all classes and of the background, p the
    masks, and p of the background is 1 minus their sum.

    Args:
        mask: see the package.
        logits: log odds [B, h', w', C + 1] of `models.unet.LogOdds`, the background last.

    Returns:
        float32 [B], >= 0.

    Raises:
        ValueError: the background is missing, since the classes are not exclusive.
    """
    if logits.shape[-1] != mask.shape[-1] + 1:
        raise ValueError(
            "loss: cce needs all classes at once, and exclusive ones; use bce, or a data set with "
            '"exclusive": true and no class_weights'
        )
    mask = tf.cast(mask, tf.float32)
    background = 1 - tf.reduce_sum(mask, axis=-1, keepdims=True)
    mask, logits = prepared(tf.concat([mask, tf.nn.relu(background)], axis=-1), logits)
    return tf.reduce_mean(tf.reduce_sum(mask * tf.math.softplus(-logits), axis=-1), axis=[1, 2])


def weighted_bce(mask: tf.Tensor, logits: tf.Tensor, beta: float = 2.0) -> tf.Tensor:
    """Cross entropy with weight `beta` for mask pixels: -[beta p log q + (1-p) log(1-q)].

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    return _mean(tf.nn.weighted_cross_entropy_with_logits(mask, logits, beta))


def balanced_bce(mask: tf.Tensor, logits: tf.Tensor, beta: float | None = None) -> tf.Tensor:
    """Class-balanced cross entropy: -[beta p log q + (1-beta) (1-p) log(1-q)].

    Xie and Tu, "Holistically-Nested Edge Detection", 2015, equation 2.

    Args:
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
    """Focal loss: cross entropy with low weight for well-classified pixels.

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
        mask: see the package. The target is its maximum: for blended images, the share of the
            image; for soft targets of several people, the largest share who marked a pixel.
        presence: logits [B, C], of the classification head.

    Returns:
        float32 [B], >= 0.
    """
    present = tf.reduce_max(checked(mask), axis=[1, 2])
    presence = tf.cast(presence, tf.float32)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(present, presence), axis=1)


# A key is a squared distance and, in its lower bits, the label of the object at that distance.
_LABEL_BITS = 20  # enough for dots in every second row and column of 1400x2100
_LABEL = (1 << _LABEL_BITS) - 1
_FAR = 2**31 - 1
_ROW_AROUND = [[0, 0], [1, 1], [0, 0]]
_MAX_RADIUS = 31  # twice its square fits into the upper bits
_Keys = Sequence["tf.Tensor"]  # two of them


def _nearest_two(one: _Keys, other: _Keys) -> _Keys:
    """Merges two pairs of keys into the two smallest keys of different objects."""
    (a1, a2), (b1, b2) = one, other
    same = (a1 ^ b1) & _LABEL == 0
    rest = tf.where(same, _FAR, tf.maximum(a1, b1))
    return tf.minimum(a1, b1), tf.minimum(rest, tf.minimum(a2, b2))


def _squared_distances(labels: tf.Tensor, radius: int) -> list[tf.Tensor]:
    """Computes squared distances to the nearest two objects: two int32 [N, h, w].

    Vertical steps that cost 1, 3, 5, ... add up to the square of their number; adding the same
    horizontally gives the squared Euclidean distance. Two keys per pixel suffice: the third nearest
    object of a column is never among the nearest two of a pixel in that row. Objects more than
    `radius` rows or columns away count as _FAR.
    """

    def step(number: tf.Tensor, *keys: tf.Tensor) -> tuple:
        cost = tf.bitwise.left_shift(2 * number + 1, _LABEL_BITS)
        further = [tf.where(key == _FAR, _FAR, key + cost) for key in keys]
        further = [tf.pad(key, _ROW_AROUND, constant_values=_FAR) for key in further]
        nearest = _nearest_two(keys, [key[:, :-2] for key in further])
        return number + 1, *_nearest_two(nearest, [key[:, 2:] for key in further])

    keys = [tf.where(labels > 0, labels, _FAR), tf.fill(tf.shape(labels), _FAR)]
    for _ in ("rows", "columns"):
        _, *keys = tf.while_loop(lambda number, *_: number < radius, step, (0, *keys))
        keys = [tf.linalg.matrix_transpose(key) for key in keys]
    return [tf.where(key == _FAR, _FAR, tf.bitwise.right_shift(key, _LABEL_BITS)) for key in keys]


def separation_weights(mask: tf.Tensor, w0: float = 10.0, sigma: float = 5.0) -> tf.Tensor:
    """Extra weights of pixels between two objects of a class.

    w0 exp(-(d1 + d2)^2 / (2 sigma^2)), where d1 and d2 are the distances to the nearest two objects
    (8-connected components); 0 inside objects. Ronneberger et al., "U-Net", 2015, equation 2.
    Objects further away than 4 sigma are ignored, which changes weights by at most w0 / 2981.

    A distance transform such as that of addons finds the nearest object only, so it would have to
    be called for each object; it runs only on the CPU, and would need a third map in the pipeline.

    Args:
        mask: [B, h, w, C] of numbers in 0..1; objects are where it is at least 1/2.
        w0: weight of pixels that nearly touch two objects.
        sigma: width of the weights in pixels, up to 7.75.

    Returns:
        float32 [B, h, w, C].

    Raises:
        ValueError: sigma is larger.
    """
    radius = math.ceil(4 * sigma)
    if radius > _MAX_RADIUS:
        raise ValueError(f"sigma: got {sigma}, expected up to {_MAX_RADIUS / 4}")
    batch, height, width, classes = tf.unstack(tf.shape(mask))
    planes = tf.transpose(tf.cast(mask, tf.float32) >= 0.5, [0, 3, 1, 2])
    labels = rle.components(tf.reshape(planes, [batch * classes, height, width]))
    nearest = _squared_distances(labels, radius)
    d1, d2 = [tf.sqrt(tf.cast(squared, tf.float32)) for squared in nearest]
    weights = w0 * tf.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
    weights = tf.reshape(weights, [batch, classes, height, width])
    return tf.transpose(weights, [0, 2, 3, 1])


def distance_bce(
    mask: tf.Tensor, logits: tf.Tensor, w0: float = 10.0, sigma: float = 5.0, base: float = 1.0
) -> tf.Tensor:
    """Cross entropy times (base + `separation_weights`), the mean over pixels and classes.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(mask, logits)
    weights = base + separation_weights(mask, w0, sigma)
    return tf.reduce_mean(weights * entropy, axis=[1, 2, 3])
