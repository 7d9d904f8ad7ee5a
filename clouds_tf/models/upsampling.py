"""Upsampling and the following convolution in one layer, with fewer multiplications."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf.keras import keras

# Each row of a 4x4 kernel as a sum of rows of a 3x3 kernel: on an upsampled map, two of the three
# rows see the same row of the original; which two depends on the parity of the output row.
_ROWS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32)
_SPREAD = np.kron(_ROWS, _ROWS)  # [16, 9], for rows and columns


def spread_kernel(kernel: tf.Tensor, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits the 3x3 kernel for concatenated maps and converts the part for upsampled ones.

    Args:
        kernel: float [3, 3, C + S, F] of a convolution of C upsampled channels and S of a skip.
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
    """Upsamples maps to twice the size, concatenates a skip, and applies a 3x3 convolution.

    Nearest-neighbour upsampling is a transposed convolution with a 2x2 kernel of ones at stride 2;
    combined with the following 3x3 convolution, it has a 4x4 kernel: 16 multiplications per input
    pixel and pair of channels instead of 36. A convolution of concatenated maps is the sum of the
    convolutions of each, so upsampled and concatenated maps are never made.

    Args:
        filters: F, the channels of the result.
        use_bias: whether to add a bias.
        fused: whether the weights are the results of `spread_kernel`, for inference only.

    Call arguments:
        inputs: maps [B, H, W, C], or a list of these and a skip [B, 2H, 2W, S].

    Output:
        float [B, 2H, 2W, F].
    """

    def __init__(
        self, filters: int, use_bias: bool = False, fused: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.use_bias, self.fused = filters, use_bias, fused

    def build(self, input_shape: Any) -> None:
        # Saved models pass a single shape as a list, too.
        several = isinstance(input_shape[0], (list, tuple, tf.TensorShape))
        shapes = input_shape if several else [input_shape]
        channels = [shape[-1] for shape in shapes]
        if self.fused:
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

    def call(self, inputs: tf.Tensor | list[tf.Tensor]) -> tf.Tensor:
        x, *skips = tf.nest.flatten(inputs)
        if self.fused:
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

    def get_config(self) -> dict[str, Any]:
        config = {"filters": self.filters, "use_bias": self.use_bias, "fused": self.fused}
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> UpsampleConv:
        config = dict(config)
        if "folded" in config:  # the name of `fused` in models saved by version 0.1
            config["fused"] = config.pop("folded")
        return cls(**config)
