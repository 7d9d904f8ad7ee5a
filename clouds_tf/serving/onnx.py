"""ONNX files of exported models, for ONNX Runtime, OpenVINO and browsers."""

from __future__ import annotations

import json
import logging
import typing
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.messages import log_level, warnings_only
from clouds_tf.prediction.engine import Network
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.signatures import Signatures
from clouds_tf.serving.parity import TOLERANCE, true_float32

if typing.TYPE_CHECKING:
    from onnx import GraphProto
    from tensorflow.types.experimental import GenericFunction as Function
    from tf2onnx.graph import Graph, Node

_INT32 = 6  # onnx.TensorProto.INT32
METADATA_KEY = "clouds_tf"  # of metadata_props
# The opset of 2022 has all required operations; runtimes since then support it.
_OPSET = 17


def require(path: str, image_sizes: Sequence[tuple[int, int]]) -> None:
    """Checks that an ONNX file can be written, before any work.

    Args:
        path: the file to write.
        image_sizes: (height, width) of the input of each network.

    Raises:
        ValueError: a package is missing, the path cannot be written, or the networks take images of
            different sizes, which a file with one input does not support.
    """
    for module in ("tf2onnx", "onnxruntime"):
        files.require(module, "onnx", "--onnx")
    if not path.endswith(".onnx"):
        raise ValueError(f"onnx: got {path}, expected a file name that ends in .onnx")
    files.check_output(path)
    if len(set(image_sizes)) > 1:
        sizes = ", ".join(f"{height}x{width}" for height, width in dict.fromkeys(image_sizes))
        raise ValueError(
            f"onnx: the networks take images of several sizes ({sizes}), expected one size; export "
            "one model, without --test_time_augmentation=scales"
        )


def write(
    path: str,
    networks: Sequence[Network],
    metadata: Metadata,
    images: Iterable[np.ndarray],
) -> float:
    """Writes an ONNX file equivalent to the signature from_pixels, whole or not at all.

    Its input is "images", uint8 [N, h, w, channels] in 0..255, at the common size of the networks.
    Its outputs, for C classes at the submission size (H, W), are those of from_pixels with
    masks instead of RLE: "masks", uint8 [N, H, W, C] of {0, 1}, after post-processing;
    "probabilities", float32 [N, H, W, C]; "presence", "area_fraction" and "expected_area_fraction",
    float32 [N, C]; "likeness", float32 [N]. Members and test-time augmentation are averaged inside.
    The JSON of `Metadata.to_json` is in metadata_props under METADATA_KEY.

    Args:
        path: the file to write, checked by `require`.
        networks: the networks of a `CloudModel`, in float32.
        metadata: data set, sizes, rules and limits.
        images: batches of uint8 [B, H, W, channels], on which ONNX Runtime is compared with
            TensorFlow.

    Returns:
        The largest difference of any probability or presence.

    Raises:
        ValueError: ONNX lacks an operation of the model, or the difference is more than 1e-4.
    """
    import onnxruntime

    size, channels = metadata.image_sizes[0], metadata.dataset.channels
    predict = tf.function(
        Signatures(networks, metadata).predict_resized,
        input_signature=[tf.TensorSpec([None, *size, channels], tf.uint8, name="images")],
        autograph=False,
    )
    content = _convert(predict, metadata)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    difference = 0.0
    for batch in images:
        resized = resize_image(batch, size)
        with true_float32():
            expected = predict(resized)
        names = ["probabilities", "presence"]
        for name, found in zip(names, session.run(names, {"images": resized.numpy()})):
            # NaN on either side counts as a difference.
            worst = np.abs(found - expected[name].numpy()).max()
            difference = max(difference, float(np.nan_to_num(worst, nan=np.inf)))
    if not difference <= TOLERANCE:  # nan is not
        raise ValueError(
            f"{path}: a probability of ONNX Runtime differs by {difference:.2g} from that of "
            f"TensorFlow, expected at most {TOLERANCE:g}"
        )
    with files.written_whole(path) as temporary, gfile.opened(temporary, "wb") as file:
        file.write(content)
    return difference


