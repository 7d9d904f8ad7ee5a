"""Loads SavedModels for TensorFlow or, converted once and kept beside them, for OpenVINO."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from clouds_tf import files
from clouds_tf.prediction import engine as engines
from clouds_tf.prediction.engine import OpenVINONetwork, UnusableError
from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.prediction.signatures import Signatures


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A SavedModel in this process.

    Attributes:
        module: what TensorFlow loaded; its signatures hold the variables only weakly.
        signatures: functions by name, as `write_version` describes them; those that predict run the
            networks on the engine.
        fingerprint: tells SavedModels and engines apart.
        warning: why TensorFlow computes where OpenVINO was asked for, or "".
    """

    module: Any = dataclasses.field(repr=False)
    signatures: Mapping[str, Callable[..., dict[str, tf.Tensor]]] = dataclasses.field(repr=False)
    fingerprint: str
    warning: str = ""


def fingerprint(saved_model: str) -> str:
    """Tells SavedModels apart: a string of the checksums of the graph and of the weights.

    Raises:
        FileNotFoundError: there is no SavedModel.
    """
    if not tf.saved_model.contains_saved_model(saved_model):
        raise FileNotFoundError(f"{saved_model}: no SavedModel; expected a folder such as E/1")
    return tf.saved_model.experimental.read_fingerprint(saved_model).singleprint()


def load(saved_model: str, engine: str = "tensorflow", device: str | None = None) -> Loaded:
    """Loads a SavedModel that `export` wrote.

    With OpenVINO, the networks are converted into the folder `saved_model`.openvino, if it can be
    written; the next process loads them from there.

    Args:
        saved_model: folder of a version, such as E/1.
        engine: "tensorflow", or "openvino" where it works.
        device: name of the device that keeps the weights and computes, for TensorFlow.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: OpenVINO is not installed, or the SavedModel is too old for it.
    """
    engines.require(engine)
    checksum = fingerprint(saved_model)
    with tf.device(device):
        module = tf.saved_model.load(saved_model)
    if engine == "tensorflow":
        return Loaded(module, module.signatures, checksum)
    metadata = read_metadata(saved_model)
    if not hasattr(module, "networks"):
        raise ValueError(
            f"{saved_model}: too old for OpenVINO, it has no network apart from the rest; export "
            "it again"
        )
    try:
        networks = _openvino_networks(saved_model, module, metadata, checksum)
    except UnusableError as error:
        warning = f"OpenVINO {error}; TensorFlow computes instead"
        return Loaded(module, module.signatures, checksum, warning)
    graph = Signatures(networks, metadata)
    signatures = {
        "serving_default": lambda image_bytes: graph.serve(image_bytes),
        "probabilities": lambda image_bytes: graph.serve_probabilities(image_bytes),
        "from_pixels": lambda images: graph.serve_pixels(images),
    }
    return Loaded(module, signatures, f"{checksum}/openvino")


def _openvino_networks(
    saved_model: str, module: Any, metadata: Metadata, checksum: str
) -> list[OpenVINONetwork]:
    """The networks of a SavedModel, converted now or earlier, on a CPU of this kind."""
    import openvino

    cpu = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
    key = "\n".join([checksum, openvino.get_version(), cpu])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = os.path.join(f"{saved_model.rstrip('/')}.openvino", digest)
    names = [f"{i}.xml" for i in range(len(metadata.image_sizes))]
    if tf.io.gfile.exists(kept):
        return [OpenVINONetwork(os.path.join(kept, name)) for name in names]
    with tempfile.TemporaryDirectory() as folder:
        networks = [
            engines.convert(network, size, metadata.dataset, os.path.join(folder, name))
            for network, size, name in zip(module.networks, metadata.image_sizes, names)
        ]
        # Beside a SavedModel that cannot be written to, every process converts for itself.
        with contextlib.suppress(tf.errors.OpError), files.written_whole(kept) as temporary:
            tf.io.gfile.makedirs(temporary)
            for name in os.listdir(folder):
                tf.io.gfile.copy(os.path.join(folder, name), os.path.join(temporary, name))
    return networks
