import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import make_interp_spline

from clouds_tf.prediction.calibration import Calibration, Curve

pytestmark = pytest.mark.lanes

_unit = st.floats(0, 1, width=32)


@st.composite
def _curves(draw):
    inner = draw(st.lists(st.integers(1, 99), unique=True, max_size=12))
    inputs = (0, *(i / 100 for i in sorted(inner)), 1)
    outputs = sorted(draw(st.lists(_unit, min_size=len(inputs), max_size=len(inputs))))
    return Curve(inputs, outputs)


@settings(max_examples=40)
@given(st.lists(_curves(), min_size=1, max_size=5), st.data())
def test_is_monotone_and_equals_a_linear_spline(curves, data):
    shape = data.draw(st.tuples(st.integers(0, 2), st.integers(1, 7)))
    values = data.draw(st.lists(_unit, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    probabilities = np.array(values, np.float32).reshape(shape)
    stacked = np.stack([probabilities] * len(curves), axis=-1)
    found = Calibration(curves).calibrate(tf.constant(stacked))
    assert found.dtype == tf.float32 and found.shape == stacked.shape
    for c, curve in enumerate(curves):
        expected = make_interp_spline(curve.inputs, curve.outputs, k=1)(probabilities)
        np.testing.assert_allclose(found[..., c], expected, atol=1e-5)
        np.testing.assert_allclose(curve(probabilities), expected, atol=1e-7)
        order = np.argsort(probabilities, axis=None)
        assert (np.diff(np.ravel(found[..., c])[order]) >= -1e-6).all()


def test_works_in_a_graph_of_unknown_size():
    calibration = Calibration((Curve((0, 0.5, 1), (0, 0.1, 1)), Curve((0, 1), (0, 1))))
    graph = tf.function(calibration.calibrate)
    graph = graph.get_concrete_function(tf.TensorSpec([None, None, None, 2], tf.float32))
    found = graph(tf.fill([2, 3, 4, 2], 0.5))
    np.testing.assert_allclose(found, np.broadcast_to([0.1, 0.5], (2, 3, 4, 2)), rtol=1e-6)


def test_comes_back_from_json():
    names = ("scratch", "hole")
    calibration = Calibration((Curve((0, 1), (0.25, 0.5), "platt"), Curve((0, 0.5, 1), (0, 1, 1))))
    text = json.dumps(calibration.to_json(names))
    assert Calibration.from_json(json.loads(text), names) == calibration
    with pytest.raises(ValueError, match=r"got the classes \['scratch', 'hole'\]"):
        Calibration.from_json(json.loads(text), ("hole",))


@pytest.mark.parametrize(
    "inputs, outputs, message",
    [
        ((0, 1), (0, 0.5, 1), "got 2 inputs and 3 outputs"),
        ((0.1, 1), (0, 1), "inputs must increase strictly from 0 to 1"),
        ((0, 0.5, 0.5, 1), (0, 0, 1, 1), "inputs must increase strictly"),
        ((0, 0.5, 1), (0, 0.7, 0.6), "outputs must lie in .* and never decrease"),
        ((0, 1), (0, 1.5), "outputs must lie in"),
        ((0, 1), (float("nan"), 1), "outputs must lie in"),
    ],
)
def test_impossible_curves_are_refused(inputs, outputs, message):
    with pytest.raises(ValueError, match=message):
        Curve(inputs, outputs)
    knots = [list(pair) for pair in zip(inputs, outputs)]
    if len(inputs) == len(outputs):
        with pytest.raises(ValueError, match=f"Fish: .*{message}"):
            Calibration.from_json({"Fish": {"method": "isotonic", "knots": knots}}, ("Fish",))


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="got probabilities of 3 classes, expected 1"):
        Calibration((Curve((0, 1), (0, 1)),)).calibrate(tf.zeros([2, 3]))
