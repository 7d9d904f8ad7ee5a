"""Flattens backbones of nested blocks to graphs of plain Keras layers.

keras-cv nests convolutions and batch norm in blocks. Freezing, fusing, synchronised batch norm and
saving work on copies of the innermost layers, with names that are the same in every process. Three
things differ from the original, none of which changes a prediction:

*   Batch norm has a momentum of 0.9. With published values of up to 0.999, the moving statistics
    take thousands of steps to reach those of the data.
*   Stochastic depth is left out: its random state is not part of a checkpoint, so a resumed run
    would differ from an uninterrupted one.
*   Input scaling and the first convolution compute in float32 whatever the precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from clouds_tf.keras import KerasTensor, Layer, keras
from clouds_tf.models.normalization import BatchNorm

layers = keras.layers

MOMENTUM = 0.9


@keras.utils.register_keras_serializable("clouds_tf")
def relu6_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """MobileNet's hard sigmoid, relu6(x + 3) / 6, which differs from that of Keras 2."""
    return tf.nn.relu6(x + 3) / 6


@keras.utils.register_keras_serializable("clouds_tf")
class EverySecond(keras.layers.Layer):
    """Takes every second row and column of maps [B, H, W, C], starting with the first."""

    def __init__(self, row: int, column: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.row, self.column = row, column

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x[:, self.row :: 2, self.column :: 2]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "row": self.row, "column": self.column}


def _calls(outputs: list[Any]) -> list[Any]:
    """Lists the Keras nodes that symbolic tensors depend on, in topological order."""
    ordered: dict[int, Any] = {}
    pending = [tensor.node for tensor in outputs]
    while pending:
        missing = [node for node in pending[-1].parent_nodes if id(node) not in ordered]
        if missing:
            pending += missing
        else:
            node = pending.pop()
            ordered[id(node)] = node
    return list(ordered.values())


def _replay(outputs: list[Any], image: KerasTensor, call: Callable[..., Any]) -> list[Any]:
    """Repeats the graph of symbolic tensors on another image, with `call` for each layer."""
    values: dict[int, Any] = {}
    for node in _calls(outputs):
        if node.is_input:
            values[id(node.outputs)] = image
            continue
        args, kwargs = tf.nest.map_structure(
            lambda x: values.get(id(x), x), (node.call_args, node.call_kwargs)
        )
        values[id(node.outputs)] = call(node.layer, *args, **kwargs)
    return [values[id(tensor)] for tensor in outputs]


def _is_block(layer: Layer) -> bool:
    """Whether a layer contains other layers."""
    return bool(layer.submodules) and not isinstance(layer, layers.Conv2D)


def _call_within(layer: Layer, *args: Any, **kwargs: Any) -> Any:
    """Calls a layer, or the layers of a block."""
    if not _is_block(layer):
        return layer(*args, **kwargs)
    if hasattr(layer, "excite_conv"):  # its multiplication is an operation, not a layer
        layer.excite_conv.activation = relu6_sigmoid
        scale = layer.excite_conv(layer.squeeze_conv(layer.global_average_pool(args[0])))
        return layers.Multiply()([args[0], scale])
    return layer.call(*args, **kwargs)  # Keras records each layer that is called in it


def _without_blocks(outputs: list[Any]) -> list[Any]:
    """Repeats a graph with the layers inside its blocks, which keep their weights."""
    while any(_is_block(node.layer) for node in _calls(outputs)):
        (shape,) = (node.outputs.shape for node in _calls(outputs) if node.is_input)
        outputs = _replay(outputs, keras.Input(shape[1:]), _call_within)
    return outputs


def _name(prefix: str, position: int, layer: Layer) -> str:
    """Names a layer by its position, as keras-cv's names depend on what was built before."""
    kind = type(layer).__name__.lower()
    return f"{prefix}{position:03d}_{kind.replace('batchnormalization', 'batchnorm')}"


def innermost_layers(outputs: list[Any], prefix: str) -> dict[str, Any]:
    """The layers that compute symbolic tensors of a model, by their names in `copied`."""
    nodes = [node for node in _calls(_without_blocks(outputs)) if not node.is_input]
    found = [node.layer for node in nodes if not isinstance(node.layer, layers.Dropout)]
    return {_name(prefix, position, layer): layer for position, layer in enumerate(found, start=1)}


def _copy(layer: Layer, name: str, dtype: str | None) -> Any:
    """Makes a copy of a layer that can be saved; the dtype None keeps that of the layer."""
    config = {**layer.get_config(), "name": name}
    if dtype:
        config["dtype"] = dtype
    if isinstance(layer, layers.BatchNormalization):
        return BatchNorm.from_config({**config, "momentum": MOMENTUM})
    same = {"name": name, "dtype": config["dtype"]}
    # Functions and slices of CSPDarkNet, which Keras can write to files but not read.
    if isinstance(layer, layers.Lambda):
        return layers.Activation("swish", **same)
    if type(layer).__name__ == "SlicingOpLambda":
        node = layer.inbound_nodes[0]
        spec = node.call_args[1] if len(node.call_args) > 1 else node.call_kwargs["slice_spec"]
        row, column = (_start(part) for part in spec[1:3])
        return EverySecond(row, column, **same)
    return layer.__class__.from_config(config)


def _start(part: Any) -> int:
    """First index of a slice, which Keras stores as a dict."""
    return (part["start"] if isinstance(part, dict) else part.start) or 0


def copied(outputs: list[Any], image: KerasTensor, prefix: str) -> list[Any]:
    """Applies copies of the layers that compute symbolic tensors of a model to an image.

    Returns the symbolic tensors that correspond to `outputs`; names start with `prefix`.
    """
    position = 0
    in_stem = True

    def call(layer: Layer, *args: Any, **kwargs: Any) -> Any:
        nonlocal position, in_stem
        if isinstance(layer, layers.Dropout):
            return args[0]
        position += 1
        copy = _copy(layer, _name(prefix, position, layer), "float32" if in_stem else None)
        if isinstance(copy, EverySecond):
            args, kwargs = args[:1], {}
        in_stem = in_stem and not isinstance(layer, layers.Conv2D)
        return copy(*args, **kwargs)

    return _replay(_without_blocks(outputs), image, call)
