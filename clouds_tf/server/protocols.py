"""Parses requests and makes answers of both protocols.

V1 is TensorFlow Serving's REST API, https://www.tensorflow.org/tfx/serving/api_rest, and V2 the
Open Inference Protocol, https://github.com/kserve/open-inference-protocol. Requests are untrusted.
"""

from __future__ import annotations

import dataclasses
import os
import reprlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pybase64
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.protobuf import saved_model_pb2

from clouds_tf.prediction.metadata import Metadata
from clouds_tf.server.batching import PROBABILITIES, Image, Output
from clouds_tf.server.errors import RequestError
from clouds_tf.serving.tf_serving import MODEL_NAME

_MASKS = ("encoded_pixels", "presence", "area_fraction", "expected_area_fraction", "likeness")
# Signature -> its input and its outputs.
_SIGNATURES = {
    "serving_default": ("image_bytes", _MASKS),
    "probabilities": ("image_bytes", (PROBABILITIES,)),
    "from_pixels": ("images", (*_MASKS, PROBABILITIES)),
    "metadata": ("image_bytes", ("metadata",)),
}
# Input of V2 -> its datatype and its shape.
_TENSORS_V2 = {"image_bytes": ("BYTES", (-1,)), "images": ("UINT8", (-1, -1, -1, 3))}
_SHOWN = 50  # characters of a value in an error


@dataclasses.dataclass(frozen=True)
class Query:
    """A parsed request.

    Attributes:
        images: N images.
        names: requested outputs, in order.
        answer: makes the body of the answer from N outputs, and the number and Metadata of the
            version that made them.
    """

    images: list[Image]
    names: tuple[str, ...]
    answer: Callable[[Sequence[Output], int, Metadata], bytes]


