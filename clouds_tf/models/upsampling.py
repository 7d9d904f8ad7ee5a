"""Upsampling and the convolution after it, in fewer products."""

import numpy as np
import tensorflow as tf

from clouds_tf.keras import keras

# Each row of a 4x4 kernel as a sum of rows of a 3x3 one: over an upsampled map, two of the three
# rows fall on one and the same row of the original, and which two depends on the output's parity.
_ROWS = np.float32([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
_SPREAD = np.kron(_ROWS, _ROWS)  # [16, 9]: the same for rows and columns


def spread_kernel(kernel, channels):
    """Divides the 3x3 kernel of joined maps, and spreads the part of the upsampled ones.

    Args:
        kernel: float [3, 3, C + S, F] of a convolution of C upsampled maps and S of a skip.
        channels: C.

    Returns:
        float [4, 4, F, C] of a transposed convolution at stride 2, and [3, 3, S, F].
    """
    up, skip = tf.split(kernel, [channels, kernel.shape[2] - channels], axis=2)
    filters = up.shape[3]
    spread = tf.cast(_SPREAD, up.dtype) @ tf.reshape(up, [9, channels * filters])
    spread = tf.reshape(spread, [4, 4, channels, filters])
    return tf.transpose(spread, [0, 1, 3, 2]), skip


@keras.utils.register_keras_serializable("clouds_tf")
class UpsampleConv(keras.layers.Layer):
    """Upsamples maps to twice the size, joins a skip, and convolves by 3x3 at stride 1.

    Nearest-neighbour upsampling is a transposed convolution of 2x2 ones at stride 2; with the 3x3
    after it, it is one of 4x4: 16 products for each pixel and pair of channels instead of 36. The
    convolution of joined maps is the sum of one for each, so nothing is upsampled or joined.

    Args:
        filters: F, the channels of the result.
        use_bias: whether to add a bias.
        folded: whether the weights are what `spread_kernel` makes of the kernel, for a model that
            is trained no more.

    Call arguments:
        inputs: maps [B, H, W, C], or a list of these and a skip [B, 2H, 2W, S].

    Returns:
        float [B, 2H, 2W, F].
    """

    def __init__(self, filters, use_bias=False, folded=False, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.use_bias, self.folded = filters, use_bias, folded

    def build(self, input_shape):
        # A saved model gives a single shape as a list too.
        several = isinstance(input_shape[0], (list, tuple, tf.TensorShape))
        shapes = input_shape if several else [input_shape]
        channels = [shape[-1] for shape in shapes]
        if self.folded:
            self.up_kernel = self.add_weight("up_kernel", [4, 4, self.filters, channels[0]])
            for skip_channels in channels[1:]:
                shape = [3, 3, skip_channels, self.filters]
                self.skip_kernel = self.add_weight("skip_kernel", shape)
        else:
            shape = [3, 3, sum(channels), self.filters]
            self.kernel = self.add_weight("kernel", shape, initializer="he_uniform")
        if self.use_bias:
            self.bias = self.add_weight("bias", [self.filters], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs):
        x, *skips = tf.nest.flatten(inputs)
        if self.folded:
            up, rest = self.up_kernel, self.skip_kernel if skips else None
        else:
            up, rest = spread_kernel(self.kernel, x.shape[3])
        batch, height, width, _ = tf.unstack(tf.shape(x))
        shape = [batch, 2 * height, 2 * width, self.filters]
        terms = [tf.nn.conv2d_transpose(x, up, shape, strides=2)]
        terms += [tf.nn.conv2d(skip, rest, strides=1, padding="SAME") for skip in skips]
        if self.use_bias:
            terms[-1] = tf.nn.bias_add(terms[-1], self.bias)
        return tf.add_n(terms)

    def get_config(self):
        config = {"filters": self.filters, "use_bias": self.use_bias, "folded": self.folded}
        return {**super().get_config(), **config}
