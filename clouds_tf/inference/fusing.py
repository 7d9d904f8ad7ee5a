"""Batch norm and upsampling fused into convolutions, for a model that is trained no more."""

import numpy as np

from clouds_tf.keras import keras
from clouds_tf.models.upsampling import UpsampleConv, spread_kernel

layers = keras.layers


def _identity(layer):
    return layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)


def _fused_norms(model):
    """A dict: name of a convolution -> the batch norm that follows it, and that alone does."""
    norms = {}
    for norm in model.layers:
        if isinstance(norm, layers.BatchNormalization):
            before = norm.inbound_nodes[0].inbound_layers
            is_conv = isinstance(before, (layers.Conv2D, UpsampleConv))
            if is_conv and len(before.outbound_nodes) == 1:
                norms[before.name] = norm
    return norms


def _fused(conv, norm):
    """The kernel and bias of `conv` followed by the inference mode of `norm`: float32 arrays."""
    kernel, *bias = conv.get_weights()
    bias = bias[0] if bias else 0
    gamma = norm.gamma.numpy() if norm.scale else 1
    beta = norm.beta.numpy() if norm.center else 0
    scale = gamma / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    return [kernel * scale, beta + (bias - norm.moving_mean.numpy()) * scale]


def fuse(model):
    """Builds an equivalent inference model with batch norm and upsampling fused.

    Args:
        model: a functional keras.Model of `unet`.

    Returns:
        A keras.Model with weights of its own; its outputs equal those of
        `model(..., training=False)` but for rounding.
    """
    return fuse_upsampling(fuse_batch_norm(model))


def fuse_batch_norm(model):
    """Builds an equivalent inference model with batch norm fused into the convolutions.

    With batch norm y = gamma (x - mean) / sqrt(variance + epsilon) + beta after a convolution, the
    factor goes into the kernel and the rest into a bias. Batch norm that has no convolution of its
    own right before it stays: that of the pre-activation encoder after additions and of the image.

    Args:
        model: a functional keras.Model.

    Returns:
        A keras.Model with weights of its own; its outputs equal those of
        `model(..., training=False)` but for rounding.
    """
    norms = _fused_norms(model)
    fused_names = {norm.name for norm in norms.values()}

    def clone(layer):
        if layer.name in fused_names:
            return _identity(layer)
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
        return layer.__class__.from_config(config)

    fused = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        if layer.name in norms:
            fused.get_layer(layer.name).set_weights(_fused(layer, norms[layer.name]))
        elif layer.name not in fused_names:
            fused.get_layer(layer.name).set_weights(layer.get_weights())
    return fused


def fuse_upsampling(model):
    """Builds an equivalent inference model whose upsampling kernels are spread once, in advance.

    Args:
        model: a functional keras.Model, of `unet` or of `fuse_batch_norm`.

    Returns:
        A keras.Model with weights of its own; its outputs equal those of the model but for
        rounding.
    """

    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, UpsampleConv):
            config["folded"] = True
        return layer.__class__.from_config(config)

    fused = keras.models.clone_model(model, clone_function=clone)
    for layer in model.layers:
        weights = layer.get_weights()
        if isinstance(layer, UpsampleConv):
            kernel, *bias = weights
            up, skip = spread_kernel(kernel, fused.get_layer(layer.name).up_kernel.shape[3])
            weights = [up, *([skip] if skip.shape[2] else []), *bias]
        fused.get_layer(layer.name).set_weights(weights)
    return fused
