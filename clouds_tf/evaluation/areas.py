"""Calibration of probabilities on held-out images, and the bias of the areas that follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from clouds_tf.evaluation.held_out import EDGES, Counts
from clouds_tf.evaluation.score import resamples
from clouds_tf.prediction.calibration import Calibration, Curve

# A few dozen segments of the probabilities, on whose calibration curves have their knots.
_SEGMENTS = (
    *(0.0005, 0.002, 0.005, 0.01, 0.02, 0.03),
    *(round(0.05 * i, 2) for i in range(1, 20)),
    *(0.97, 0.98, 0.99, 0.995, 0.998, 0.9995),
)
_STARTS = [0, *(int(np.isclose(EDGES, edge).argmax()) + 1 for edge in _SEGMENTS)]  # first bins
_MIDDLES = (np.array([0, *EDGES]) + np.array([*EDGES, 1])) / 2  # of the bins, [B]
_SMALLEST = 1e-6  # a probability that counts as 0 in a logarithm


def fit_isotonic(pixels: np.ndarray) -> Curve:
    """Fits the monotone curve that is nearest to the observed shares.

    Shares of the truth in segments of probability, made monotone by pooling adjacent violators
    (Ayer et al., 1955; for classifiers Zadrozny and Elkan, 2002), joined by straight lines.

    Args:
        pixels: [2, B] numbers of pixels outside and inside the truth, by probability, as in Counts.
    """
    outside, inside = np.add.reduceat(np.asarray(pixels, float), _STARTS, axis=1)
    weights = outside + inside
    some = weights > 0
    if not some.any():
        return Curve((0, 1), (0, 1), "isotonic")
    means = np.add.reduceat(pixels.sum(axis=0) * _MIDDLES, _STARTS)[some] / weights[some]
    blocks: list[np.ndarray] = []  # [pixels, pixels inside, segments]
    for block in np.stack([weights, inside, np.ones_like(weights)], axis=1)[some]:
        while blocks and blocks[-1][1] * block[0] >= block[1] * blocks[-1][0]:
            block = block + blocks.pop()
        blocks.append(block)
    numbers, true, segments = np.stack(blocks, axis=1)
    shares = np.repeat(true / numbers, segments.astype(int))
    inputs, outputs = [0, *means, 1], [shares[0], *shares, shares[-1]]
    return Curve(tuple(map(float, inputs)), tuple(map(float, outputs)), "isotonic")


def fit_platt(pixels: np.ndarray, num_steps: int = 50) -> Curve:
    """Fits a logistic curve of the logit by maximum likelihood.

    Platt, "Probabilistic outputs for support vector machines", 1999, with his targets a little
    inside 0 and 1, and Newton's method with halved steps.

    Args:
        pixels: [2, B] numbers of pixels outside and inside the truth, by probability, as in Counts.
        num_steps: most steps of the method.
    """
    outside, inside = np.asarray(pixels, float)
    number = outside + inside
    total = max(number.sum(), 1)
    high, low = (inside.sum() + 1) / (inside.sum() + 2), 1 / (outside.sum() + 2)
    target = (inside * high + outside * low) / np.maximum(number, 1)
    weight = number / total
    features = np.stack([_logit(_MIDDLES), np.ones_like(_MIDDLES)], axis=1)

    def loss(parameters: np.ndarray) -> float:
        z = features @ parameters
        return float((weight * (np.logaddexp(0, z) - target * z)).sum())

    parameters = np.array([1.0, 0.0])
    for _ in range(num_steps):
        p = _sigmoid(features @ parameters)
        gradient = features.T @ (weight * (p - target))
        hessian = (features.T * (weight * p * (1 - p))) @ features + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while loss(parameters - step) > loss(parameters) and np.abs(step).max() > 1e-9:
            step = step / 2
        parameters = parameters - step
        if np.abs(step).max() <= 1e-9:
            break
    slope, shift = parameters
    if slope < 0:  # falling curves are of no use: the best that never falls is flat
        slope, shift = 0.0, float(_logit((weight * target).sum()))
    edges = np.array([0, *_SEGMENTS, 1])
    middles = (edges[1:] + edges[:-1]) / 2
    fitted = _sigmoid(slope * _logit(middles) + shift)
    # Flat at both ends: the logistic curve was not fitted to how pixels lie within the last bins.
    inputs, outputs = [0, *middles, 1], [fitted[0], *fitted, fitted[-1]]
    return Curve(tuple(map(float, inputs)), tuple(map(float, outputs)), "platt")


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, _SMALLEST, 1 - _SMALLEST)
    return np.log(p / (1 - p))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(z, -50, 50)))


METHODS: dict[str, Callable[[np.ndarray], Curve]] = {
    "isotonic": fit_isotonic,
    "platt": fit_platt,
}


def log_loss(curve: Curve | None, pixels: np.ndarray) -> float:
    """Sums the negative log-likelihood of pixels under calibrated probabilities.

    Args:
        curve: a Curve; None leaves the probabilities as they are.
        pixels: [2, B] numbers of pixels outside and inside the truth, by probability.
    """
    p = np.clip(_MIDDLES if curve is None else curve(_MIDDLES), _SMALLEST, 1 - _SMALLEST)
    return float(-(pixels[0] * np.log(1 - p)).sum() - (pixels[1] * np.log(p)).sum())


def unbiased_threshold(pixels: np.ndarray) -> float:
    """The threshold above which as many pixels are as belong to the truth.

    Args:
        pixels: [2, B] numbers of pixels outside and inside the truth, by probability.
    """
    above = _more_probable(pixels.sum(axis=0))
    return float(np.interp(-pixels[1].sum(), -above, [0, *EDGES, 1]))


def _more_probable(numbers: np.ndarray) -> np.ndarray:
    """Pixels above 0, EDGES and 1: [..., B] to [..., B + 1]."""
    above = np.flip(np.flip(numbers, axis=-1).cumsum(axis=-1), axis=-1)
    return np.concatenate([above, np.zeros_like(above[..., :1])], axis=-1)


def area_above(numbers: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels above any threshold, by interpolation between the EDGES: [N, B] to float64 [N]."""
    edges, above = np.array([0, *EDGES, 1]), _more_probable(numbers)
    upper = int(np.clip(np.searchsorted(edges, threshold), 1, len(edges) - 1))
    share = (threshold - edges[upper - 1]) / (edges[upper] - edges[upper - 1])
    return (1 - share) * above[..., upper - 1] + share * above[..., upper]


