"""Losses of overlap: 1 - a ratio of sums over pixels, with truth p and probability q."""

import tensorflow as tf

from clouds_tf.models.losses.inputs import prepared


def _sums(mask, logits, axis=(1, 2)):
    """sum(pq), sum p and sum q over these axes: float32 [B, C], or [] over all."""
    mask, logits = prepared(mask, logits)
    q = tf.sigmoid(logits)
    return [tf.reduce_sum(x, axis=axis) for x in (mask * q, mask, q)]


def _batch_sums(mask, logits):
    """The same over the global batch: float32 [] each."""
    sums = _sums(mask, logits, axis=[0, 1, 2, 3])
    context = tf.distribute.get_replica_context()
    if context and context.num_replicas_in_sync > 1:
        sums = context.all_reduce(tf.distribute.ReduceOp.SUM, sums)  # so is its gradient
    return sums


def _for_each_image(value, mask):
    """One number for the batch, given to each of its images here."""
    return tf.fill([tf.shape(mask)[0]], value)


def _dice(sums, smooth):
    overlap, truth, found = sums
    return 1 - (2 * overlap + smooth) / (truth + found + smooth)


def _tversky(sums, beta, smooth):
    overlap, truth, found = sums
    wrong, missed = found - overlap, truth - overlap
    return 1 - (overlap + smooth) / (overlap + beta * wrong + (1 - beta) * missed + smooth)


def _jaccard(sums, smooth):
    overlap, truth, found = sums
    return 1 - (overlap + smooth) / (truth + found - overlap + smooth)


def dice(mask, logits, smooth=1.0):
    """1 - soft Dice of each image and class, the mean over classes.

    1 - (2 sum(pq) + s) / (sum p + sum q + s). Milletari et al., "V-Net", 2016, section 3, has the
    form with squares; this one is the common one.

    Args:
        mask: see the package.
        logits: see the package.
        smooth: s, in pixels; keeps the loss finite where both are empty.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_dice(_sums(mask, logits), smooth), axis=1)


def present_dice(mask, logits, smooth=1.0):
    """`dice` of the classes that an image has, and 0 for an image without any: float32 [B]."""
    sums = _sums(mask, logits)
    present = tf.cast(sums[1] > 0, tf.float32)
    total = tf.reduce_sum(present * _dice(sums, smooth), axis=1)
    return tf.math.divide_no_nan(total, tf.reduce_sum(present, axis=1))


def batch_dice(mask, logits, smooth=1.0):
    """`dice` of all pixels of the batch together, whatever image or class: float32 [B], all equal.

    It is the baseline's, and not the competition's: there every image and class counts the same.
    """
    return _for_each_image(_dice(_batch_sums(mask, logits), smooth), mask)


def tversky(mask, logits, beta=0.5, smooth=1.0):
    """1 - the Tversky index of each image and class, the mean over classes.

    1 - (sum(pq) + s) / (sum(pq) + beta sum((1-p)q) + (1-beta) sum(p(1-q)) + s): Salehi et al.,
    "Tversky loss function for image segmentation", 2017, equation 3.

    Args:
        mask: see the package.
        logits: see the package.
        beta: of pixels found that are not there, against 1 - beta of those missed. At 1/2 and s = 0
            it is `dice`.
        smooth: s, in pixels.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_tversky(_sums(mask, logits), beta, smooth), axis=1)


def batch_tversky(mask, logits, beta=0.5, smooth=1.0):
    """`tversky` of all pixels of the batch together: float32 [B], all equal."""
    return _for_each_image(_tversky(_batch_sums(mask, logits), beta, smooth), mask)


def jaccard(mask, logits, smooth=1.0):
    """1 - soft intersection over union of each image and class, the mean over classes.

    1 - (sum(pq) + s) / (sum p + sum q - sum(pq) + s): Rahman and Wang, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation", 2016, equation 3.

    Args:
        mask: see the package.
        logits: see the package.
        smooth: s, in pixels.

    Returns:
        float32 [B] in [0, 1].
    """
    return tf.reduce_mean(_jaccard(_sums(mask, logits), smooth), axis=1)


def batch_jaccard(mask, logits, smooth=1.0):
    """`jaccard` of all pixels of the batch together: float32 [B], all equal."""
    return _for_each_image(_jaccard(_batch_sums(mask, logits), smooth), mask)