def _convert(predict: Function, metadata: Metadata) -> bytes:
    """Converts a function with an input signature to the bytes of an ONNX file."""
    import onnx
    import tf2onnx

    converters = {
        "LowerBound": _lower_bound,
        "NthElement": _nth_element,
        "DenseBincount": _bincount,
    }
    handlers: dict[str, Any] = {name: (convert, []) for name, convert in converters.items()}
    try:
        # tf2onnx logs only its internals.
        with log_level("tf2onnx", logging.CRITICAL), warnings_only():
            model, _ = tf2onnx.convert.from_function(
                predict, predict.input_signature, opset=_OPSET, custom_op_handlers=handlers
            )
    except Exception as error:  # of any kind, about an operation of an encoder
        line = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"onnx: tf2onnx cannot convert the model: {line}") from None
    # tf2onnx keeps operations that it cannot convert, and reports them only in its log.
    known = {schema.name for schema in onnx.defs.get_all_schemas()}
    unknown = sorted({node.op_type for node in model.graph.node} - known)
    if unknown:
        raise ValueError(
            f"onnx: the model has operations that ONNX lacks: {', '.join(unknown)}; choose another "
            "encoder"
        )
    _round_scales_up(model.graph)
    model.producer_name = "clouds_tf"
    model.doc_string = "Cloud patterns in satellite images"
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata.to_json()))
    return model.SerializeToString()


def _round_scales_up(graph: GraphProto) -> None:
    """Rounds the scales of resizing up to the next float32.

    350 / 48 is 7.2916665 in float32, which gives 349 rows in runtimes that multiply in float64,
    such as onnxruntime-web.
    """
    from onnx import numpy_helper

    names = {node.input[2] for node in graph.node if node.op_type == "Resize"}
    for value in graph.initializer:
        if value.name in names:
            scales = numpy_helper.to_array(value)
            above = np.nextafter(scales, np.float32(np.inf))
            scales = np.where(scales % 1 == 0, scales, above)
            value.CopyFrom(numpy_helper.from_array(scales, value.name))


def _lower_bound(graph: Graph, node: Node, name: str, _: object) -> None:
    """Converts tf.searchsorted, which ONNX lacks: counts the bounds that a value is above."""
    (bounds, values), (result,) = node.input, node.output  # [B, K], [B, M] and [B, M]
    graph.remove_node(name)

    def along(axis: int) -> str:
        return graph.make_const(f"{name}_axis{axis}", np.array([axis])).output[0]

    row = graph.make_node("Unsqueeze", [bounds, along(1)]).output[0]
    column = graph.make_node("Unsqueeze", [values, along(2)]).output[0]
    above = graph.make_node("Less", [row, column]).output[0]
    ones = graph.make_node("Cast", [above], {"to": _INT32}).output[0]
    over = [ones, along(-1)]
    graph.make_node("ReduceSum", over, {"keepdims": 0}, outputs=[result], name=name)


def _nth_element(graph: Graph, node: Node, name: str, _: object) -> None:
    """Converts NthElement, from the highest on, which ONNX lacks."""
    values, (result,) = node.input[0], node.output
    n = int(node.inputs[1].get_tensor_value())
    graph.remove_node(name)
    number = graph.make_const(f"{name}_number", np.array([n + 1])).output[0]
    last = graph.make_const(f"{name}_last", np.array(n)).output[0]
    highest = graph.make_node("TopK", [values, number], output_count=2).output[0]
    graph.make_node("Gather", [highest, last], {"axis": -1}, outputs=[result], name=name)


def _bincount(graph: Graph, node: Node, name: str, _: object) -> None:
    """Converts DenseBincount of rows; tf2onnx would sort all values."""
    from onnx import numpy_helper

    rows, (result,) = node.input[0], node.output
    size = int(node.inputs[1].get_tensor_value())
    graph.remove_node(name)

    def filled(shape: str, value: int) -> str:
        tensor = numpy_helper.from_array(np.array([value], np.int32))
        return graph.make_node("ConstantOfShape", [shape], {"value": tensor}).output[0]

    shape = graph.make_node("Shape", [rows]).output[0]
    first = graph.make_const(f"{name}_first", np.array([0])).output[0]
    number = graph.make_node("Gather", [shape, first]).output[0]
    bins = graph.make_const(f"{name}_bins", np.array([size])).output[0]
    counts = graph.make_node("Concat", [number, bins], {"axis": 0}).output[0]
    inputs = [filled(counts, 0), rows, filled(shape, 1)]
    how = {"axis": 1, "reduction": "add"}
    graph.make_node("ScatterElements", inputs, how, outputs=[result], name=name)