@dataclasses.dataclass(frozen=True)
class Bias:
    """Bias of predicted areas: predicted over true area of all images, minus 1.

    Attributes:
        value: the bias; 0.02 says that areas are 2 % too large; nan where no area is true.
        low: lower end of its 95 % bootstrap interval over images.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.1%} ({self.low:+.1%} to {self.high:+.1%})"


def area_bias(
    predicted: np.ndarray, true: np.ndarray, num_resamples: int = 2000, seed: int = 0
) -> Bias:
    """Measures the bias of predicted areas of N images.

    Args:
        predicted: areas [N].
        true: areas [N], in the same unit.
        num_resamples: number of bootstrap resamples.
        seed: seed of the resamples.
    """
    if not np.sum(true):
        return Bias(float("nan"), float("nan"), float("nan"))
    drawn = resamples(len(true), num_resamples, seed)
    totals = drawn @ np.stack([predicted, true], axis=1)
    totals = totals[totals[:, 1] > 0]  # in a resample the class may be missing
    low, high = np.percentile(totals[:, 0] / totals[:, 1] - 1, [2.5, 97.5])
    return Bias(float(np.sum(predicted) / np.sum(true) - 1), float(low), float(high))


@dataclasses.dataclass(frozen=True)
class AreaResult:
    """Calibration and areas of N held-out images of C classes.

    Attributes:
        calibration: the Calibration, fitted on all images.
        log_losses: name -> mean held-out log loss of a pixel, C numbers: "uncalibrated" and each of
            METHODS.
        thresholds: C thresholds that are unbiased in area, fitted on all images.
        true: areas of the truth in pixels, int64 [N, C].
        unbiased_masks: areas above cross-fitted unbiased thresholds, float64 [N, C].
        expected: sums of cross-fitted calibrated probabilities, float64 [N, C].
    """

    calibration: Calibration
    log_losses: dict[str, tuple[float, ...]]
    thresholds: tuple[float, ...]
    true: np.ndarray
    unbiased_masks: np.ndarray
    expected: np.ndarray


def calibrate(counts: Counts, seed: int = 0) -> AreaResult:
    """Fits calibration and unbiased thresholds of every class, and cross-fits the areas.

    Args:
        counts: Counts of N held-out images.
        seed: as `search` takes it.

    Raises:
        ValueError: there is one image only.
    """
    splits = counts.cross_fitting_groups(seed)
    unbiased_masks, expected = (np.zeros(counts.presence.shape) for _ in range(2))
    curves, thresholds = [], []
    losses: dict[str, list[float]] = {name: [] for name in ("uncalibrated", *METHODS)}
    for c in range(counts.num_classes):
        histograms = counts.histograms[:, c]
        total, numbers = histograms.sum(axis=0), histograms.sum(axis=1)
        held_out = dict.fromkeys(losses, 0.0)
        areas = {name: np.zeros(len(numbers)) for name in METHODS}
        for groups in splits:
            for group in range(groups.max() + 1):
                members = groups == group
                own = histograms[members].sum(axis=0)
                held_out["uncalibrated"] += log_loss(None, own)
                for name, fit in METHODS.items():
                    curve = fit(total - own)
                    held_out[name] += log_loss(curve, own)
                    areas[name][members] += numbers[members] @ curve(_MIDDLES) / len(splits)
                above = area_above(numbers[members], unbiased_threshold(total - own))
                unbiased_masks[members, c] += above / len(splits)
        best = min(METHODS, key=lambda name: held_out[name])
        expected[:, c] = areas[best]
        curves.append(METHODS[best](total))
        thresholds.append(unbiased_threshold(total))
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
