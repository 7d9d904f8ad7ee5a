"""ResNet-34 in two versions: with post-activation and with pre-activation."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from clouds_tf.keras import KerasTensor, keras
from clouds_tf.models.encoders.interface import (
    TORCH_VARIABLES,
    Encoder,
    for_channels,
    read_keras_h5,
    read_torch,
)
from clouds_tf.models.normalization import BatchNorm

layers = keras.layers

_STAGE_BLOCKS = (3, 4, 6, 3)
_STAGE_CHANNELS = (64, 128, 256, 512)
# Mean and standard deviation of ImageNet's RGB in 0..1, which torchvision's weights expect.
_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_STD = (0.229, 0.224, 0.225)


_norm = functools.partial(BatchNorm, momentum=0.9, epsilon=1e-5)
_norm_preactivation = functools.partial(BatchNorm, momentum=0.99, epsilon=2e-5)


def scale_channels(channels: int, width: float) -> int:
    """Multiplies channels by a width and rounds to a multiple of 8, at least 16.

    GPUs are fastest with multiples of 8. Below 16 channels, the gradient of a 1x1 convolution at
    stride 2 corrupts memory on CPUs (oneDNN in TensorFlow 2.15).
    """
    return max(16, 8 * round(channels * width / 8))


def _conv(
    x: KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int,
    name: str,
    dtype: str | None = None,
) -> Any:
    """Applies a convolution without bias and with symmetric padding, as in torchvision.

    Keras' "same" pads an even input at stride 2 only at its end, which shifts every feature by half
    a pixel relative to weights that were trained with symmetric padding.
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad", dtype=dtype)(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
        dtype=dtype,
    )(x)


def _stem(x: KerasTensor, width: float, norm: Any) -> tuple[Any, Any]:
    """Applies a convolution and a pooling of stride 2 each; returns the maps after each.

    The convolution, and the input scaling before it, stay float32 whatever the precision: their
    rounding shifts whole images, and caused six sevenths of the effect of bfloat16 on the logits.
    """
    x = _conv(x, scale_channels(64, width), 7, 2, "stem_conv", dtype="float32")
    x = layers.ReLU(name="stem_relu")(norm(name="stem_bn")(x))
    # Zero padding does not change the maximum, since no value is negative after the ReLU.
    padded = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return x, layers.MaxPool2D(3, 2, name="stem_pool")(padded)


def _blocks(width: float) -> Iterator[list[tuple[str, int, int]]]:
    """Yields, for every stage, the (name, filters, strides) of its residual blocks."""
    for stage, (blocks, channels) in enumerate(zip(_STAGE_BLOCKS, _STAGE_CHANNELS), start=1):
        strides = [1 if stage == 1 else 2] + [1] * (blocks - 1)
        yield [
            (f"stage{stage}_block{block}", scale_channels(channels, width), stride)
            for block, stride in enumerate(strides, start=1)
        ]


def _block(x: KerasTensor, filters: int, strides: int, name: str) -> Any:
    """Adds two 3x3 convolutions to the identity, or to a projection if the shape changes."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _conv(x, filters, 1, strides, f"{name}_projection_conv")
        shortcut = _norm(name=f"{name}_projection_bn")(shortcut)
    x = _conv(x, filters, 3, strides, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(_norm(name=f"{name}_bn1")(x))
    x = _conv(x, filters, 3, 1, f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([shortcut, _norm(name=f"{name}_bn2")(x)])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _image_statistics(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of an image, from ImageNet's RGB, in 0..1."""
    mean, std = (for_channels(np.array(x), channels) for x in (_IMAGE_MEAN, _IMAGE_STD))
    return mean, std


def resnet34(image: KerasTensor, width: float = 1.0) -> list[Any]:
    """Applies torchvision's ResNet-34, with post-activation (version 1).

    He et al., "Deep Residual Learning for Image Recognition", 2015, table 1 and figure 3. With
    pooling and a 1000-way classifier it has torchvision's 21,797,672 trainable parameters.

    Args:
        image: in 0..255, float [B, H, W, channels]; H and W divisible by 32. The encoder scales it
            by the mean and standard deviation of ImageNet's RGB, see `for_channels`.
        width: multiplies the channels of every stage; 1 is the ResNet-34 of the paper.

    Returns:
        Five feature maps, float [B, H/s, W/s, channels] for strides s = 2, 4, 8, 16, 32: the stem
        and the four stages, with 64, 64, 128, 256, 512 channels at width 1.
    """
    means, stds = _image_statistics(image.shape[-1])
    x = layers.Rescaling(
        scale=[1 / (255 * std) for std in stds],
        offset=[-mean / std for mean, std in zip(means, stds)],
        name="stem_scale",
        dtype="float32",
    )(image)
    stem, x = _stem(x, width, _norm)
    features = [stem]
    for stage in _blocks(width):
        for name, filters, strides in stage:
            x = _block(x, filters, strides, name)
        features.append(x)
    return features


