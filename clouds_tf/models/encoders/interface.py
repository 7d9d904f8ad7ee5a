"""Interface of encoders, and readers of published weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import safetensors
import safetensors.numpy

from clouds_tf import files

MAX_WIDTH = 8.0


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder of the U-Net.

    Its batch norm must be `clouds_tf.models.normalization.BatchNorm`, which is synchronised over
    replicas, and the names of layers with weights must not depend on what was built before.

    Attributes:
        apply: function of an image, float [B, H, W, channels] in 0..255 with H and W divisible by
            32, and a width, which multiplies the channels of every stage. Returns feature maps
            [B, H/s, W/s, channels] for the strides s = 2, 4, 8, 16 and 32.
        layer_prefixes: prefixes of the names of its layers, and of no others; empty if all layers
            outside the decoder belong to the encoder.
        decoder_momentum: momentum of the decoder's batch norm, as in Keras; as for ResNet-34 by
            default.
        decoder_epsilon: epsilon of the decoder's batch norm.
        weights_suffixes: endings of files of its published weights; empty if it loads its weights
            itself.
        read_weights: function from the path of such a file to a dict from the names in the file to
            arrays in Keras' layout; raises ValueError for any other file.
        published_name: function from a name of ours, such as "stem_conv/kernel", to the name in the
            file.
    """

    apply: Callable[[Any, float], list[Any]]
    layer_prefixes: tuple[str, ...] = ()
    decoder_momentum: float = 0.9
    decoder_epsilon: float = 1e-5
    weights_suffixes: tuple[str, ...] = ()
    read_weights: Callable[[str], dict[str, np.ndarray]] = lambda path: {}
    published_name: Callable[[str], str] = str


def for_channels(of_rgb: np.ndarray, channels: int, is_kernel: bool = False) -> np.ndarray:
    """Adapts values for red, green and blue to images with another number of channels.

    One channel gets the mean of the three, or in kernels their sum. Otherwise the three are
    repeated in their order, and kernels are scaled to keep their sum about the same, as in timm.

    Args:
        of_rgb: [..., 3].
        channels: number of channels of the images.
        is_kernel: whether the values are weights of a sum over the channels.

    Returns:
        [..., channels], of the same dtype.

    >>> for_channels(np.array([1.0, 2.0, 3.0]), 5, is_kernel=True)
    array([0.6, 1.2, 1.8, 0.6, 1.2])
    """
    if channels == 3:
        return of_rgb
    if channels == 1:
        reduce = np.sum if is_kernel else np.mean
        return reduce(of_rgb, axis=-1, keepdims=True, dtype=of_rgb.dtype)
    repeated = of_rgb[..., np.arange(channels) % 3]
    return (repeated * (3 / channels)).astype(of_rgb.dtype) if is_kernel else repeated


def fitted(tensor: np.ndarray, shape: list[int], channels: int) -> np.ndarray:
    """Adapts weights for RGB to images with another number of channels, in the first layers.

    The first kernel of CSPDarkNet takes several pixels at once: its inputs are the channels of one
    pixel after those of another.

    Args:
        tensor: weights of a layer.
        shape: shape of these weights in a model for images with `channels`.
        channels: number of channels of the images.

    Returns:
        Weights of that shape; or `tensor` itself if more than the channels differs.
    """
    if tensor.ndim == 1 and tensor.shape == (3,) and shape == [channels]:
        return for_channels(tensor, channels)
    height, width, inputs, filters = tensor.shape if tensor.ndim == 4 else (0, 0, 0, 0)
    pixels = inputs // 3
    if inputs % 3 or not pixels or shape != [height, width, pixels * channels, filters]:
        return tensor
    by_pixel = tensor.reshape(height, width, pixels, 3, filters).swapaxes(3, 4)
    return for_channels(by_pixel, channels, is_kernel=True).swapaxes(3, 4).reshape(shape)


# Name of a variable in Keras -> name in PyTorch.
TORCH_VARIABLES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a .safetensors file by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not a .safetensors file.
    """
    try:
        with files.local_copy(path) as local:
            tensors = safetensors.numpy.load_file(local)
        return {name: np.asarray(tensor) for name, tensor in tensors.items()}
    except (safetensors.SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: damaged, or not a .safetensors file ({error})") from None


def write_safetensors(path: str, tensors: dict[str, np.ndarray]) -> None:
    """Writes a .safetensors file, whole or not at all."""
    with files.written_whole(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary)


def read_torch(path: str) -> dict[str, np.ndarray]:
    """Reads an encoder in PyTorch's names and layout from a .safetensors file.

    From a whole segmentation model, tensors with the prefix "encoder." are read, without it.
    Kernels get Keras' layout, [height, width, in, out]; classifiers and counters are left out.
    Errors are those of `read_safetensors`.
    """
    tensors = read_safetensors(path)
    inner = {k[len("encoder.") :]: v for k, v in tensors.items() if k.startswith("encoder.")}
    return {
        name: tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
        for name, tensor in (inner or tensors).items()
        if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
    }


def read_keras_h5(path: str) -> dict[str, np.ndarray]:
    """Reads an encoder's arrays by "layer/variable" from a Keras .h5 file of weights or of a model.

    Classifiers and decoders are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is truncated, or not a Keras .h5 file.
    """
    tensors: dict[str, np.ndarray] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            layer, variable = name.split(":")[0].rsplit("/", 2)[-2:]
            if not layer.startswith(("fc1", "decoder_", "final_conv")):
                tensors[f"{layer}/{variable}"] = item[()]

    try:
        with files.local_copy(path) as local, h5py.File(local, "r") as file:
            file.get("model_weights", file).visititems(collect)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: damaged, or not a Keras .h5 file ({error})") from None
    return tensors
