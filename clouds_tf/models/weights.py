"""Weights from files into a model: published encoders, and checkpoints of our own. No pickle."""

import re

import h5py
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from clouds_tf.models.encoders.resnet import encoder_layers

_MAX_NAMES = 8  # of each kind, in an error


def _read_safetensors(path):
    """Reads a .safetensors file as a dict from names to arrays; ValueError for anything else."""
    try:
        return {
            name: np.asarray(tensor) for name, tensor in safetensors.numpy.load_file(path).items()
        }
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: broken, or no .safetensors file ({error})") from None


def _read_torch(path):
    """An encoder in PyTorch's names and layout -> those names, with Keras' layout (HWIO)."""
    tensors = _read_safetensors(path)
    inner = {k[len("encoder.") :]: v for k, v in tensors.items() if k.startswith("encoder.")}
    return {
        name: tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        for name, tensor in (inner or tensors).items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }


def _read_h5(path):
    """A Keras .h5 file of weights or of a whole model -> a dict from "layer/variable" to arrays."""
    tensors = {}

    def collect(name, item):
        if isinstance(item, h5py.Dataset):
            layer, variable = name.split(":")[0].rsplit("/", 2)[-2:]
            if not layer.startswith(("fc1", "decoder_", "final_conv")):
                tensors[f"{layer}/{variable}"] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.get("model_weights", file).visititems(collect)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: broken, or no Keras .h5 file ({error})") from None
    return tensors


def _torchvision_name(name):
    """stage2_block1_projection_conv/kernel -> layer2.0.downsample.0.weight, and so on."""
    layer, variable = name.split("/")
    block = re.fullmatch(r"stage(\d)_block(\d)_(\w+)", layer)
    if block:
        stage, number, part = block.groups()
        part = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}.get(part, part)
        layer = f"layer{stage}.{int(number) - 1}.{part}"
    else:
        layer = {"stem_conv": "conv1", "stem_bn": "bn1"}.get(layer, layer)
    variables = {
        "kernel": "weight",
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    return f"{layer}.{variables[variable]}"


def _classification_models_name(name):
    """stage2_block1_projection_conv/kernel -> stage2_unit1_sc/kernel, and so on."""
    layer, variable = name.split("/")
    outside = {"stem_image_bn": "bn_data", "stem_conv": "conv0", "stem_bn": "bn0"}
    outside["stage4_bn"] = "bn1"
    layer = outside.get(layer, layer).replace("_block", "_unit").replace("projection_conv", "sc")
    return f"{layer}/{variable}"


def _name(variable):
    return variable.name.split(":")[0]


def _listed(kind, names):
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {kind}: {', '.join(names[:_MAX_NAMES])}{more}"


def _assign(variables, tensors, path):
    """Sets variables, a dict by name, to the tensors of those names; all of them, or none."""
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


def load_encoder_weights(model, path):
    """Sets the encoder of a U-Net to published weights, such as those of ImageNet.

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
    readers = {
        ".safetensors": (_read_torch, _torchvision_name),
        ".h5": (_read_h5, _classification_models_name),
    }
    ending = next((ending for ending in readers if path.endswith(ending)), None)
    if ending is None:
        raise ValueError(f"{path}: expected a file that ends in {' or '.join(readers)}")
    read, published_name = readers[ending]
    weights = [weight for layer in encoder_layers(model) for weight in layer.weights]
    _assign({published_name(_name(w)): w for w in weights}, read(path), path)


def load_checkpoint(model, path):
    """Sets the whole model to a checkpoint of ours, whatever it was trained on.

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
