"""Bodies of requests: whatever they say is read, or refused in one sentence."""

import base64
import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from clouds_tf.server.errors import RequestError
from clouds_tf.server.protocols import parse_v1, parse_v2

_WORDS = ["instances", "inputs", "outputs", "signature_name", "image_bytes", "images", "b64"]
_WORDS += ["name", "shape", "datatype", "data", "id", "BYTES", "UINT8", "probabilities", "AAAA"]
_KEYS = strategies.sampled_from(_WORDS)
_LEAVES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(-(2**70), 2**70),
    strategies.floats(),
    strategies.text(max_size=5),
    _KEYS,
)
_VALUES = strategies.recursive(
    _LEAVES,
    lambda inner: strategies.lists(inner, max_size=4)
    | strategies.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


def _check(parse, body):
    """Reads a body; an error is one short sentence."""
    try:
        query = parse(body)
    except RequestError as error:
        assert error.status_code == 400
        assert 0 < len(error.detail) < 400 and "\n" not in error.detail
        return
    for image in query.images:
        assert isinstance(image, bytes) or (image.dtype == np.uint8 and image.shape[2] == 3)


@pytest.mark.slow
@hypothesis.settings(max_examples=300)
@hypothesis.given(strategies.binary(max_size=60), _VALUES)
def test_any_bytes_and_any_json(content, value):
    for parse in (parse_v1, parse_v2):
        _check(parse, content)
        _check(parse, json.dumps(value).encode())


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    strategies.fixed_dictionaries(
        {},
        optional={
            "signature_name": strategies.sampled_from(["from_pixels", "probabilities", "", 3]),
            "instances": _VALUES,
            "inputs": _VALUES,
        },
    ),
    strategies.fixed_dictionaries(
        {"name": strategies.sampled_from(["image_bytes", "images", "x"])},
        optional={
            "datatype": strategies.sampled_from(["BYTES", "UINT8", 1]),
            "shape": strategies.lists(strategies.integers(-1, 3), max_size=5) | _VALUES,
            "data": _VALUES,
        },
    ),
    _VALUES,
)
def test_bodies_that_are_nearly_right(body, tensor, outputs):
    _check(parse_v1, json.dumps(body).encode())
    _check(parse_v2, json.dumps({"inputs": [tensor], "outputs": outputs}).encode())


@hypothesis.given(strategies.lists(strategies.binary(max_size=40), max_size=4))
def test_bytes_arrive_as_they_were_sent(contents):
    texts = [base64.b64encode(content).decode() for content in contents]
    spellings = [texts, [t.rstrip("=") for t in texts]]
    spellings += [["\n".join(t[i : i + 3] for i in range(0, len(t), 3)) for t in texts]]
    for some in spellings:
        rows = [{"image_bytes": {"b64": text}} for text in some]
        assert parse_v1(json.dumps({"instances": rows}).encode()).images == contents
        columns = {"inputs": [{"b64": text} for text in some]}
        assert parse_v1(json.dumps(columns).encode()).images == contents
        tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [len(some)], "data": some}
        assert parse_v2(json.dumps({"inputs": [tensor]}).encode()).images == contents


@hypothesis.given(strategies.integers(1, 3), strategies.integers(1, 4), strategies.integers(0, 9))
def test_pixels_arrive_as_they_were_sent(height, width, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    body = {"signature_name": "from_pixels", "instances": pixels.tolist()}
    np.testing.assert_array_equal(parse_v1(json.dumps(body).encode()).images, pixels)
    for data in (pixels.ravel().tolist(), pixels.tolist()):
        shape = list(pixels.shape)
        tensor = {"name": "images", "datatype": "UINT8", "shape": shape, "data": data}
        body = {"inputs": [tensor]}
        np.testing.assert_array_equal(parse_v2(json.dumps(body).encode()).images, pixels)
