"""The Dice of an epoch with tuned rules: an estimate of the score that `evaluate` will report."""

from __future__ import annotations

import tensorflow as tf

from clouds_tf.models.probabilities import for_masks, probabilities
from clouds_tf.prediction.postprocessing import (
    LOWEST_THRESHOLD,
    MIN_TOP_MEANS,
    RELATIVE_THRESHOLDS,
    is_present,
    mask_thresholds,
    top_means,
)


class TunedDice:
    """The competition's Dice with a rule for each class, cross-fitted on halves of the images.

    Each half is scored with the rule that is best on the other half, so the score is unbiased. The
    candidate rules are those of `evaluate`. Every second row and column is used, which is accurate
    enough, and cheap compared with the network.

    Create it in the scope of the model's strategy. It is not part of any checkpoint.

    Args:
        num_classes: number of classes.
        exclusive: whether a pixel counts for its most probable class only.
    """

    def __init__(self, num_classes: int, exclusive: bool = False) -> None:
        self._exclusive = exclusive
        shape = [2, num_classes, len(MIN_TOP_MEANS), len(RELATIVE_THRESHOLDS)]
        self._sums, self._images = (
            tf.Variable(
                tf.zeros(shape, tf.float64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for shape in (shape, [2])
        )

    def update(self, mask: tf.Tensor, logits: tf.Tensor, half: tf.Tensor) -> None:
        """Adds a batch: mask [B, h, w, C] in 0..1, logits [B, h', w', C], half int [B] of 0, 1."""
        q = probabilities(logits, tf.shape(mask)[1:3])[:, ::2, ::2]
        q = for_masks(tf.ensure_shape(q, mask[:, ::2, ::2].shape), self._exclusive)
        truth = tf.cast(mask, tf.float32)[:, ::2, ::2] > 0.5

        def fractions(of: tf.Tensor) -> tf.Tensor:
            return tf.reduce_mean(tf.cast(of, tf.float32), axis=[1, 2])  # [B, C]

        means = top_means(q)[..., tf.newaxis]
        relative = tf.constant(RELATIVE_THRESHOLDS)
        limits = mask_thresholds(means, LOWEST_THRESHOLD, relative)  # [B, C, R]
        above = [q > t[:, tf.newaxis, tf.newaxis] for t in tf.unstack(limits, axis=-1)]
        found = tf.stack([fractions(pixels) for pixels in above], axis=-1)
        shared = tf.stack([fractions(pixels & truth) for pixels in above], axis=-1)
        area = fractions(truth)[..., tf.newaxis]
        both_empty = tf.cast(area + found == 0, tf.float32)
        dice = tf.math.divide_no_nan(2 * shared, area + found) + both_empty
        present = is_present(means, MIN_TOP_MEANS)[..., tf.newaxis]  # [B, C, M, 1]
        absent = tf.cast(area == 0, tf.float32)[..., tf.newaxis]
        scores = tf.where(present, dice[:, :, tf.newaxis], absent)
        halves = tf.one_hot(half, 2, dtype=tf.float64)
        self._sums.assign_add(tf.einsum("bh,bcmr->hcmr", halves, tf.cast(scores, tf.float64)))
        self._images.assign_add(tf.reduce_sum(halves, axis=0))

    def result(self) -> float:
        """The score; call it on all workers, outside of replicas."""
        sums, images = tf.identity(self._sums), tf.identity(self._images)
        flat = tf.reshape(sums, [2, sums.shape[1], -1])
        best = tf.argmax(flat, axis=-1)  # of each half and class
        crossed = tf.gather(flat, best[::-1], axis=-1, batch_dims=2)
        return float(tf.reduce_mean(tf.reduce_sum(crossed, axis=0)) / tf.reduce_sum(images))

    def reset(self) -> None:
        """Forgets all images."""
        for variable in (self._sums, self._images):
            variable.assign(tf.zeros_like(variable))