def resnet34_preactivation(image: KerasTensor, width: float = 1.0) -> list[Any]:
    """Applies segmentation_models' ResNet-34, with pre-activation.

    He et al., "Identity Mappings in Deep Residual Networks", 2016, figure 4 (e), in the form of
    MXNet and `classification_models`: batch norm of the image instead of a fixed scaling, and a
    projection in the first block of every stage, including the first.

    Args:
        image: in 0..255, float [B, H, W, channels]; H and W divisible by 32.
        width: multiplies the channels of every stage.

    Returns:
        Five feature maps with the shapes of `resnet34`. Those of the stages are taken after the
        next batch norm and ReLU, in the following stage's first block or after the last stage.
    """

    def activated(x: KerasTensor, name: str) -> Any:
        x = _norm_preactivation(name=name.format("bn"))(x)
        return layers.ReLU(name=name.format("relu"))(x)

    constant = keras.initializers.Constant
    means, stds = _image_statistics(image.shape[-1])
    # The moving statistics start at ImageNet's. If they started at 0 and 1, evaluation within the
    # first hundred steps would see images of 0..255 unscaled, which overflows float16.
    x = _norm_preactivation(
        name="stem_image_bn",
        dtype="float32",
        scale=False,
        moving_mean_initializer=constant([255 * mean for mean in means]),
        moving_variance_initializer=constant([(255 * std) ** 2 for std in stds]),
    )(image)
    stem, x = _stem(x, width, _norm_preactivation)
    features = [stem]
    for number, stage in enumerate(_blocks(width), start=1):
        for name, filters, strides in stage:
            shortcut, x = x, activated(x, f"{name}_{{}}1")
            if name.endswith("block1"):
                if number > 1:
                    features.append(x)
                shortcut = _conv(x, filters, 1, strides, f"{name}_projection_conv")
            x = activated(_conv(x, filters, 3, strides, f"{name}_conv1"), f"{name}_{{}}2")
            x = _conv(x, filters, 3, 1, f"{name}_conv2")
            x = layers.Add(name=f"{name}_add")([shortcut, x])
    features.append(activated(x, "stage4_{}"))
    return features


def _torchvision_name(name: str) -> str:
    """Translates stage2_block1_projection_conv/kernel into layer2.0.downsample.0.weight."""
    layer, variable = name.split("/")
    block = re.fullmatch(r"stage(\d)_block(\d)_(\w+)", layer)
    if block:
        stage, number, part = block.groups()
        part = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}.get(part, part)
        layer = f"layer{stage}.{int(number) - 1}.{part}"
    else:
        layer = {"stem_conv": "conv1", "stem_bn": "bn1"}.get(layer, layer)
    return f"{layer}.{TORCH_VARIABLES[variable]}"


def _classification_models_name(name: str) -> str:
    """Translates stage2_block1_projection_conv/kernel into stage2_unit1_sc/kernel."""
    layer, variable = name.split("/")
    outside = {"stem_image_bn": "bn_data", "stem_conv": "conv0", "stem_bn": "bn0"}
    outside["stage4_bn"] = "bn1"
    layer = outside.get(layer, layer).replace("_block", "_unit").replace("projection_conv", "sc")
    return f"{layer}/{variable}"


# Published with segmentation_models_pytorch, torchvision and timm.
RESNET34 = Encoder(
    apply=resnet34,
    layer_prefixes=("stem_", "stage"),
    weights_suffixes=(".safetensors",),
    read_weights=read_torch,
    published_name=_torchvision_name,
)
# Published with segmentation_models and classification_models.
RESNET34_PREACTIVATION = dataclasses.replace(
    RESNET34,
    apply=resnet34_preactivation,
    decoder_momentum=0.99,
    decoder_epsilon=1e-3,
    weights_suffixes=(".h5",),
    read_weights=read_keras_h5,
    published_name=_classification_models_name,
)