def to_json(value: object) -> bytes:
    """JSON of a value, with arrays as nested lists, bytes as text and NaN as null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)


def _plain(value: object) -> Any:
    if isinstance(value, np.ndarray):  # of strings, or not contiguous
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode()
    raise TypeError(f"no JSON for {type(value)}")


def parse_v1(body: bytes | bytearray) -> Query:
    """Parses the body of a predict request; RequestError if it is malformed."""
    fields = _parse_object(body)
    signature = fields.get("signature_name") or "serving_default"
    if not isinstance(signature, str) or signature not in _SIGNATURES:
        raise _wrong("signature_name", signature, f"one of {', '.join(_SIGNATURES)}")
    if ("instances" in fields) == ("inputs" in fields):
        raise RequestError(400, "expected either 'instances' or 'inputs'")
    name, names = _SIGNATURES[signature]
    in_rows = "instances" in fields
    if in_rows:
        rows = _of_input(fields["instances"], "instances", name)
    else:
        rows = fields["inputs"]
        if isinstance(rows, dict):
            rows = _only(rows, "inputs", name)
        if not isinstance(rows, list):
            raise _wrong("inputs", rows, "a list")
    key = "instances" if in_rows else "inputs"
    read = _read_bytes if name == "image_bytes" else _as_pixels
    if signature == "metadata":
        images: list[Image] = [b""] * len(rows)  # ignored
    else:
        images = [read(row, f"{key}[{i}]") for i, row in enumerate(rows)]

    def answer(outputs: Sequence[Output], version: int, metadata: Metadata) -> bytes:
        first, *others = names  # a single output has no name in the answer
        if in_rows:
            found = [{x: o[x] for x in names} if others else o[first] for o in outputs]
            return to_json({"predictions": found})
        columns = {x: [output[x] for output in outputs] for x in names}
        return to_json({"outputs": columns if others else columns[first]})

    return Query(images, names, answer)


def _of_input(instances: object, key: str, name: str) -> list[Any]:
    """Values of the only input, from a list of rows {name: value}, or of values."""
    if not isinstance(instances, list):
        raise _wrong(key, instances, "a list")
    return [
        _only(row, f"{key}[{i}]", name) if isinstance(row, dict) and set(row) != {"b64"} else row
        for i, row in enumerate(instances)
    ]


def _only(row: dict[str, Any], place: str, name: str) -> Any:
    if set(row) != {name}:
        raise _wrong(place, ", ".join(map(str, row)) or "nothing", f"the input {name!r} alone")
    return row[name]


def parse_v2(body: bytes | bytearray) -> Query:
    """Parses the body of an infer request; RequestError if it is malformed.

    Values of BYTES are Base64, since JSON cannot represent images.
    """
    fields = _parse_object(body)
    inputs = fields.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _wrong("inputs", inputs, "a list of one tensor, image_bytes or images")
    (tensor,) = inputs
    name, data = tensor.get("name"), tensor.get("data")
    if name not in _TENSORS_V2:
        raise _wrong("inputs[0].name", name, f"one of {', '.join(_TENSORS_V2)}")
    datatype, known_shape = _TENSORS_V2[name]
    if tensor.get("datatype") != datatype:
        raise _wrong("inputs[0].datatype", tensor.get("datatype"), datatype)
    shape = _read_shape(tensor.get("shape"), known_shape)
    if not isinstance(data, list):
        raise _wrong("inputs[0].data", data, "a list")
    wanted = _wanted_outputs(fields.get("outputs"))
    if name == "image_bytes":
        data = [value for row in data for value in (row if isinstance(row, list) else [row])]
        if len(data) != shape[0]:
            raise _wrong("inputs[0].data", f"{len(data)} values", f"{shape[0]} by its shape")
        images: list[Image] = [_read_base64(v, f"inputs[0].data[{i}]") for i, v in enumerate(data)]
    else:
        images = list(_as_pixels(data, "inputs[0].data", shape))
    identifier = fields.get("id")

    def answer(outputs: Sequence[Output], version: int, metadata: Metadata) -> bytes:
        found = {"model_name": MODEL_NAME, "model_version": str(version)}
        if identifier is not None:
            found["id"] = identifier
        shapes = _output_shapes(metadata)
        return to_json({**found, "outputs": [_tensor_v2(x, outputs, shapes[x]) for x in wanted]})

    return Query(images, wanted, answer)


def _read_shape(shape: object, known: tuple[int, ...]) -> tuple[int, ...]:
    """Checks a shape; [N, 1] is accepted for [N], as other servers require for BYTES."""
    if isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape):
        sides = shape[:1] if len(known) == 1 and shape[1:] == [1] else shape
        if len(sides) == len(known) and all(k in (-1, x) for x, k in zip(sides, known)):
            return tuple(sides)
    raise _wrong("inputs[0].shape", shape, str(list(known)))


def _wanted_outputs(outputs: object) -> tuple[str, ...]:
    """Names of the outputs in a request of V2; by default, all but the probabilities."""
    if outputs is None or outputs == []:
        return _MASKS
    known = (*_MASKS, PROBABILITIES)
    if not isinstance(outputs, list):
        raise _wrong("outputs", outputs, "a list")
    for i, output in enumerate(outputs):
        name = output.get("name") if isinstance(output, dict) else None
        if name not in known:
            raise _wrong(f"outputs[{i}].name", name, f"one of {', '.join(known)}")
    return tuple(dict.fromkeys(output["name"] for output in outputs))


def _output_shapes(metadata: Metadata) -> dict[str, list[int]]:
    """Shapes of all outputs of V2, with -1 for the number of images."""
    classes = metadata.dataset.num_classes
    shapes = {name: [-1, classes] for name in _MASKS}
    size = metadata.dataset.submission_size
    return {**shapes, "likeness": [-1], PROBABILITIES: [-1, *size, classes]}


def _datatype(name: str) -> str:
    return "BYTES" if name == "encoded_pixels" else "FP32"


def _tensor_v2(name: str, outputs: Sequence[Output], shape: list[int]) -> dict[str, Any]:
    """An output of N images; without images, its shape is [0, ...], as in the SavedModel."""
    values = [np.ravel(output[name]) for output in outputs]
    data: Any = np.concatenate(values) if values else []
    return {
        "name": name,
        "datatype": _datatype(name),
        "shape": [len(outputs), *shape[1:]],
        "data": data,
    }


def _parse_object(body: bytes | bytearray) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise _wrong("the body", fields, "an object")
    return fields


def _wrong(place: str, value: object, expected: str) -> RequestError:
    shown = value if isinstance(value, str) else reprlib.repr(value)  # limits size and depth
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return RequestError(400, f"{place}: got {shown}, expected {expected}")


def _read_bytes(value: object, place: str) -> bytes:
    """Decodes a string of V1: {"b64": Base64}, or a text, which is encoded."""
    if isinstance(value, dict) and set(value) == {"b64"}:
        return _read_base64(value["b64"], place)
    if isinstance(value, str):
        return value.encode()
    raise _wrong(place, value, 'an object {"b64": Base64 of a JPEG or PNG}')


def _read_base64(value: object, place: str) -> bytes:
    """Decodes Base64; whitespace and missing padding are allowed."""
    if not isinstance(value, str):
        raise _wrong(place, value, "Base64 of a JPEG or PNG")
    try:
        return pybase64.b64decode(value, validate=True)
    except ValueError:
        text = "".join(value.split()).rstrip("=")
    try:
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise _wrong(place, value, "Base64") from None


def _as_pixels(value: object, place: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Converts integers of 0 to 255 to uint8 [H, W, 3], or to a given shape."""
    expected = f"whole numbers of 0 to 255 in the shape {shape or '[height, width, 3]'}"
    try:
        found = np.array(value)
        if found.size and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() > 255):
            raise ValueError
        found = found.astype(np.uint8)
        found = found if shape is None else found.reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(place, value, expected) from None
    if (found.ndim != 3 and shape is None) or found.shape[-1:] != (3,) or 0 in found.shape[-3:]:
        raise _wrong(place, f"the shape {list(found.shape)}", expected)
    return found


