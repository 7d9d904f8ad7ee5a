"""Backbones of keras-cv 0.9 as encoders, built offline from their published configurations.

keras-cv's named models download their configuration, so the configurations are written out here.
An encoder consists of copies of a backbone's innermost layers, see `flattening`. keras-cv is
imported only when such an encoder is used.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clouds_tf import files
from clouds_tf.keras import KerasTensor, Model
from clouds_tf.lane_one import import_keras_cv
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


def _outputs(*names: str) -> Callable[[Any], list[Any]]:
    """Makes a function from a backbone to the outputs of some layers, by name or pyramid level."""

    def find(backbone: Model) -> list[Any]:
        levels = backbone.pyramid_level_inputs
        layers = [backbone.get_layer(levels.get(name, name)) for name in names]
        # CSPDarkNet's stem is a separate model, whose `output` would be another tensor.
        return [layer.get_output_at(0) for layer in layers]

    return find


def _efficientnetv2_features(backbone: Model) -> list[Any]:
    """The last block of each stride, without the final 1x1 convolution for classification."""
    return [*_outputs("P1", "P2", "P3", "P4")(backbone), backbone.get_layer("top_conv").input]


@dataclasses.dataclass(frozen=True)
class _Backbone:
    """A backbone of keras-cv and the feature maps to take from it.

    Attributes:
        model: name of its class in keras_cv.models.
        arguments: function from a width, which multiplies the channels of every stage, to the
            arguments of that class.
        features: function from the functional model to its feature maps at strides 2 to 32.
    """

    model: str
    arguments: Callable[[float], dict[str, Any]]
    features: Callable[[Any], list[Any]]

    def build(self, width: float, channels: int) -> Any:
        """Builds the model; ValueError if keras-cv is missing or does not work."""
        models = import_keras_cv(
            "encoder: a backbone of keras-cv",
            "resnet34, resnet34_preactivation, efficientnet_lite0 and efficientnet_lite2",
        ).models
        return getattr(models, self.model)(
            **self.arguments(width), include_rescaling=True, input_shape=(None, None, channels)
        )

    def apply(self, image: KerasTensor, width: float = 1.0) -> list[Any]:
        """Applies copies of the layers to an image; see `Encoder.apply`."""
        return copied(self.features(self.build(width, image.shape[-1])), image, _PREFIX)

    def read_weights(self, path: str) -> dict[str, np.ndarray]:
        """Reads a .h5, .weights.h5 or .keras file of this backbone, without running code from it.

        Returns:
            Arrays by name of the variables that `apply` makes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or has the weights of another model.
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


def _efficientnetv2(stages: dict[str, Any], width: float, depth: float) -> _Backbone:
    def arguments(factor: float) -> dict[str, Any]:
        return {**stages, "width_coefficient": width * factor, "depth_coefficient": depth}

    return _Backbone("EfficientNetV2Backbone", arguments, _efficientnetv2_features)


def _mobilenet_v3(stages: dict[str, Any]) -> _Backbone:
    return _Backbone(
        "MobileNetV3Backbone",
        lambda width: {**stages, "alpha": width},
        _outputs("P1", "P2", "P3", "P4", "P5"),
    )


def _scaled(channels: Sequence[int], width: float) -> list[int]:
    return [scale_channels(number, width) for number in channels]


BACKBONES = {
    "csp_darknet_s": _Backbone(
        "CSPDarkNetBackbone",
        lambda width: {
            "stackwise_channels": [2 * n for n in _scaled((32, 64, 128, 256), width)],
            "stackwise_depth": [1, 3, 3, 1],
        },
        _outputs("stem_conv", "dark2_csp", "dark3_csp", "dark4_csp", "dark5_csp"),
    ),
    # The stem, and each dense block after the batch norm and ReLU that follow it.
    "densenet121": _Backbone(
        "DenseNetBackbone",
        lambda width: {
            "stackwise_num_repeats": [6, 12, 24, 16],
            "growth_rate": max(8, 8 * round(32 * width / 8)),
        },
        _outputs("conv1_relu", "pool2_relu", "pool3_relu", "pool4_relu", "relu"),
    ),
    "efficientnetv2_b0": _efficientnetv2(_STAGES_EFFICIENTNET_B, 1.0, 1.0),
    "efficientnetv2_b2": _efficientnetv2(_STAGES_EFFICIENTNET_B, 1.1, 1.2),
    "efficientnetv2_s": _efficientnetv2(_STAGES_EFFICIENTNET_S, 1.0, 1.0),
    "mobilenet_v3_large": _mobilenet_v3(_STAGES_MOBILENET_LARGE),
    "mobilenet_v3_small": _mobilenet_v3(_STAGES_MOBILENET_SMALL),
    # The stem, and each stack after the batch norm and ReLU that follow it.
    "resnet50_v2": _Backbone(
        "ResNetV2Backbone",
        lambda width: {
            "stackwise_filters": _scaled((64, 128, 256, 512), width),
            "stackwise_blocks": [3, 4, 6, 3],
            "stackwise_strides": [1, 2, 2, 2],
        },
        _outputs(
            "conv1_conv",
            *(f"v2_stack_{stack}_block1_use_preactivation_relu" for stack in (1, 2, 3)),
            "post_relu",
        ),
    ),
}
KERAS_CV_ENCODERS = {
    name: Encoder(
        apply=backbone.apply,
        layer_prefixes=(_PREFIX,),
        decoder_momentum=MOMENTUM,
        decoder_epsilon=1e-3,
        weights_suffixes=(".h5", ".keras"),
        read_weights=backbone.read_weights,
    )
    for name, backbone in BACKBONES.items()
}
