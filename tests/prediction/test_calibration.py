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
@given(_curves(), st.lists(_unit, max_size=20))
def test_a_curve_is_monotone_and_equals_a_linear_spline(curve, values):
    values = np.sort(np.array(values, np.float32))
    expected = make_interp_spline(curve.inputs, curve.outputs, k=1)(values)
    np.testing.assert_allclose(curve(values), expected, atol=1e-7)
    assert (np.diff(curve(values)) >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(_curves(), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_means_are_those_of_all_pixels(curves, num_images, seed):
    rng = np.random.default_rng(seed)
    planes = rng.beta(*rng.uniform(0.1, 3, 2), (num_images, len(curves), 20, 31))
    planes = planes.astype(np.float32)
    found = Calibration(curves).mean(tf.constant(planes))
    assert found.dtype == tf.float32 and found.shape == planes.shape[:2]
    for c, curve in enumerate(curves):
        steepest = (np.diff(curve.outputs) / np.diff(curve.inputs)).max()
        error = 2e-6 + max(steepest, 1) * 2**-16 / 5  # a pixel is rounded by up to 2^-16
        np.testing.assert_allclose(
            found[:, c], curve(planes[:, c].astype(float)).mean(axis=(1, 2)), atol=error
        )


def test_the_ends_count_and_nan_stays_nan():
    calibration = Calibration((Curve((0, 0.5, 1), (0.25, 0.3, 1)), Curve((0, 1), (0, 1))))
    planes = np.zeros((3, 2, 4, 5), np.float32)
    planes[1], planes[2, 1, 0, 0] = np.nextafter(np.float32(1), 2), np.nan
    found = calibration.mean(tf.constant(planes)).numpy()
    np.testing.assert_allclose(found, [[0.25, 0], [1, 1], [0.25, np.nan]], rtol=1e-6)


def test_works_in_a_graph_of_unknown_size():
    calibration = Calibration((Curve((0, 0.5, 1), (0, 0.1, 1)), Curve((0, 1), (0, 1))))
    graph = tf.function(calibration.mean)
    graph = graph.get_concrete_function(tf.TensorSpec([None, 2, None, None], tf.float32))
    found = graph(tf.fill([2, 2, 3, 4], 0.25))
    np.testing.assert_allclose(found, [[0.05, 0.25]] * 2, atol=1e-5)


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
        Calibration((Curve((0, 1), (0, 1)),)).mean(tf.zeros([2, 3, 4, 5]))
