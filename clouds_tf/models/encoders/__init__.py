"""Encoders of the U-Net, by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from clouds_tf import own
from clouds_tf.keras import KerasTensor, Model, keras
from clouds_tf.lazy import Registry
from clouds_tf.models.encoders.interface import MAX_WIDTH, Encoder

# Name -> location of its Encoder, or of a dict of Encoders by name.
ENCODERS = Registry(
    {
        "resnet34": f"{__name__}.resnet:RESNET34",
        "resnet34_preactivation": f"{__name__}.resnet:RESNET34_PREACTIVATION",
        "efficientnet_lite0": f"{__name__}.efficientnet_lite:EFFICIENTNET_LITE0",
        "efficientnet_lite1": f"{__name__}.efficientnet_lite:EFFICIENTNET_LITE1",
        "efficientnet_lite2": f"{__name__}.efficientnet_lite:EFFICIENTNET_LITE2",
        **dict.fromkeys(
            (
                *("csp_darknet_s", "densenet121", "resnet50_v2"),
                *("efficientnetv2_b0", "efficientnetv2_b2", "efficientnetv2_s"),
                *("mobilenet_v3_large", "mobilenet_v3_small"),
            ),
            f"{__name__}.keras_cv_backbones:KERAS_CV_ENCODERS",
        ),
    }
)

# A U-Net is named after its encoder; copies of it, fused or loaded from a file, keep the name.
_MODEL_NAME = "unet_"
# Layers of a U-Net outside its encoder. If the user wrote the encoder, all others are part of it.
_DECODER = re.compile(r"decoder\d_.*|head_conv|log_odds|(background_)?logits|presence.*|pad|image")
_STRIDES = (2, 4, 8, 16, 32)

__all__ = [
    "ENCODERS",
    "Encoder",
    "MAX_WIDTH",
    "check_own_encoder",
    "encoder_layers",
    "encoder_name",
    "encoder_of",
    "find_encoder",
    "model_name",
]


def find_encoder(name: str) -> Encoder:
    """Looks up an encoder.

    Args:
        name: a key of ENCODERS; or "module:attribute" for the user's own Encoder, or for a
            function with the arguments and results of `Encoder.apply`.

    Returns:
        The encoder.

    Raises:
        ValueError: the name is unknown; the message lists all names.
    """
    if name not in ENCODERS and not own.is_own(name):
        raise ValueError(f"encoder: got {name!r}, expected one of {', '.join(sorted(ENCODERS))}")
    if own.is_own(name):
        found = own.find("encoder", name)
        return found if isinstance(found, Encoder) else _of_function(name)
    return ENCODERS[name]


def _of_function(name: str) -> Encoder:
    """Makes an Encoder from a user's function."""

    def apply(image: KerasTensor, width: float) -> list[Any]:
        features = list(own.call("encoder", name, image, width))
        if len(features) != len(_STRIDES):
            raise ValueError(
                f"encoder: {name} returned {len(features)} maps, expected {len(_STRIDES)}, for the "
                f"strides {', '.join(map(str, _STRIDES))}"
            )
        return features

    return Encoder(apply)


def check_own_encoder(name: str, image: KerasTensor, features: list[Any]) -> None:
    """Checks the feature maps and the layers of a user's encoder.

    Raises:
        ValueError: a map does not have its stride of `Encoder.apply`; or the name of a layer with
            weights is one of the decoder's, or was numbered by Keras and so differs between
            processes.
    """
    model = keras.Model(image, features)
    for layer in model.layers:
        words = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", type(layer).__name__)
        words = re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()  # as Keras counts them
        counted = re.fullmatch(rf"{words}(_\d+)?", layer.name)
        is_decoder = _DECODER.fullmatch(layer.name) and layer.name not in ("pad", "image")
        if is_decoder or (counted and layer.weights):
            raise ValueError(
                f"encoder: {name}: a layer is called {layer.name!r}, expected a unique name, "
                "neither one that Keras numbers nor one of the decoder"
            )
    maps = model(np.zeros([1, 64, 96, image.shape[-1]], np.float32))
    for stride, found in zip(_STRIDES, maps):
        if tuple(found.shape[1:3]) != (64 // stride, 96 // stride):
            raise ValueError(
                f"encoder: {name}: a map of a 64x96 image is {found.shape[1]}x{found.shape[2]}, "
                f"expected {64 // stride}x{96 // stride}, for stride {stride}"
            )


def model_name(name: str) -> str:
    """Name of a U-Net as a keras.Model, from the name of its encoder."""
    # TensorFlow does not allow colons and brackets in names of scopes.
    return _MODEL_NAME + re.sub(r"[^\w.]", lambda match: f"-{ord(match[0]):02x}", name)


def encoder_name(model: Model) -> str:
    """Reads the name of a U-Net's encoder from that of the model, see `model_name`.

    Fused and loaded copies of a U-Net keep the name; ValueError for any other model.
    """
    if not model.name.startswith(_MODEL_NAME):
        raise ValueError(f"model: got {model.name!r}, expected a U-Net of clouds_tf.models.unet")
    written = model.name[len(_MODEL_NAME) :]
    return re.sub(r"-(..)", lambda match: chr(int(match[1], 16)), written)


def encoder_of(model: Model) -> Encoder:
    """Finds the encoder that a U-Net was built with; errors as in `encoder_name`."""
    return find_encoder(encoder_name(model))


def encoder_layers(model: Model) -> list[Any]:
    """Layers of a U-Net that belong to its encoder; none if the model is not a U-Net."""
    if not model.name.startswith(_MODEL_NAME):
        return []
    prefixes = encoder_of(model).layer_prefixes
    if not prefixes:
        return [layer for layer in model.layers if not _DECODER.fullmatch(layer.name)]
    return [layer for layer in model.layers if layer.name.startswith(prefixes)]
