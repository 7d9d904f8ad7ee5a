"""Compact storage of weights: kernels in 16 or 8 bits, vectors in float32."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

KERNELS = ("float16", "int8")

# Smaller kernels stay float16. In the shipped model, they are mostly in the first layers and have
# 1 % of the weights, but in 8 bits they caused half of the error of the probabilities.
MIN_INT8_VALUES = 8192

_SCALE = ":scale"  # names of variables do not have a colon
_LARGEST = 127


def packed(weights: Mapping[str, np.ndarray], kernels: str) -> dict[str, np.ndarray]:
    """Converts the weights of a model to the tensors of a file.

    Vectors stay float32, because moving variances exceed the range of float16.

    Args:
        weights: float32 arrays by name of the variable.
        kernels: "float16"; or "int8", which stores kernels of at least `MIN_INT8_VALUES` values as
            multiples of one float32 scale for each output channel, a tensor NAME:scale.

    Raises:
        ValueError: unknown `kernels`, or a weight is not finite.
    """
    if kernels not in KERNELS:
        raise ValueError(f"kernels: got {kernels}, expected one of {', '.join(KERNELS)}")
    tensors: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: got values that are not finite; the training has diverged")
        if kernels == "int8" and values.ndim > 1 and values.size >= MIN_INT8_VALUES:
            scale = _scale(name, values)
            tensors[name] = np.rint(values / scale).astype(np.int8)
            tensors[name + _SCALE] = scale
        else:
            largest = np.abs(values).max(initial=0)
            narrow = values.ndim > 1 and largest <= np.finfo(np.float16).max
            tensors[name] = np.ascontiguousarray(values, np.float16 if narrow else np.float32)
    return tensors


def unpacked(tensors: Mapping[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """Converts the tensors of a file to weights; those of 8 bits become float32.

    Args:
        tensors: all tensors of the file.
        path: the file, for errors.

    Raises:
        ValueError: a kernel of 8 bits has no scale or a wrong one, or a scale has no kernel.
    """
    kernels = {name: values for name, values in tensors.items() if values.dtype == np.int8}
    weights = {name: values for name, values in tensors.items() if not name.endswith(_SCALE)}
    for name in tensors.keys() - weights.keys():
        if name[: -len(_SCALE)] not in kernels:
            raise ValueError(f"{path}: {name}: scale of a kernel in 8 bits, which is missing")
    for name, values in kernels.items():
        scale = tensors.get(name + _SCALE)
        if scale is None:
            raise ValueError(f"{path}: {name}: a kernel in 8 bits without a scale, {name}{_SCALE}")
        expected = _scale_shape(name, values.shape)
        if scale.dtype != np.float32 or list(scale.shape) != expected:
            got = f"got {scale.dtype} {list(scale.shape)}"
            raise ValueError(f"{path}: {name}{_SCALE}: {got}, expected float32 {expected}")
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"{path}: {name}{_SCALE}: got a scale that is not a positive number")
        weights[name] = values * scale
    return weights


def _scale(name: str, values: np.ndarray) -> np.ndarray:
    """Scale of each output channel of a kernel, float32, in a shape that broadcasts to it."""
    kept = _scale_shape(name, values.shape)
    axes = tuple(axis for axis, length in enumerate(kept) if length == 1)
    scale = np.abs(values).max(axes, keepdims=True) / np.float32(_LARGEST)
    return np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)  # also where all are 0


def _scale_shape(name: str, shape: tuple[int, ...]) -> list[int]:
    """Shape of a kernel's scale: its output channels, and 1 for its other axes."""
    channels = 2 if name.endswith("depthwise_kernel") else 1  # [h, w, C, multiplier]
    return [1] * (len(shape) - channels) + list(shape[-channels:])
