"""Pictures of the quality of held-out predictions."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.evaluation.areas import AreaResult, area_biases
from clouds_tf.evaluation.counts import EDGES, HUNDREDTHS, TWENTIETHS, Counts
from clouds_tf.evaluation.held_out import HeldOut
from clouds_tf.evaluation.search import (
    MIN_TOP_MEANS,
    RELATIVE_THRESHOLDS,
    Outcomes,
    SearchResult,
)
from clouds_tf.figures import evaluation as charts
from clouds_tf.prediction.postprocessing import plain_rules, postprocess

NAMES = ("scores", "reliability", "presence", "areas", "examples")


def _score_maps(counts: Counts) -> np.ndarray:
    """Mean Dice for every min_top_mean and relative threshold: float64 [C, A, F]."""
    one_group = np.zeros(len(counts.folds), int)
    outcomes = (Outcomes.of(counts, c) for c in range(counts.num_classes))
    return np.stack([some.score_sums(one_group)[0] / len(one_group) for some in outcomes])


def _reliability(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of true pixels by probability: edges [T + 2], shares and numbers [C, T + 1]."""
    by_truth = counts.of_probabilities.sum(axis=0)
    edges = HUNDREDTHS[TWENTIETHS]
    starts = [0, *(EDGES.index(edge) + 1 for edge in edges)]
    outside, inside = np.moveaxis(np.add.reduceat(by_truth, starts, axis=2), 1, 0)
    numbers = outside + inside
    shares = np.where(numbers > 0, inside / np.maximum(numbers, 1), np.nan)
    return np.array([0, *edges, 1]), shares, numbers


def _confusions(counts: Counts, present: np.ndarray) -> np.ndarray:
    """Counts images by class, true and predicted presence (float [N, C]): float64 [C, 2, 2]."""
    there = np.stack([counts.truths == 0, counts.truths > 0], axis=1).astype(float)
    predicted = np.stack([1 - present, present], axis=1)
    return np.einsum("ntc,npc->ctp", there, predicted)


def _extremes(values: np.ndarray, count: int = 2) -> dict[str, list[int]]:
    """Indices of the highest, middle and lowest of values [N], by name."""
    order = np.argsort(-values, kind="stable").tolist()
    count = min(count, len(order))
    starts = {"best": 0, "median": (len(order) - count) // 2, "worst": len(order) - count}
    return {name: order[start : start + count] for name, start in starts.items()}


def _examples(
    held_out: HeldOut,
    counts: Counts,
    found: SearchResult,
    test_time_augmentation: str = "none",
) -> Any:
    """Draws images of high, middle and low score, with truth and prediction, as a Figure."""
    dataset = held_out.records.dataset
    dice = found.cross_fitted.mean(axis=1)
    named = [(name, i) for name, places in _extremes(dice).items() for i in places]
    chosen = [i for _, i in named]
    drawn = {}
    for fold in held_out.members:
        first = np.flatnonzero(counts.folds == fold)[0]
        places = [i - first for i in sorted(set(chosen)) if counts.folds[i] == fold]
        if not places:
            continue
        predicted = held_out.predict(fold, test_time_augmentation, places)
        images, truth, probabilities, _ = next(predicted)
        by_rules = [
            tf.cast(postprocess(probabilities, rules, dataset.exclusive), tf.uint8)
            for rules in (plain_rules(dataset.num_classes), found.rules)
        ]
        larger = tf.cast(tf.image.resize(images[0], dataset.submission_size), tf.uint8).numpy()
        for k, place in enumerate(places):
            drawn[first + place] = larger[k], [mask[k].numpy() for mask in (truth, *by_rules)]
    return charts.comparisons(
        [drawn[i][0] for i in chosen],
        [drawn[i][1] for i in chosen],
        [f"{name}: {dice[i]:.3f}" for name, i in named],
        ["truth", "threshold 0.5", "post-processed"],
        dataset.class_names,
    )


def write(
    folder: str,
    held_out: HeldOut,
    counts: Counts,
    found: SearchResult,
    areas: AreaResult,
    test_time_augmentation: str = "none",
) -> None:
    """Writes all pictures into a folder, as NAME.png for each of NAMES; older ones are replaced."""
    dataset = held_out.records.dataset
    names, number = dataset.class_names, f"{len(counts.folds):,} held-out images"
    pixels = dataset.submission_size[0] * dataset.submission_size[1]
    predicted = {"tuned masks": found.areas, "expected area": areas.expected}
    series = {}
    for label, some in predicted.items():
        biases = [bias.value for bias in area_biases(some, areas.true)]
        series[label] = some / pixels, biases
    drawn = {
        "scores": charts.score_maps(
            _score_maps(counts),
            found.all_blank.mean(axis=0),
            RELATIVE_THRESHOLDS,
            MIN_TOP_MEANS,
            names,
            f"Dice on all {number}: optimistic",
        ),
        "reliability": charts.reliability(
            *_reliability(counts), names, f"Reliability of the pixels of {number}"
        ),
        "presence": charts.confusions(
            _confusions(counts, found.present), names, f"Presence in {number}, cross-fitted"
        ),
        "areas": charts.predicted_areas(
            areas.true / pixels, series, names, f"Areas in {number}, cross-fitted"
        ),
        "examples": _examples(held_out, counts, found, test_time_augmentation),
    }
    for name in NAMES:
        figures.save(drawn[name], os.path.join(folder, f"{name}.png"))
