"""Weights as files hold them, against numpy."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.models import packing
from clouds_tf.models.packing import packed, unpacked

pytestmark = pytest.mark.lanes

KERNELS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=4, max_side=4),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@pytest.fixture(autouse=True, scope="module")
def every_kernel():
    """Small kernels are stored in 8 bits too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "MIN_INT8_VALUES", 0)
        yield


@given(values=KERNELS, depthwise=st.booleans())
def test_the_error_is_at_most_half_a_step_of_its_output_channel(values, depthwise):
    name = "a/depthwise_kernel" if depthwise else "a/kernel"
    found = unpacked(packed({name: values}, "int8"), "file")[name]
    assert found.shape == values.shape and found.dtype == np.float32
    channels = 2 if depthwise else 1
    flat = values.reshape(-1, *values.shape[-channels:]).astype(np.float64)
    error = np.abs(flat - found.reshape(flat.shape))
    step = np.abs(flat).max(0) / 127
    assert (error <= (0.5 + 1e-4) * np.maximum(step, np.finfo(np.float32).tiny)).all()


@given(values=KERNELS)
def test_packing_again_changes_nothing(values):
    once = unpacked(packed({"a/kernel": values}, "int8"), "file")
    again = unpacked(packed(once, "int8"), "file")
    np.testing.assert_allclose(again["a/kernel"], once["a/kernel"], rtol=1e-6)


def test_each_channel_of_a_depthwise_kernel_has_its_scale():
    values = np.float32([1e-3, 1, 1e3]).reshape(1, 1, 3, 1) * np.ones([3, 3, 1, 2], np.float32)
    tensors = packed({"a/depthwise_kernel": values, "a/kernel": values}, "int8")
    assert tensors["a/depthwise_kernel:scale"].shape == (1, 1, 3, 2)
    assert tensors["a/kernel:scale"].shape == (1, 1, 1, 2)
    assert (tensors["a/depthwise_kernel"] == 127).all()
    found = unpacked(tensors, "file")
    np.testing.assert_allclose(found["a/depthwise_kernel"], values, rtol=1e-6)
    assert not found["a/kernel"][:, :, 0].any()


def test_vectors_and_small_kernels_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(packing, "MIN_INT8_VALUES", 6)
    rng = np.random.default_rng(0)
    shapes = {"small": [1, 5], "kernel": [2, 3], "vector": [9], "scalar": []}
    weights = {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    tensors = packed(weights, "int8")
    kinds = {name: values.dtype.name for name, values in tensors.items()}
    assert kinds == {
        **{"small": "float16", "kernel": "int8", "kernel:scale": "float32"},
        **{"vector": "float32", "scalar": "float32"},
    }
    found = unpacked(tensors, "file")
    assert found.keys() == weights.keys()
    for name in ("vector", "scalar"):
        np.testing.assert_array_equal(found[name], weights[name])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"a/kernel:scale": None}, "file: a/kernel: a kernel in 8 bits without a scale"),
        ({"a/kernel": None}, "file: a/kernel:scale: scale of a kernel in 8 bits, which is missing"),
        ({"a/kernel": np.ones([2, 3], np.float16)}, "file: a/kernel:scale: scale of a kernel in 8"),
        ({"a/kernel:scale": np.ones([3], np.float32)}, r"got float32 \[3\], expected .* \[1, 3\]"),
        ({"a/kernel:scale": np.ones([2, 1], np.float32)}, r"got float32 \[2, 1\], expected"),
        ({"a/kernel:scale": np.ones([1, 3])}, r"a/kernel:scale: got float64 .* expected float32"),
        ({"a/kernel:scale": np.float32([[1, 0, 1]])}, "a/kernel:scale: .* not a positive number"),
        ({"a/kernel:scale": np.float32([[1, np.nan, 1]])}, "scale: .* not a positive number"),
        ({"a/kernel:scale": np.float32([[1, np.inf, 1]])}, "scale: .* not a positive number"),
    ],
)
def test_tensors_that_do_not_fit_together_are_named(changes, message):
    tensors = packed({"a/kernel": np.ones([2, 3], np.float32)}, "int8")
    changed = {name: v for name, v in {**tensors, **changes}.items() if v is not None}
    with pytest.raises(ValueError, match=message):
        unpacked(changed, "file")


def test_what_cannot_be_stored_is_named():
    with pytest.raises(ValueError, match="a/kernel: got values that are not finite"):
        packed({"a/kernel": np.float32([[1, np.nan]])}, "int8")
    with pytest.raises(ValueError, match="kernels: got int4, expected one of float16, int8"):
        packed({}, "int4")
