"""Batch norm and upsampling folded into convolutions, for a model that is trained no more."""

import numpy as np
import tensorflow as tf

from clouds_tf.models.unet import Upsample

layers = tf.keras.layers


def _identity(layer):
    return layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)


def _folded_norms(model):
    """A dict: name of a convolution -> the batch norm that follows it, and that alone does."""
    norms = {}
    for norm in model.layers:
        if isinstance(norm, layers.BatchNormalization):
            before = norm.inbound_nodes[0].inbound_layers
            if isinstance(before, layers.Conv2D) and len(before.outbound_nodes) == 1:
                norms[before.name] = norm
    return norms


def _folded(conv, norm):
    """The kernel and bias of `conv` followed by the inference mode of `norm`: float32 arrays."""
    kernel, *bias = conv.get_weights()
    bias = bias[0] if bias else 0
    gamma = norm.gamma.numpy() if norm.scale else 1
    beta = norm.beta.numpy() if norm.center else 0
    scale = gamma / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    return [kernel * scale, beta + (bias - norm.moving_mean.numpy()) * scale]


def fold_batch_norm(model):
    """Builds a model that infers the same with less: convolutions that include their batch norm.

    With batch norm y = gamma (x - mean) / sqrt(variance + epsilon) + beta after a convolution, the
    factor goes into the kernel and the rest into a bias. Batch norm that has no convolution of its
    own right before it stays: that of the pre-activation encoder after additions and of the image.

    Args:
        model: a functional tf.keras.Model.

    Returns:
        A tf.keras.Model with weights of its own; its outputs equal those of
        `model(..., training=False)` but for rounding.
    """
    norms = _folded_norms(model)
    folded_names = {norm.name for norm in norms.values()}

    def clone(layer):
        if layer.name in folded_names:
            return _identity(layer)
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    folded = tf.keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            folded.get_layer(layer.name).set_weights(_folded(layer, norms[layer.name]))
        elif layer.name not in folded_names:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


@tf.keras.utils.register_keras_serializable("clouds_tf")
class UpsampleConv(layers.Layer):
    """Upsamples x, joins a skip and convolves by 3x3, without making what is in between.

    Nearest-neighbour upsampling is a transposed convolution of 2x2 ones at stride 2; with the 3x3
    after it, it is one of 4x4: 16 products for each pixel and pair of channels instead of 36. The
    convolution of the joined maps is the sum of one for each.

    Args:
        filters: F, the channels of the result.

    Call arguments:
        inputs: maps [B, H, W, C], or a list of these and a skip [B, 2H, 2W, S].

    Returns:
        float [B, 2H, 2W, F].
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        joined = isinstance(input_shape, list)
        dtype = self.dtype_policy
        self.up = layers.Conv2DTranspose(
            self.filters, 4, 2, "same", use_bias=not joined, dtype=dtype, name="up"
        )
        self.up.build(input_shape[0] if joined else input_shape)
        self.skip = None
        if joined:
            self.skip = layers.Conv2D(self.filters, 3, padding="same", dtype=dtype, name="skip")
            self.skip.build(input_shape[1])
        super().build(input_shape)

    def call(self, inputs):
        if self.skip is None:
            return self.up(inputs)
        x, skip = inputs
        return self.skip(skip) + self.up(x)

    def set_from(self, kernel, bias):
        """Takes the kernel [3, 3, C + S, F] and bias [F] of the convolution of the joined maps."""
        channels = self.up.kernel.shape[3]
        up = np.pad(kernel[:, :, :channels], [(1, 1), (1, 1), (0, 0), (0, 0)])
        up = up[1:] + up[:-1]
        up = up[:, 1:] + up[:, :-1]
        up = up[::-1, ::-1].transpose(0, 1, 3, 2)
        if self.skip is None:
            self.up.set_weights([up, bias])
        else:
            self.up.set_weights([up])
            self.skip.set_weights([kernel[:, :, channels:], bias])

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


def fold_upsampling(model):
    """Builds a model that infers the same with less: upsampling inside the convolutions after it.

    Args:
        model: a functional tf.keras.Model, of `unet` or of `fold_batch_norm`; every `Upsample` in
            it stands before a 3x3 convolution with bias, or before a Concatenate before one.

    Returns:
        A tf.keras.Model with weights of its own; its outputs equal those of the model but for
        rounding.
    """
    convs, removed = {}, set()  # the layer in whose place an UpsampleConv stands -> convolution
    for conv in model.layers:
        before = conv.inbound_nodes[0].inbound_layers if isinstance(conv, layers.Conv2D) else None
        if isinstance(before, layers.Concatenate):
            up = before.inbound_nodes[0].inbound_layers[0]
            convs[before.name] = conv
            removed |= {up.name, conv.name}
        elif isinstance(before, Upsample):
            convs[before.name] = conv
            removed.add(conv.name)

    def clone(layer):
        if layer.name in convs:
            return UpsampleConv(
                convs[layer.name].filters, name=layer.name, dtype=layer.dtype_policy
            )
        if layer.name in removed:
            return _identity(layer)
        return layer.__class__.from_config(layer.get_config())

    folded = tf.keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in convs:
            folded.get_layer(layer.name).set_from(*convs[layer.name].get_weights())
        elif layer.name not in removed:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded
