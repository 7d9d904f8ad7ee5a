"""Files of weights: published encoders, checkpoints, and whole models for sharing.

A whole model is stored as one .safetensors file, which contains no code: tensors by variable name,
and in the header's metadata, under "clouds_tf", a JSON object with the arguments of `unet`, a
description of the model, and a checksum of both. A user's own encoder is stored by its name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.dataset import Dataset
from clouds_tf.keras import Model
from clouds_tf.models.encoders import encoder_layers, encoder_name, encoder_of, model_name
from clouds_tf.models.encoders.imagenet import IMAGENET, imagenet_weights
from clouds_tf.models.encoders.interface import fitted, read_safetensors
from clouds_tf.models.packing import packed, unpacked
from clouds_tf.settings import check_size

# Format version of `save_model_weights` by type of kernels. Older versions of clouds_tf can read
# all files but those with a version that they do not know.
_VERSIONS = {"float16": 1, "int8": 2}

_KEY = "clouds_tf"  # in the metadata of the .safetensors header
_OWN_FIELDS = ("version", "sha256")
_HEADS = ("head_conv/", "presence/")
_MAX_NAMES = 8  # of each kind, in an error


def _name(variable: tf.Variable) -> str:
    return variable.name.split(":")[0]


def _by_name(variables: Iterable[tf.Variable]) -> dict[str, tf.Variable]:
    return {_name(variable): variable for variable in variables}


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {kind}: {', '.join(names[:_MAX_NAMES])}{more}"


def _assign(
    variables: dict[str, tf.Variable],
    tensors: dict[str, np.ndarray],
    path: str,
    channels: int = 3,
) -> None:
    """Sets variables to the tensors of the same names, either all or none.

    Weights for RGB are adapted if the model takes images with other `channels`.
    """
    if channels != 3:
        both = variables.keys() & tensors.keys()
        shapes = {name: variables[name].shape.as_list() for name in both}
        fit = {name: fitted(tensors[name], shapes[name], channels) for name in both}
        tensors = {**tensors, **fit}
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


def load_encoder_weights(model: Model, path: str) -> None:
    """Loads published weights, such as those of ImageNet, into the encoder of a U-Net.

    Args:
        model: a model of `unet`, which must have width 1 for the published files.
        path: for the encoder "resnet34", a .safetensors file with the names of torchvision's and
            timm's resnet34, or a whole U-Net of segmentation_models_pytorch with these names after
            "encoder."; for "resnet34_preactivation", a Keras .h5 file with the names of
            `classification_models`, with or without its classifier; for "efficientnet_lite0" to
            "efficientnet_lite2", a .safetensors file with the names of `efficientnet_lite_pytorch`,
            or "imagenet", which downloads it; for the encoders of keras-cv, a .h5, .weights.h5 or
            .keras file of the backbone. Classifiers, decoders and counters are ignored. If the
            model does not take RGB, the first layers are adapted; see `fitted`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that does not fit the model, which then stays
            unchanged; the message lists missing, unexpected and misshapen tensors by their names
            in the file.
    """
    encoder = encoder_of(model)
    if not encoder.weights_suffixes:
        raise ValueError(
            f"encoder_weights: got {path}, but your own encoder has to load its weights itself"
        )
    if path == IMAGENET:
        path = imagenet_weights(encoder_name(model))
    if not path.endswith(encoder.weights_suffixes):
        expected = " or ".join(encoder.weights_suffixes)
        raise ValueError(f"{path}: {model.name} takes weights from a file that ends in {expected}")
    weights = [weight for layer in encoder_layers(model) for weight in layer.weights]
    variables = {encoder.published_name(_name(weight)): weight for weight in weights}
    _assign(variables, encoder.read_weights(path), path, model.input_shape[-1])


def load_checkpoint(model: Model, path: str) -> None:
    """Loads a whole model from a checkpoint of clouds_tf.

    Args:
        model: a model of `unet`, with the same arguments as the checkpoint's model.
        path: a folder with a checkpoint, such as workdir/checkpoints/best, or the prefix of one,
            such as workdir/checkpoints/best/ckpt-7.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it does not fit the model, which then stays unchanged; the message lists
            missing, unexpected and misshapen tensors.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    files.check_loadable(path)
    prefix = tf.train.latest_checkpoint(path) or path
    if not gfile.exists(f"{prefix}.index"):
        raise FileNotFoundError(f"{path}: no checkpoint; one is in workdir/checkpoints/best")
    reader = tf.train.load_checkpoint(prefix)
    # Checkpoints number the layers; their object graph has the names of the variables.
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    tensors = {
        saved.full_name: reader.get_tensor(saved.checkpoint_key)
        for node in graph.nodes
        for saved in node.attributes
        if saved.checkpoint_key.startswith("model/layer_with_weights")
    }
    _assign(_by_name(model.weights), tensors, path, model.input_shape[-1])


