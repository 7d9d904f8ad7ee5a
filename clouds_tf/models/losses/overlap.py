"""Overlap losses, 1 - a ratio of sums of masks p and probabilities q; and the Lovász hinge."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from clouds_tf.models.losses.inputs import prepared


def _sums(
    mask: tf.Tensor, logits: tf.Tensor, axis: Sequence[int] = (1, 2), soft: bool = False
) -> list[tf.Tensor]:
    """Computes sum(pq), sum p and sum q over some axes: float32 [B, C], or [] over all.

    If soft, pq is replaced by (p + q - |p - q|) / 2, which equals it where p is 0 or 1.
    """
    mask, logits = prepared(mask, logits)
    q = tf.sigmoid(logits)
    overlap = (mask + q - tf.abs(mask - q)) / 2 if soft else mask * q
    return [tf.reduce_sum(x, axis=axis) for x in (overlap, mask, q)]


def _batch_sums(mask: tf.Tensor, logits: tf.Tensor, soft: bool = False) -> list[tf.Tensor]:
    """Computes the `_sums` over the global batch: float32 [] each."""
    sums = _sums(mask, logits, [0, 1, 2, 3], soft)
    context = tf.distribute.get_replica_context()
    if context and context.num_replicas_in_sync > 1:
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)  # also in its gradient
    return sums


def _for_each_image(value: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Repeats the number of a batch for each image of this replica."""
    return tf.fill([tf.shape(mask)[0]], value)


def _dice(sums: list[tf.Tensor], smooth: float) -> tf.Tensor:
    overlap, truth, found = sums
    return 1 - (2 * overlap + smooth) / (truth + found + smooth)


def _tversky(sums: list[tf.Tensor], beta: float, smooth: float) -> tf.Tensor:
    overlap, truth, found = sums
    wrong, missed = found - overlap, truth - overlap
    return 1 - (overlap + smooth) / (overlap + beta * wrong + (1 - beta) * missed + smooth)


def _jaccard(sums: list[tf.Tensor], smooth: float) -> tf.Tensor:
    overlap, truth, found = sums
    return 1 - (overlap + smooth) / (truth + found - overlap + smooth)


def dice(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """1 - soft Dice of each image and class, the mean over classes.

    1 - (2 sum(pq) + s) / (sum p + sum q + s), the common form; that of Milletari et al., "V-Net",
    2016, section 3, has squares.

    Args:
        smooth: s, in pixels; keeps the loss finite if mask and prediction are empty.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_dice(_sums(mask, logits), smooth), axis=1)


def present_dice(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """`dice` over the classes present in an image, 0 for an image without any: float32 [B]."""
    sums = _sums(mask, logits)
    present = tf.cast(sums[1] > 0, tf.float32)
    total = tf.reduce_sum(present * _dice(sums, smooth), axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1))


def batch_dice(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """`dice` of all pixels, images and classes of the batch together: float32 [B], all equal.

    This is the baseline's loss. The competition's score weights every image and class equally.
    """
    return _for_each_image(_dice(_batch_sums(mask, logits), smooth), mask)


def semimetric_dice(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """Dice loss for soft targets, minimal at q = p; equals `dice` if all targets are 0 or 1.

    1 - (sum p + sum q - sum |p - q| + s) / (sum p + sum q + s): Wang et al., "Dice Semimetric
    Losses", 2023 (arXiv 2303.16296). With soft targets, the other overlap losses are minimal where
    q is 0 or 1.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_dice(_sums(mask, logits, soft=True), smooth), axis=1)


def batch_semimetric_dice(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """`semimetric_dice` of all pixels of the batch together: float32 [B], all equal."""
    return _for_each_image(_dice(_batch_sums(mask, logits, soft=True), smooth), mask)


def tversky(
    mask: tf.Tensor, logits: tf.Tensor, beta: float = 0.5, smooth: float = 1.0
) -> tf.Tensor:
    """1 - the Tversky index of each image and class, the mean over classes.

    1 - (sum(pq) + s) / (sum(pq) + beta sum((1-p)q) + (1-beta) sum(p(1-q)) + s): Salehi et al.,
    "Tversky loss function for image segmentation", 2017, equation 3.

    Args:
        beta: weight of false positives; false negatives have 1 - beta. With 1/2 and s = 0, this is
            `dice`.
        smooth: s, in pixels.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_tversky(_sums(mask, logits), beta, smooth), axis=1)


def batch_tversky(
    mask: tf.Tensor, logits: tf.Tensor, beta: float = 0.5, smooth: float = 1.0
) -> tf.Tensor:
    """`tversky` of all pixels of the batch together: float32 [B], all equal."""
    return _for_each_image(_tversky(_batch_sums(mask, logits), beta, smooth), mask)


def jaccard(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """1 - soft intersection over union of each image and class, the mean over classes.

    1 - (sum(pq) + s) / (sum p + sum q - sum(pq) + s): Rahman and Wang, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016, equation 3.

    Args:
        smooth: s, in pixels.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_jaccard(_sums(mask, logits), smooth), axis=1)


def batch_jaccard(mask: tf.Tensor, logits: tf.Tensor, smooth: float = 1.0) -> tf.Tensor:
    """`jaccard` of all pixels of the batch together: float32 [B], all equal."""
    return _for_each_image(_jaccard(_batch_sums(mask, logits), smooth), mask)


def _hinge(mask: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Lovász hinge of N rows of P pixels, [N, P] -> [N].

    Berman et al., "The Lovász-Softmax loss", 2018, equations 9 and 12.
    """
    errors = tf.nn.relu(1 - logits * (2 * mask - 1))
    errors, order = tf.math.top_k(errors, tf.shape(errors)[1])
    mask = tf.gather(mask, order, batch_dims=1)
    truth = tf.reduce_sum(mask, axis=1, keepdims=True)
    # If the pixels up to each position are wrong and those after it are right:
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

    The errors relu(1 - x (2p - 1)), sorted in descending order, times the increase of 1 -
    intersection over union due to each if all before it are wrong.

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