def metadata_outputs(metadata: Metadata, number: int) -> list[Output]:
    """The outputs of the signature metadata for a number of images."""
    text = orjson.dumps(metadata.to_json(), option=orjson.OPT_INDENT_2).decode()
    return [{"metadata": text}] * number


def metadata_v1(saved_model: str, version: int) -> dict[str, Any]:
    """The answer to GET .../metadata: the signatures of a SavedModel."""
    with open(os.path.join(saved_model, "saved_model.pb"), "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    signatures = model.meta_graphs[0].signature_def
    found = {name: _message_to_dict(value) for name, value in signatures.items()}
    spec = {"name": MODEL_NAME, "signature_name": "", "version": str(version)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": found}}}


def _message_to_dict(message: Message) -> dict[str, Any]:
    """JSON of a protocol buffer with all its fields, as in TensorFlow Serving."""
    names = {"preserving_proto_field_name": True}
    try:
        return json_format.MessageToDict(message, including_default_value_fields=True, **names)
    except TypeError:  # protobuf 5 and later
        return json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, **names
        )


def metadata_v2(metadata: Metadata, versions: Sequence[int]) -> dict[str, Any]:
    """The answer to GET /v2/models/NAME."""
    outputs = [
        {"name": name, "datatype": _datatype(name), "shape": shape}
        for name, shape in _output_shapes(metadata).items()
    ]
    inputs = [
        {"name": name, "datatype": datatype, "shape": list(shape)}
        for name, (datatype, shape) in _TENSORS_V2.items()
    ]
    return {
        "name": MODEL_NAME,
        "versions": [str(version) for version in versions],
        "platform": "tensorflow_savedmodel",
        "inputs": inputs,
        "outputs": outputs,
    }
