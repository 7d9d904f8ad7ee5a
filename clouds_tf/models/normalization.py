"""Batch norm synchronised over all replicas, about as fast as that of one replica."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf

from clouds_tf.keras import keras

_context = threading.local()  # each replica is traced in its own thread


def _affine(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    mean: tf.Tensor,
    variance: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """Computes scale * (x - mean) / sqrt(variance + epsilon) + offset in one pass."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    ).y


def _moments(x: tf.Tensor) -> tf.Tensor:
    """Count, mean and sum of squared deviations of the values of each channel: float32 [3, C]."""
    channels = tf.shape(x)[-1]
    count = tf.cast(tf.size(x) // channels, tf.float32)
    ones = tf.ones([channels])
    found = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=ones, offset=ones, mean=[], variance=[], is_training=True
    )
    # The operation returns the unbiased variance (divided by count - 1), and NaN for no values.
    moments = tf.stack([count * ones, found.batch_mean, found.batch_variance * (count - 1)])
    return tf.where(count > 0, moments, 0.0)


def _combine(moments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Count, mean and variance of each channel, [C], from the `_moments` of all replicas [R, 3, C].

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm", 1979: E[x^2] - E[x]^2
    would lose all digits where the mean is much larger than the deviations.
    """
    counts, means, squares = tf.unstack(moments, axis=1)
    base = tf.reduce_max(tf.where(counts > 0, means, means.dtype.min), axis=0)
    shifts = tf.where(counts > 0, means - base, 0.0)
    count = tf.reduce_sum(counts, axis=0)
    shift = tf.reduce_sum(counts * shifts, axis=0) / count
    squares += counts * tf.square(shifts - shift)
    return count, base + shift, tf.reduce_sum(squares, axis=0) / count


@contextlib.contextmanager
def counting(counted: tf.Tensor) -> Iterator[None]:
    """Context in which BatchNorm ignores this replica's values unless `counted`, a bool [].

    For a replica without images, which takes part in the sums over replicas with padding.
    """
    _context.counted = counted
    try:
        yield
    finally:
        _context.counted = None


def _sum_over_replicas(values: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce("SUM", values)


def _of_all_replicas(values: tf.Tensor) -> tf.Tensor:
    """Gathers the values [...] of each replica to [R, ...], as a sum of separate rows."""
    replica = tf.distribute.get_replica_context()
    row = tf.one_hot(replica.replica_id_in_sync_group, replica.num_replicas_in_sync)
    return _sum_over_replicas(tf.reshape(row, [-1, *[1] * len(values.shape)]) * values)


def _normalize_over_replicas(
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    epsilon: float,
    counted: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes [B, H, W, C] by the mean and variance over all replicas; call it in each replica.

    Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1 and the gradients on page 4. The
    forward and the backward pass take one all-reduce each. If `counted`, bool [], is false, this
    replica's values are left out of the statistics and the gradients. Also returns the mean and the
    unbiased variance over all replicas, float32 [C], without gradient.
    """

    def only_counted(values: tf.Tensor) -> tf.Tensor:
        return values if counted is None else tf.where(counted, values, 0.0)

    @tf.custom_gradient
    def normalize(x: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor) -> tuple:
        count, mean, variance = _combine(_of_all_replicas(only_counted(_moments(x))))

        def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # Sums over this replica alone, like the gradients of other weights.
            dx, d_scale, d_offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy,
                x=x,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
                is_training=False,
            )
            factor = scale * tf.math.rsqrt(variance + epsilon) / count
            slope, shift = tf.unstack(factor * _sum_over_replicas(tf.stack([d_scale, d_offset])))
            slope, shift = only_counted(slope), only_counted(shift)
            return dx - _affine(x, slope, shift, mean, variance, epsilon), d_scale, d_offset

        outputs = _affine(x, scale, offset, mean, variance, epsilon)
        return (outputs, mean, variance * count / tf.maximum(count - 1, 1)), gradient

    return normalize(x, scale, offset)


@keras.utils.register_keras_serializable("clouds_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch norm, synchronised over all replicas.

    Keras' own `synchronized` takes six all-reduces, and adds and multiplies whole maps one
    operation at a time. Only training on several replicas differs from Keras' layer.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Normalizes inputs, float [B, H, W, C]."""
        replica = tf.distribute.get_replica_context()
        if not (training and self.trainable and replica and replica.num_replicas_in_sync > 1):
            return super().call(inputs, training)
        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        offset = self.beta if self.center else tf.zeros_like(self.moving_mean)
        outputs, mean, variance = _normalize_over_replicas(
            inputs, scale, offset, self.epsilon, getattr(_context, "counted", None)
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_sub((moving - new) * (1 - self.momentum))
        return outputs
