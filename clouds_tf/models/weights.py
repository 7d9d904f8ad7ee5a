"""Weights from files into a model: published encoders, and checkpoints of our own. No pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from clouds_tf.models.encoders import encoder_layers, encoder_of

_MAX_NAMES = 8  # of each kind, in an error


def _name(variable: tf.Variable) -> str:
    return variable.name.split(":")[0]


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {kind}: {', '.join(names[:_MAX_NAMES])}{more}"


def _assign(
    variables: dict[str, tf.Variable], tensors: dict[str, np.ndarray], path: str
) -> None:
    """Sets variables to the tensors of the same names; all of them, or none."""
    faults = {
        "missing": sorted(variables.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - variables.keys()),
        "misshapen": [
            f"{name} is {list(tensors[name].shape)}, expected {variable.shape.as_list()}"
            for name, variable in variables.items()
            if name in tensors and tensors[name].shape != tuple(variable.shape)
        ],
    }
    if any(faults.values()):
        listed = "; ".join(_listed(kind, names) for kind, names in faults.items() if names)
        raise ValueError(f"{path}: does not fit the model; {listed}")
    for name, variable in variables.items():
        variable.assign(tensors[name].astype(variable.dtype.as_numpy_dtype))


def load_encoder_weights(model: Any, path: str) -> None:
    """Loads published weights, such as those of ImageNet, into the encoder of a U-Net.

    Args:
        model: of `unet`, at width 1 for the files that are published.
        path: for the encoder "resnet34" a .safetensors file with the names of torchvision's and
            timm's resnet34, or a whole U-Net of segmentation_models_pytorch with these names after
            "encoder."; for "resnet34_preactivation" a Keras .h5 file with the names of
            `classification_models`, with or without its classifier. Classifiers, decoders and
            counters in them are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that does not fit; the message lists the tensors
            that are missing, unexpected and misshapen, in the names of the file. The model is
            unchanged then.
    """
    encoder = encoder_of(model)
    if not path.endswith(encoder.weights_suffixes):
        expected = " or ".join(encoder.weights_suffixes)
        raise ValueError(f"{path}: {model.name} takes weights from a file that ends in {expected}")
    weights = [weight for layer in encoder_layers(model) for weight in layer.weights]
    variables = {encoder.published_name(_name(weight)): weight for weight in weights}
    _assign(variables, encoder.read_weights(path), path)


def load_checkpoint(model: Any, path: str) -> None:
    """Loads the whole model from a checkpoint of ours, whatever it was trained on.

    Args:
        model: of `unet`, with the arguments that the checkpoint's model was built with.
        path: a folder with a checkpoint, such as workdir/checkpoints/best, or the prefix of one,
            such as workdir/checkpoints/best/ckpt-7.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it does not fit; the message lists what is missing, unexpected and misshapen.
            The model is unchanged then.
    """
    prefix = tf.train.latest_checkpoint(path) or path
    if not tf.io.gfile.exists(f"{prefix}.index"):
        raise FileNotFoundError(f"{path}: no checkpoint; one is in workdir/checkpoints/best")
    reader = tf.train.load_checkpoint(prefix)
    # Checkpoints number the layers; the graph of objects in them knows the variables' own names.
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    tensors = {
        saved.full_name: reader.get_tensor(saved.checkpoint_key)
        for node in graph.nodes
        for saved in node.attributes
        if saved.checkpoint_key.startswith("model/layer_with_weights")
    }
    _assign({_name(weight): weight for weight in model.weights}, tensors, path)
