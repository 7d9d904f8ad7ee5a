"""Encoders of the U-Net by name: images -> feature maps."""

from __future__ import annotations

from typing import Any

from clouds_tf.keras import Model
from clouds_tf.models.encoders import resnet
from clouds_tf.models.encoders.efficientnet_lite import EFFICIENTNET_LITE0, EFFICIENTNET_LITE2
from clouds_tf.models.encoders.interface import Encoder
from clouds_tf.models.encoders.keras_cv_backbones import KERAS_CV_ENCODERS

ENCODERS: dict[str, Encoder] = {
    "resnet34": resnet.RESNET34,
    "resnet34_preactivation": resnet.RESNET34_PREACTIVATION,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
    "efficientnet_lite2": EFFICIENTNET_LITE2,
    **KERAS_CV_ENCODERS,
}

# A U-Net is named after its encoder; copies of it, fused or loaded from a file, keep the name.
_MODEL_NAME = "unet_"

__all__ = ["ENCODERS", "Encoder", "encoder_layers", "encoder_of", "find_encoder", "model_name"]


def find_encoder(name: str) -> Encoder:
    """Looks up an encoder.

    Args:
        name: a key of ENCODERS.

    Returns:
        The encoder.

    Raises:
        ValueError: there is none of that name; the message lists those that there are.
    """
    if name == "mit_b0":  # of version 2
        raise ValueError(
            "encoder: mit_b0 is no longer part of clouds_tf; a SavedModel with it still runs, "
            "weights and recipes need clouds_tf 2"
        )
    if name not in ENCODERS:
        raise ValueError(f"encoder: got {name!r}, expected one of {', '.join(sorted(ENCODERS))}")
    return ENCODERS[name]


def model_name(name: str) -> str:
    """The name that a U-Net with the encoder of a given name has as a keras.Model."""
    return f"{_MODEL_NAME}{name}"


def encoder_of(model: Model) -> Encoder:
    """Finds the encoder that a U-Net was built with.

    Args:
        model: a keras.Model of `unet`, or a fused or loaded copy of one.

    Returns:
        The encoder.

    Raises:
        ValueError: the model is not one of `unet`.
    """
    if not model.name.startswith(_MODEL_NAME):
        raise ValueError(f"model: got {model.name!r}, expected a U-Net of clouds_tf.models.unet")
    return find_encoder(model.name[len(_MODEL_NAME) :])


def encoder_layers(model: Model) -> list[Any]:
    """Lists the layers of a U-Net that belong to its encoder.

    Args:
        model: a keras.Model.

    Returns:
        Keras layers, in the order of the model; none if the model is not one of `unet`.
    """
    if not model.name.startswith(_MODEL_NAME):
        return []
    prefixes = encoder_of(model).layer_prefixes
    return [layer for layer in model.layers if layer.name.startswith(prefixes)]
