import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from test_search import _counts

from clouds_tf.evaluation import areas
from clouds_tf.evaluation.areas import _fit_isotonic, _log_loss, area_biases, calibrate
from clouds_tf.evaluation.counts import EDGES
from clouds_tf.models.probabilities import for_masks

pytestmark = pytest.mark.lanes

NUM_BINS = len(EDGES) + 1
MIDDLES = (np.array([0, *EDGES]) + np.array([*EDGES, 1])) / 2


def _pixels(shares, number=1e6):
    """Pixels [2, B] of which these shares are inside the truth."""
    numbers = np.full(NUM_BINS, number)
    return np.stack([numbers * (1 - shares), numbers * shares])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_isotonic_equals_scipy(seed, emptiness):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 1000, (2, NUM_BINS)) * (rng.random(NUM_BINS) >= emptiness)
    curve = _fit_isotonic(pixels)  # which checks itself that it is monotone and within [0, 1]
    assert len(curve.inputs) <= 40
    if not pixels.sum():
        return
    starts = areas._STARTS
    inside, numbers = (np.add.reduceat(x, starts) for x in (pixels[1], pixels.sum(axis=0)))
    middles = np.add.reduceat(pixels.sum(axis=0) * MIDDLES, starts)
    some = numbers > 0
    inside, numbers, middles = inside[some], numbers[some], middles[some]
    expected = optimize.isotonic_regression(inside / numbers, weights=numbers).x
    np.testing.assert_allclose(_fit_isotonic(pixels)(middles / numbers), expected, atol=1e-9)


def test_isotonic_finds_a_staircase_of_its_own_segments():
    shares = np.where(np.arange(NUM_BINS) < 50, 0.2, 0.6)
    curve = _fit_isotonic(_pixels(shares))
    np.testing.assert_allclose(curve([0.1, 0.3, 0.8, 1]), [0.2, 0.2, 0.6, 0.6], atol=0.01)


def test_falling_shares_give_a_flat_curve():
    curve = _fit_isotonic(_pixels(1 - MIDDLES))
    np.testing.assert_allclose(curve([0.1, 0.9]), 0.5, atol=0.01)


def test_log_loss_is_that_of_every_pixel():
    pixels = np.zeros((2, NUM_BINS), int)
    pixels[0, 20], pixels[1, 60] = 3, 2
    expected = -3 * np.log(1 - MIDDLES[20]) - 2 * np.log(MIDDLES[60])
    assert _log_loss(None, pixels) == pytest.approx(expected)


def test_the_unbiased_threshold_keeps_as_many_pixels_as_are_true():
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 1000, NUM_BINS)
    inside = rng.binomial(numbers, MIDDLES**2)
    threshold = areas._unbiased_threshold(np.stack([numbers - inside, inside]))
    assert areas._area_above(numbers[None], threshold) == pytest.approx([inside.sum()])
    # On an edge, and at both ends.
    above = areas._area_above(np.stack([numbers] * 2), 0.3)
    assert above == pytest.approx([numbers[EDGES.index(0.3) + 1 :].sum()] * 2)
    assert areas._area_above(numbers[None], 0) == pytest.approx([numbers.sum()])
    assert areas._area_above(numbers[None], 1) == pytest.approx([0])
    nothing = np.stack([numbers, np.zeros_like(numbers)])
    assert areas._unbiased_threshold(nothing) == 1


def test_the_bias_and_its_interval_are_those_of_scipy():
    rng = np.random.default_rng(0)
    true = rng.random(80) * (rng.random(80) < 0.7)
    predicted = 1.2 * true + 0.02 * rng.random(80)
    (found,) = area_biases(predicted[:, np.newaxis], true[:, np.newaxis])
    expected = stats.bootstrap(
        (predicted, true),
        lambda p, t, axis: p.sum(axis=axis) / t.sum(axis=axis) - 1,
        paired=True,
        n_resamples=4000,
        method="percentile",
        random_state=1,
    ).confidence_interval
    assert found.value == pytest.approx(predicted.sum() / true.sum() - 1)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert str(areas.Bias(0.021, -0.01, 0.3)) == "+2.1% (-1.0% to +30.0%)"
    (nothing,) = area_biases(predicted[:, np.newaxis], 0 * true[:, np.newaxis])
    assert np.isnan(nothing.value) and str(nothing) == "no true area"


