"""SavedModels in this process: one predictor for each device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from clouds_tf.prediction import loading
from clouds_tf.prediction.loading import Loaded
from clouds_tf.prediction.metadata import Metadata, read_metadata

# From image_bytes, string [N], to a dict of the outputs of serving_default.
Predict = Callable[[tf.Tensor], "dict[str, tf.Tensor]"]


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The default signature of a SavedModel, on one device.

    Attributes:
        loaded: the SavedModel.
        device: name of the device that keeps the weights and computes; None lets TensorFlow choose.
    """

    loaded: Loaded = dataclasses.field(repr=False)
    device: str | None = None

    def __call__(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to a dict with encoded_pixels, string [N, C], and more."""
        with tf.device(self.device):
            return self.loaded.signatures["serving_default"](image_bytes=image_bytes)


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A SavedModel that is ready to predict.

    Attributes:
        metadata: what the SavedModel says about itself.
        fingerprint: tells SavedModels and engines apart.
        predictors: functions from image_bytes to the outputs of `serving_default`, one for each
            device.
        warning: why TensorFlow computes where OpenVINO was asked for, or "".
    """

    metadata: Metadata
    fingerprint: str
    predictors: tuple[Predict, ...] = dataclasses.field(repr=False)
    warning: str = ""


def devices(num_devices: int | None = None) -> list[str]:
    """Names of the GPUs of this machine, all or the first ones; without any, of the CPU.

    Raises:
        ValueError: there are not so many.
    """
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    names = [device.name for device in tf.config.list_logical_devices(kind)]
    if num_devices is not None and not 1 <= num_devices <= len(names):
        raise ValueError(f"num_devices: got {num_devices}, expected 1 to {len(names)} ({kind}s)")
    return names[:num_devices]


def load(saved_model: str, device: str | None = None, engine: str = "tensorflow") -> Predictor:
    """Loads a SavedModel that `export` wrote.

    Args:
        saved_model: folder of a version, such as E/1.
        device: name of the device that keeps the weights and computes.
        engine: "tensorflow", or "openvino" where it works.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: it is one of something else, or cannot be loaded for this engine.
    """
    loaded = loading.load(saved_model, engine, device)
    signature = loaded.module.signatures.get("serving_default")
    if signature is None or "encoded_pixels" not in signature.structured_outputs:
        raise ValueError(f"{saved_model}: not a SavedModel of export: no output encoded_pixels")
    return Predictor(loaded, device)


def load_model(
    saved_model: str, num_devices: int | None = None, engine: str = "tensorflow"
) -> LoadedModel:
    """Loads a SavedModel on several devices, or on the CPU for OpenVINO.

    Arguments and errors are those of `load` and `devices`.
    """
    names = devices(num_devices)
    metadata = read_metadata(saved_model)
    if engine == "openvino":
        names = ["CPU:0"]
    predictors = tuple(load(saved_model, name, engine) for name in names)
    first = predictors[0].loaded
    return LoadedModel(metadata, first.fingerprint, predictors, first.warning)
