"""Backbones of keras-cv 0.9 as encoders, built offline from their published configurations.

keras-cv's named models fetch their configuration from the network, so those used here are written
out. An encoder holds copies of a backbone's innermost layers; `flattening` says how and why.

keras-cv is imported when such an encoder is asked for, and not before.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from clouds_tf import files
from clouds_tf.keras import KerasTensor, Model
from clouds_tf.keras_cv import import_keras_cv
from clouds_tf.models.encoders.flattening import MOMENTUM, copied, innermost_layers
from clouds_tf.models.encoders.interface import Encoder
from clouds_tf.models.encoders.resnet import scale_channels

_PREFIX = "encoder_"
_LOADING_FAILED = (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)
_STAGES_EFFICIENTNET_B = {
    "stackwise_kernel_sizes": [3, 3, 3, 3, 3, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 5, 8],
    "stackwise_input_filters": [32, 16, 32, 48, 96, 112],
    "stackwise_output_filters": [16, 32, 48, 96, 112, 192],
    "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 2, 1, 2],
    "stackwise_conv_types": ["fused", "fused", "fused", "unfused", "unfused", "unfused"],
}
_STAGES_EFFICIENTNET_S = {
    **_STAGES_EFFICIENTNET_B,
    "stackwise_num_repeats": [2, 4, 4, 6, 9, 15],
    "stackwise_input_filters": [24, 24, 48, 64, 128, 160],
    "stackwise_output_filters": [24, 48, 64, 128, 160, 256],
}
_STAGES_MOBILENET_SMALL = {
    "stackwise_expansion": [1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
    "stackwise_filters": [16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
    "stackwise_kernel_size": [3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5],
    "stackwise_stride": [2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
    "stackwise_se_ratio": [0.25, None, None] + [0.25] * 8,
    "stackwise_activation": ["relu"] * 3 + ["hard_swish"] * 8,
}
_STAGES_MOBILENET_LARGE = {
    "stackwise_expansion": [1, 4, 3, 3, 3, 3, 6, 2.5, 2.3, 2.3, 6, 6, 6, 6, 6],
    "stackwise_filters": [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
    "stackwise_kernel_size": [3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
    "stackwise_stride": [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
    "stackwise_se_ratio": [None] * 3 + [0.25] * 3 + [None] * 4 + [0.25] * 5,
    "stackwise_activation": ["relu"] * 6 + ["hard_swish"] * 9,
}


def _models() -> Any:
    """Imports keras_cv.models; raises ValueError where keras-cv is missing or does not work."""
    return import_keras_cv(
        "encoder: a backbone of keras-cv",
        "resnet34, resnet34_preactivation, efficientnet_lite0 and efficientnet_lite2",
    ).models


def _resnet50_v2(width: float, channels: int) -> Any:
    return _models().ResNetV2Backbone(
        stackwise_filters=[scale_channels(filters, width) for filters in (64, 128, 256, 512)],
        stackwise_blocks=[3, 4, 6, 3],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        input_shape=(None, None, channels),
    )


def _resnet_features(backbone: Model) -> list[Any]:
    """The stem, and each stack after the batch norm and ReLU that follow it."""
    stacks = [f"v2_stack_{stack}_block1_use_preactivation_relu" for stack in (1, 2, 3)]
    return [backbone.get_layer(name).output for name in ("conv1_conv", *stacks, "post_relu")]


def _efficientnetv2(
    width: float, channels: int, stages: dict[str, Any], width_b: float, depth_b: float
) -> Any:
    return _models().EfficientNetV2Backbone(
        **stages,
        width_coefficient=width_b * width,
        depth_coefficient=depth_b,
        include_rescaling=True,
        input_shape=(None, None, channels),
    )


def _efficientnetv2_features(backbone: Model) -> list[Any]:
    """The last block of each stride; the 1x1 convolution after it is for classification."""
    names = [backbone.pyramid_level_inputs[f"P{level}"] for level in (1, 2, 3, 4)]
    features = [backbone.get_layer(name).output for name in names]
    return [*features, backbone.get_layer("top_conv").input]


def _mobilenet_v3(width: float, channels: int, stages: dict[str, Any]) -> Any:
    return _models().MobileNetV3Backbone(
        **stages, alpha=width, include_rescaling=True, input_shape=(None, None, channels)
    )


def _mobilenet_v3_features(backbone: Model) -> list[Any]:
    names = [backbone.pyramid_level_inputs[f"P{level}"] for level in (1, 2, 3, 4, 5)]
    return [backbone.get_layer(name).output for name in names]


def _densenet121(width: float, channels: int) -> Any:
    return _models().DenseNetBackbone(
        stackwise_num_repeats=[6, 12, 24, 16],
        growth_rate=max(8, 8 * round(32 * width / 8)),
        include_rescaling=True,
        input_shape=(None, None, channels),
    )


def _densenet_features(backbone: Model) -> list[Any]:
    """The stem, and each dense block after the batch norm and ReLU that follow it."""
    names = ("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu")
    return [backbone.get_layer(name).output for name in names]


def _csp_darknet_s(width: float, channels: int) -> Any:
    return _models().CSPDarkNetBackbone(
        stackwise_channels=[2 * scale_channels(filters, width) for filters in (32, 64, 128, 256)],
        stackwise_depth=[1, 3, 3, 1],
        include_rescaling=True,
        input_shape=(None, None, channels),
    )


def _csp_darknet_features(backbone: Model) -> list[Any]:
    names = ("stem_conv", "dark2_csp", "dark3_csp", "dark4_csp", "dark5_csp")
    # The stem is a model of its own, whose `output` would be another tensor.
    return [backbone.get_layer(name).get_output_at(0) for name in names]


@dataclasses.dataclass(frozen=True)
class _Backbone:
    """A backbone of keras-cv and the feature maps that are taken from it.

    Attributes:
        build: function of a width, which multiplies the channels of every stage, and the channels
            of the image. Returns the functional model.
        features: function of that model. Returns its symbolic feature maps at strides 2 to 32.
    """

    build: Callable[[float, int], Any]
    features: Callable[[Any], list[Any]]

    def apply(self, image: KerasTensor, width: float = 1.0) -> list[Any]:
        """Applies copies of the layers to an image; see `Encoder.apply`."""
        return copied(self.features(self.build(width, image.shape[-1])), image, _PREFIX)

    def read_weights(self, path: str) -> dict[str, np.ndarray]:
        """Reads a file of keras-cv, of which nothing is executed.

        Args:
            path: a .h5, .weights.h5 or .keras file that was saved from such a backbone.

        Returns:
            Arrays by name of the variables that `apply` makes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is broken, or holds the weights of another model.
        """
        with files.local_copy(path) as local:  # before seconds go into a backbone
            backbone = self.build(1.0, 3)
            try:
                backbone.load_weights(local)
            except _LOADING_FAILED as error:
                reason = str(error).strip().splitlines()[0][:200]
                message = f"{path}: does not fit {backbone.name} of keras-cv ({reason})"
                raise ValueError(message) from None
        return {
            f"{name}/{re.split('[/:]', weight.name)[-2]}": weight.numpy()
            for name, layer in innermost_layers(self.features(backbone), _PREFIX).items()
            for weight in layer.weights
        }


def _efficientnetv2_backbone(stages: dict[str, Any], width: float, depth: float) -> _Backbone:
    build = functools.partial(_efficientnetv2, stages=stages, width_b=width, depth_b=depth)
    return _Backbone(build, _efficientnetv2_features)


def _mobilenet_v3_backbone(stages: dict[str, Any]) -> _Backbone:
    return _Backbone(functools.partial(_mobilenet_v3, stages=stages), _mobilenet_v3_features)


BACKBONES = {
    "csp_darknet_s": _Backbone(_csp_darknet_s, _csp_darknet_features),
    "densenet121": _Backbone(_densenet121, _densenet_features),
    "efficientnetv2_b0": _efficientnetv2_backbone(_STAGES_EFFICIENTNET_B, 1.0, 1.0),
    "efficientnetv2_b2": _efficientnetv2_backbone(_STAGES_EFFICIENTNET_B, 1.1, 1.2),
    "efficientnetv2_s": _efficientnetv2_backbone(_STAGES_EFFICIENTNET_S, 1.0, 1.0),
    "mobilenet_v3_large": _mobilenet_v3_backbone(_STAGES_MOBILENET_LARGE),
    "mobilenet_v3_small": _mobilenet_v3_backbone(_STAGES_MOBILENET_SMALL),
    "resnet50_v2": _Backbone(_resnet50_v2, _resnet_features),
}
KERAS_CV_ENCODERS = {
    name: Encoder(
        apply=backbone.apply,
        layer_prefixes=(_PREFIX,),
        decoder_momentum=MOMENTUM,
        decoder_epsilon=1e-3,
        weights_suffixes=(".h5", ".keras"),
        read_weights=backbone.read_weights,
        published_name=lambda name: name,
    )
    for name, backbone in BACKBONES.items()
}