def save_model_weights(
    model: Model,
    path: str,
    metadata: dict[str, Any] | None = None,
    *,
    dataset: Dataset | None = None,
    image_size: tuple[int, int] | None = None,
    kernels: str = "float16",
) -> None:
    """Writes all weights of a U-Net and a description of it to one .safetensors file.

    Args:
        model: a keras.Model of `unet`.
        path: the .safetensors file to write, whole or not at all.
        metadata: further JSON-like description. From "fold" and "records", the held-out fold and
            `Records.identity`, `evaluate` knows which images the model has not seen; "model" has
            the arguments of `unet`, and is needed for copies of models of `unet`.
        dataset: the data set of the predictions; evaluation and export need it.
        image_size: (height, width) of the input; evaluation and export need it.
        kernels: "float16" halves the file, "int8" halves it once more; see `packing.packed`.

    Raises:
        ValueError: the path has another ending, the metadata does not describe this model, data set
            or size are missing, `kernels` is unknown, or a weight is not finite.
    """
    if not path.endswith(".safetensors"):
        raise ValueError(f"{path}: expected a path that ends in .safetensors")
    metadata = dict(metadata or {})
    from clouds_tf.models.unet import unet_arguments  # which needs Keras

    if "model" not in metadata:
        metadata["model"] = unet_arguments(model)
        if dataset is None or image_size is None:
            raise ValueError(
                f"dataset, image_size: got {dataset} and {image_size}, expected Records.dataset "
                "and the (height, width) of the images that the model was trained on"
            )
    if dataset is not None:
        metadata["dataset"] = dataset.to_json()
    if image_size is not None:
        check_size("image_size", image_size)
        metadata["image_size"] = list(image_size)
    _check_arguments(metadata["model"], "metadata")
    _check_description(model, metadata["model"])
    tensors = packed({_name(weight): weight.numpy() for weight in model.weights}, kernels)
    version = {"version": _VERSIONS[kernels]}
    content = json.loads(json.dumps({**metadata, **version}))  # as it will be read
    content["sha256"] = _checksum(content, tensors)
    # safetensors' own save_file makes a file that only its owner can read.
    data = safetensors.numpy.save(tensors, {_KEY: json.dumps(content)})
    with files.written_whole(path) as temporary, gfile.opened(temporary, "wb") as file:
        file.write(data)


def _checksum(content: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    """SHA-256 of the metadata, without its checksum, and of all tensors, sorted by name."""
    described = {key: value for key, value in content.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()


def _check_arguments(arguments: object, where: str) -> None:
    """Raises ValueError unless these are arguments of `unet` by name."""
    from clouds_tf.models.unet import unet

    known = list(inspect.signature(unet).parameters)
    if not isinstance(arguments, dict) or not set(arguments) <= set(known):
        expected = f"expected a dict of some of {', '.join(known)}"
        raise ValueError(f"{where}: model: got {arguments!r}, {expected}")


def _check_description(model: Model, arguments: dict[str, Any]) -> None:
    """Raises ValueError if arguments of `unet` contradict a model."""
    from clouds_tf.models.unet import unet

    defaults = {k: v.default for k, v in inspect.signature(unet).parameters.items()}
    described = {**defaults, **arguments}
    for name, expected, got in (
        ("encoder", model.name, model_name(described["encoder"])),
        ("channels", model.input_shape[-1], described["channels"]),
        ("exclusive", "background_logits" in model.output_shape, described["exclusive"]),
        ("num_classes", model.output_shape["logits"][-1], described["num_classes"]),
        (
            "classification_head",
            "presence_logits" in model.output_shape,
            described["classification_head"],
        ),
    ):
        if got != expected:
            raise ValueError(f"metadata: {name}: got {got}, but the model has {expected}")


def read_model_weights(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a file of `save_model_weights` and verifies its checksum.

    Args:
        path: the .safetensors file.

    Returns:
        The metadata, in which "model" has the arguments of `unet`; and a dict from variable names
        to arrays, float16 or float32. 8-bit kernels become float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, altered, of a later version, or another kind of file.
    """
    tensors = read_safetensors(path)
    with files.local_copy(path) as local, safetensors.safe_open(local, "numpy") as file:
        encoded = (file.metadata() or {}).get(_KEY)
    if encoded is None:
        raise ValueError(
            f"{path}: has tensors, but is not a model of clouds_tf; load published weights of an "
            "encoder with encoder_weights"
        )
    try:
        content = json.loads(encoded)
        version, checksum = content["version"], content["sha256"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged metadata ({error!r}); get the file again") from None
    if version not in _VERSIONS.values():
        raise ValueError(
            f"{path}: got format version {version}, expected at most {max(_VERSIONS.values())}; "
            "it was written by a later version of clouds_tf"
        )
    if checksum != _checksum(content, tensors):
        raise ValueError(
            f"{path}: the content does not match its checksum, so the file was altered or damaged; "
            "get it again"
        )
    _check_arguments(content.get("model"), path)
    metadata = {key: value for key, value in content.items() if key not in _OWN_FIELDS}
    return metadata, unpacked(tensors, path)


def load_weights(model: Model, path: str, heads: bool = True) -> None:
    """Loads all weights of a U-Net from a file of `save_model_weights`.

    Args:
        model: a model of `unet`, with the same arguments as the file's model.
        path: the .safetensors file.
        heads: whether to load the last layers, too. If not, they stay unchanged; the numbers of
            classes may differ, and either model may have a classification head.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not fit the model, which then stays unchanged, or is truncated or
            altered.
    """
    metadata, tensors = read_model_weights(path)
    variables = _by_name(model.weights)
    if not heads:
        variables = {k: v for k, v in variables.items() if not k.startswith(_HEADS)}
        tensors = {k: v for k, v in tensors.items() if not k.startswith(_HEADS)}
    try:
        _assign(variables, tensors, path, model.input_shape[-1])
    except ValueError as error:
        arguments = ", ".join(f"{name}={value!r}" for name, value in metadata["model"].items())
        raise ValueError(f"{error}; the file has a unet({arguments})") from None


def load_model(path: str) -> tuple[Any, dict[str, Any]]:
    """Builds the U-Net of a file of `save_model_weights`.

    It computes in the global precision policy of Keras.

    Args:
        path: the .safetensors file.

    Returns:
        A keras.Model of `unet`, and the metadata of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, altered, or another kind of file.
    """
    from clouds_tf.models.unet import unet

    metadata, tensors = read_model_weights(path)
    try:
        model = unet(**metadata["model"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    _assign(_by_name(model.weights), tensors, path)
    return model, metadata
