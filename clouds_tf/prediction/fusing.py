"""Inference models with batch norm fused into convolutions and upsampling kernels prepared."""

from __future__ import annotations

from typing import Any

import numpy as np

from clouds_tf.keras import Layer, Model, keras
from clouds_tf.models.upsampling import UpsampleConv, spread_kernel

layers = keras.layers

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D, UpsampleConv)


def fuse(model: Model) -> Any:
    """Builds an equivalent inference model with batch norm fused, and upsampling prepared.

    For batch norm y = gamma (x - mean) / sqrt(variance + epsilon) + beta after a convolution, the
    factor is merged into the kernel and the rest into a bias. Batch norm that does not directly
    follow its own convolution stays, such as that after additions in a pre-activation encoder. The
    kernels of upsampling are converted in advance.

    Args:
        model: a functional keras.Model.

    Returns:
        A keras.Model with its own weights; its outputs equal those of `model(..., training=False)`
        except for rounding.
    """
    norms = _fusible_norms(model)
    fused_names = {norm.name for norm in norms.values()}

    def copy(layer: Layer) -> Any:
        if layer.name in fused_names:
            return layers.Activation("linear", name=layer.name, dtype=layer.dtype_policy)
        config = layer.get_config()
        for name in config.keys() & {"kernel_initializer", "depthwise_initializer"}:
            config[name] = "zeros"  # avoids drawing random numbers
        if layer.name in norms:
            config["use_bias"] = True
        if isinstance(layer, UpsampleConv):
            config["fused"] = True
        return layer.__class__.from_config(config)

    fused = keras.models.clone_model(model, clone_function=copy)
    for layer in model.layers:
        if layer.name in fused_names:
            continue
        weights, target = layer.get_weights(), fused.get_layer(layer.name)
        if layer.name in norms:
            weights = _fused_weights(layer, norms[layer.name])
        if isinstance(layer, UpsampleConv) and not layer.fused:
            kernel, *bias = weights
            up, skip = spread_kernel(kernel, target.up_kernel.shape[3])
            weights = [up, *([skip] if skip.shape[2] else []), *bias]
        target.set_weights(weights)
    return fused


def _fusible_norms(model: Model) -> dict[str, Any]:
    """Finds batch norm that is the only consumer of a convolution, by name of the convolution."""
    norms = {}
    for norm in model.layers:
        if isinstance(norm, layers.BatchNormalization):
            before = norm.inbound_nodes[0].inbound_layers
            is_linear = getattr(before, "activation", None) in (None, keras.activations.linear)
            if (
                isinstance(before, _CONVOLUTIONS)
                and is_linear
                and not getattr(before, "fused", False)
                and len(before.outbound_nodes) == 1
            ):
                norms[before.name] = norm
    return norms


def _fused_weights(conv: Layer, norm: Layer) -> list[np.ndarray]:
    """Computes the float32 kernel and bias of a convolution followed by batch norm."""
    kernel, *biases = conv.get_weights()
    bias = biases[0] if biases else 0
    gamma = norm.gamma.numpy() if norm.scale else 1
    beta = norm.beta.numpy() if norm.center else 0
    scale = gamma / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    # Depthwise kernels are [height, width, channels, multiplier], their outputs in that order.
    factor = scale.reshape(kernel.shape[2:] if isinstance(conv, layers.DepthwiseConv2D) else -1)
    return [kernel * factor, beta + (bias - norm.moving_mean.numpy()) * scale]