@pytest.fixture(scope="module")
def overconfident():
    """40 images whose probabilities are twice too sure, in logits; classes of different size."""
    rng = np.random.default_rng(0)
    level = rng.normal([-3, -1.5, 0], 1.5, (40, 1, 1, 3))
    honest = special.expit(level + rng.normal(0, 1, (40, 30, 40, 3)))
    masks = np.uint8(rng.random(honest.shape) < honest)
    probabilities = np.float32(special.expit(2 * special.logit(honest) + 0.5))
    return probabilities, masks, np.arange(40) % 4


def test_calibration_mends_probabilities_and_areas(overconfident):
    probabilities, masks, folds = overconfident
    counts = _counts(probabilities, masks, folds)
    found = calibrate(counts)
    true = masks.sum(axis=(1, 2))
    np.testing.assert_array_equal(found.true, true)
    for c in range(3):
        losses = {name: values[c] for name, values in found.log_losses.items()}
        assert losses["isotonic"] < losses["uncalibrated"]
        uncalibrated = area_biases(probabilities.sum(axis=(1, 2)), true)[c]
        assert abs(uncalibrated.value) > 0.04
        for predicted in (found.expected, found.unbiased_masks):
            bias = area_biases(predicted, true)[c]
            assert abs(bias.value) < 0.03 and bias.low < 0 < bias.high
    x = np.array([0.1, 0.5, 0.9])
    expected = special.expit((special.logit(x) - 0.5) / 2)
    for curve in found.calibration.curves:
        np.testing.assert_allclose(curve(x), expected, atol=0.05)


def test_areas_from_histograms_are_those_of_calibrated_pixels(overconfident):
    """Cross-fitted: those of a fold follow from the other folds alone."""
    probabilities, masks, folds = overconfident
    counts = _counts(probabilities, masks, folds)
    found = calibrate(counts)
    rest, own = folds != 1, folds == 1
    rest_counts = _counts(probabilities[rest], masks[rest], folds[rest])
    for c in range(3):
        fit = _fit_isotonic(rest_counts.histograms[:, c].sum(axis=0))
        expected = fit(probabilities[own][..., c]).sum(axis=(1, 2))
        np.testing.assert_allclose(found.expected[own, c], expected, rtol=0.03, atol=1)
        threshold = areas._unbiased_threshold(rest_counts.histograms[:, c].sum(axis=0))
        masked = (probabilities[own][..., c] > threshold).sum(axis=(1, 2))
        np.testing.assert_allclose(found.unbiased_masks[own, c], masked, atol=12)


def test_exclusive_classes_are_calibrated_by_all_probabilities_and_their_masks_by_the_highest(
    overconfident,
):
    probabilities, masks, folds = overconfident
    every = _counts(probabilities, masks, folds)
    highest = _counts(for_masks(probabilities, exclusive=True), masks, folds)
    found = calibrate(dataclasses.replace(highest, of_all=every.histograms))
    assert found.calibration == calibrate(every).calibration
    np.testing.assert_array_equal(found.expected, calibrate(every).expected)
    np.testing.assert_array_equal(found.unbiased_masks, calibrate(highest).unbiased_masks)
    assert (found.unbiased_masks != calibrate(every).unbiased_masks).any()


@pytest.mark.slow
def test_one_fold_is_halved(overconfident):
    probabilities, masks = (values[:12] for values in overconfident[:2])
    counts = _counts(probabilities, masks)
    one, again, other = (calibrate(counts, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.expected, again.expected)
    assert (one.expected != other.expected).any()
