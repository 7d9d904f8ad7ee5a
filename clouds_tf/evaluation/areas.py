"""Calibration of probabilities on held-out images, and the bias of predicted areas."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from clouds_tf.evaluation.counts import EDGES, Counts, above
from clouds_tf.evaluation.score import resampled_sums
from clouds_tf.messages import short_repr
from clouds_tf.prediction.calibration import Calibration, Curve

# A few dozen segments of the probabilities, at which calibration curves have their knots.
_SEGMENTS = (
    *(0.0005, 0.002, 0.005, 0.01, 0.02, 0.03),
    *(round(0.05 * i, 2) for i in range(1, 20)),
    *(0.97, 0.98, 0.99, 0.995, 0.998, 0.9995),
)
_STARTS = [0, *(int(np.isclose(EDGES, edge).argmax()) + 1 for edge in _SEGMENTS)]  # first bins
_ALL_EDGES = np.array([0, *EDGES, 1])
_MIDDLES = (_ALL_EDGES[:-1] + _ALL_EDGES[1:]) / 2  # of the bins, [B]
_SMALLEST = 1e-6  # smallest probability in a logarithm


def _fit_isotonic(pixels: np.ndarray) -> Curve:
    """Fits a calibration curve to pixels by truth and probability, [2, B].

    The shares of true pixels in segments of probability are made monotone by isotonic regression
    (Zadrozny and Elkan, 2002) and interpolated linearly.
    """
    from sklearn.isotonic import isotonic_regression  # importing it takes a second

    numbers = pixels.sum(axis=0)
    weights, inside, sums = np.add.reduceat([numbers, pixels[1], numbers * _MIDDLES], _STARTS, 1)
    some = weights > 0
    if not some.any():
        return Curve((0, 1), (0, 1))
    shares = isotonic_regression(inside[some] / weights[some], sample_weight=weights[some])
    # Constant from the outermost points to 0 and to 1.
    inputs = [0.0, *(sums[some] / weights[some]).tolist(), 1.0]
    outputs = [shares[0], *shares, shares[-1]]
    return Curve(tuple(inputs), tuple(map(float, outputs)))


def _log_loss(curve: Curve | None, pixels: np.ndarray) -> float:
    """Sums the negative log-likelihood of pixels [2, B]; without a curve, uncalibrated."""
    p = np.clip(_MIDDLES if curve is None else curve(_MIDDLES), _SMALLEST, 1 - _SMALLEST)
    return float(-(pixels[0] * np.log(1 - p)).sum() - (pixels[1] * np.log(p)).sum())


def _unbiased_threshold(pixels: np.ndarray) -> float:
    """Finds the threshold at which the predicted area of pixels [2, B] equals the true area."""
    return float(np.interp(-pixels[1].sum(), -above(pixels.sum(axis=0)), _ALL_EDGES))


def _area_above(numbers: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels above a threshold, interpolated between the EDGES: [N, B] to float64 [N]."""
    counts = above(numbers)
    upper = int(np.clip(np.searchsorted(_ALL_EDGES, threshold), 1, len(EDGES) + 1))
    low, high = _ALL_EDGES[upper - 1 : upper + 1]
    share = (threshold - low) / (high - low)
    return (1 - share) * counts[..., upper - 1] + share * counts[..., upper]


@dataclasses.dataclass(frozen=True)
class Bias:
    """Bias of predicted areas: predicted over true area of all images, minus 1.

    Attributes:
        value: the bias; 0.02 means areas that are 2 % too large; nan if there is no true area.
        low: lower end of its 95 % bootstrap interval over images.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "no true area"
        return f"{self.value:+.1%} ({self.low:+.1%} to {self.high:+.1%})"


def area_biases(predicted: np.ndarray, true: np.ndarray) -> list[Bias]:
    """Measures the biases of predicted areas of N images, such as those of K classes.

    All columns share their bootstrap resamples, since drawing them takes most of the time.

    Args:
        predicted: areas [N, K].
        true: areas [N, K], in the same unit.

    Returns:
        K Biases.
    """
    resampled = np.hsplit(resampled_sums(np.hstack([predicted, true])), 2)
    biases = []
    columns = zip(predicted.sum(axis=0), true.sum(axis=0), *(sums.T for sums in resampled))
    for area, truth, areas, truths in columns:
        if not truth:
            biases.append(Bias(float("nan"), float("nan"), float("nan")))
            continue
        some = truths > 0  # the class may be missing in a resample
        low, high = np.percentile(areas[some] / truths[some] - 1, [2.5, 97.5])
        biases.append(Bias(float(area / truth - 1), float(low), float(high)))
    return biases


@dataclasses.dataclass(frozen=True)
class AreaResult:
    """Calibration and areas of N held-out images of C classes.

    Attributes:
        calibration: the Calibration, fitted on all images.
        log_losses: "uncalibrated" and "isotonic" -> mean held-out log loss of a pixel, C numbers.
        thresholds: C area-unbiased thresholds, fitted on all images.
        true: true areas in pixels, int64 [N, C].
        unbiased_masks: areas above cross-fitted unbiased thresholds, float64 [N, C].
        expected: sums of cross-fitted calibrated probabilities, float64 [N, C].
    """

    calibration: Calibration
    log_losses: dict[str, tuple[float, ...]]
    thresholds: tuple[float, ...]
    true: np.ndarray
    unbiased_masks: np.ndarray
    expected: np.ndarray

    __repr__ = short_repr


def calibrate(counts: Counts, seed: int = 0) -> AreaResult:
    """Fits calibration and unbiased thresholds of every class, and cross-fits the areas.

    Args:
        counts: Counts of N held-out images.
        seed: see `search`.

    Raises:
        ValueError: there is only one image.
    """
    splits = counts.cross_fitting_groups(seed)
    unbiased_masks, expected = (np.zeros(counts.presence.shape) for _ in range(2))
    curves, thresholds = [], []
    losses: dict[str, list[float]] = {"uncalibrated": [], "isotonic": []}
    for c in range(counts.num_classes):
        histograms, masks = counts.of_probabilities[:, c], counts.histograms[:, c]
        total, numbers = histograms.sum(axis=0), histograms.sum(axis=1)
        of_masks = masks.sum(axis=0)
        held_out = dict.fromkeys(losses, 0.0)
        for groups in splits:
            for group in range(groups.max() + 1):
                members = groups == group
                own = histograms[members].sum(axis=0)
                curve = _fit_isotonic(total - own)
                held_out["uncalibrated"] += _log_loss(None, own)
                held_out["isotonic"] += _log_loss(curve, own)
                expected[members, c] += numbers[members] @ curve(_MIDDLES) / len(splits)
                threshold = _unbiased_threshold(of_masks - masks[members].sum(axis=0))
                above = _area_above(masks[members].sum(axis=1), threshold)
                unbiased_masks[members, c] += above / len(splits)
        curves.append(_fit_isotonic(total))
        thresholds.append(_unbiased_threshold(of_masks))
        for name, loss in held_out.items():
            losses[name].append(loss / max(total.sum() * len(splits), 1))
    return AreaResult(
        Calibration(tuple(curves)),
        {name: tuple(values) for name, values in losses.items()},
        tuple(thresholds),
        counts.truths,
        unbiased_masks,
        expected,
    )
