"""Batch norm over the images of all replicas, at the speed of that over the images of one."""

import tensorflow as tf

from clouds_tf.keras import keras


def _affine(x, scale, offset, mean, variance, epsilon):
    """scale * (x - mean) / sqrt(variance + epsilon) + offset, in one pass; in the dtype of x."""
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    ).y


def _sums(x):
    """Sum and sum of squares of each channel, and the number of its values: float32 [3, C]."""
    channels = tf.shape(x)[-1]
    count = tf.cast(tf.size(x) // channels, tf.float32)
    ones = tf.ones([channels])
    found = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=ones, offset=ones, mean=[], variance=[], is_training=True
    )
    mean = found.batch_mean
    # The operation gives the variance of a sample, by Bessel; of no values it gives NaN.
    squares = found.batch_variance * (count - 1) + tf.square(mean) * count
    sums = tf.stack([mean * count, squares, count * ones])
    return tf.where(count > 0, sums, 0.0)


def _sum_over_replicas(values):
    return tf.distribute.get_replica_context().all_reduce("SUM", values)


def normalize_over_replicas(x, scale, offset, epsilon):
    """Normalises by the mean and variance of all replicas' values; call it in each replica.

    Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1 and the gradients on page 4. Forward
    and backward there is one sum over replicas.

    Args:
        x: float16, bfloat16 or float32 [B, H, W, C]; B may be 0 in some replicas.
        scale: float32 [C].
        offset: float32 [C].
        epsilon: a number above 0, which is added to the variance.

    Returns:
        Like x; and without gradient, float32 [C]: mean, and the variance of a sample.
    """

    @tf.custom_gradient
    def normalize(x, scale, offset):
        total, squares, count = tf.unstack(_sum_over_replicas(_sums(x)))
        mean = total / count
        variance = tf.maximum(squares / count - tf.square(mean), 0.0)

        def gradient(dy, *_):
            # These sums are of the values here alone, as the gradients of other weights are.
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
            return dx - _affine(x, slope, shift, mean, variance, epsilon), d_scale, d_offset

        outputs = _affine(x, scale, offset, mean, variance, epsilon)
        return (outputs, mean, variance * count / tf.maximum(count - 1, 1)), gradient

    return normalize(x, scale, offset)


@keras.utils.register_keras_serializable("clouds_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch norm, whose statistics are of the images of all replicas.

    Keras' own `synchronized` takes six sums over replicas, and adds and multiplies whole maps one
    operation at a time. Weights, and everything but training on several replicas, are Keras'.
    """

    def call(self, inputs, training=None):
        """Normalises inputs, float [B, H, W, C]."""
        replica = tf.distribute.get_replica_context()
        if not (training and self.trainable and replica and replica.num_replicas_in_sync > 1):
            return super().call(inputs, training)
        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        offset = self.beta if self.center else tf.zeros_like(self.moving_mean)
        outputs, mean, variance = normalize_over_replicas(inputs, scale, offset, self.epsilon)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_sub((moving - new) * (1 - self.momentum))
        return outputs
