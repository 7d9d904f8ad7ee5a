"""The Lovász hinge: a convex surrogate of intersection over union."""

from __future__ import annotations

import tensorflow as tf

from clouds_tf.models.losses.inputs import prepared


def _hinge(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Lovász hinge of N rows of P pixels, [N, P] -> [N].

    Berman et al., "The Lovász-Softmax loss", 2018, equations 9 and 12.
    """
    errors = tf.nn.relu(1 - logits * (2 * mask - 1))
    errors, order = tf.math.top_k(errors, tf.shape(errors)[1])
    mask = tf.gather(mask, order, batch_dims=1)
    truth = tf.reduce_sum(mask, axis=1, keepdims=True)
    # Where the pixels up to each position are wrong and those after it right:
    intersection = truth - tf.cumsum(mask, axis=1)
    union = truth + tf.cumsum(1 - mask, axis=1)
    jaccard = tf.pad(1 - intersection / union, [[0, 0], [1, 0]])
    return tf.reduce_sum(errors * (jaccard[:, 1:] - jaccard[:, :-1]), axis=1)


def _planes(x: tf.Tensor) -> tf.Tensor:
    """Reshapes [B, h, w, C] to [B * C, h * w]."""
    batch, height, width, classes = tf.unstack(tf.shape(x))
    return tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [batch * classes, height * width])


def _mean_over_classes(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(like)
    return tf.reduce_mean(tf.reshape(values, [shape[0], shape[3]]), axis=1)


def lovasz(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The Lovász hinge of each image and class, the mean over classes.

    The errors relu(1 - x (2p - 1)), sorted descending, times what each adds to 1 - intersection
    over union if all those before it are wrong.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    return _mean_over_classes(_hinge(_planes(mask), _planes(logits)), mask)


def symmetric_lovasz(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean of `lovasz` of the classes and of their background, (L(x, p) + L(-x, 1 - p)) / 2.

    Returns:
        float32 [B], >= 0.
    """
    mask, logits = prepared(mask, logits)
    p, x = _planes(mask), _planes(logits)
    return _mean_over_classes((_hinge(p, x) + _hinge(1 - p, -x)) / 2, mask)
