"""Search for the best post-processing, with cross-fitted scores, and the ladder of all searches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clouds_tf.evaluation.held_out import THRESHOLDS, Counts
from clouds_tf.evaluation.score import aligned, class_means, dice_of_areas, intervals
from clouds_tf.evaluation.settings import GRIDS, Grid
from clouds_tf.messages import short_repr
from clouds_tf.prediction.postprocessing import Rule, counts_as_present


class _Place(NamedTuple):
    """One rule of a Grid, by the index of each of its settings."""

    area: int
    top: int
    threshold: int

    def rule(self, grid: Grid) -> Rule:
        """The Rule at this place."""
        return Rule(
            threshold=THRESHOLDS[self.threshold],
            top_threshold=THRESHOLDS[self.top],
            min_area=grid.min_areas[self.area],
        )


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Result of a search: rules, and their scores on N images of C classes.

    Attributes:
        rules: C Rules, tuned on all images.
        all_blank: float64 [N, C]: Dice of blank masks, which a model should beat.
        plain: float64 [N, C]: Dice of a cut at 0.5.
        tuned: float64 [N, C]: Dice on the images that the rules were tuned on: optimistic.
        cross_fitted: float64 [N, C]: Dice of rules that were tuned on the other folds or, where
            there is one fold, on the other half; the mean over ten ways to halve it.
        present: float64 [N, C]: share of these ways in which the image has a mask.
        areas: float64 [N, C]: mean area of these masks, in pixels.
    """

    rules: tuple[Rule, ...]
    all_blank: np.ndarray
    plain: np.ndarray
    tuned: np.ndarray
    cross_fitted: np.ndarray
    present: np.ndarray
    areas: np.ndarray

    __repr__ = short_repr

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """The Dice [N, C] of blank masks and of the three ways to measure, by name."""
        names = ("all_blank", "plain", "tuned", "cross_fitted")
        return {name: getattr(self, name) for name in names}


def _dice(counts: Counts, c: int) -> np.ndarray:
    """The competition's Dice of the masks of class `c` at every threshold: float64 [N, T]."""
    truths = counts.truths[:, c, np.newaxis]
    return dice_of_areas(counts.intersections[:, c], truths, counts.areas[:, c])


def _kept(counts: Counts, c: int, grid: Grid) -> np.ndarray:
    """Presence of the class under every rule: bool [N, A, T]."""
    presence = counts.presence[:, c, np.newaxis, np.newaxis]
    min_areas = np.array(grid.min_areas)[:, np.newaxis]
    return counts_as_present(counts.areas[:, c, np.newaxis], presence, min_areas, 0.0)


def score_sums(counts: Counts, c: int, grid: Grid, groups: np.ndarray) -> np.ndarray:
    """Adds up the Dice of a class over groups of images, for every rule of a grid at once.

    The Dice of an image is that of a blank mask, plus, where the class counts as present, what its
    mask gains over that. Whether it does depends on minimum area and top threshold alone, the mask
    on the threshold alone; so the sums of all pairs are a product of matrices.

    Args:
        counts: Counts of N images.
        c: the index of the class.
        grid: a Grid.
        groups: the group of each image, int [N] in 0..K-1.

    Returns:
        float64 [K, A, T, T]: minimum area, top threshold, threshold.
    """
    kept = _kept(counts, c, grid)
    blank = np.equal(counts.truths[:, c], 0)
    gain = _dice(counts, c) - blank[:, np.newaxis]
    sums = np.empty((groups.max() + 1, *kept.shape[1:], *gain.shape[1:]))
    for group in range(len(sums)):
        members = groups == group
        gains = np.tensordot(kept[members].astype(float), gain[members], axes=(0, 0))
        sums[group] = gains + blank[members].sum()
    return sums


def _best(sums: np.ndarray, grid: Grid) -> _Place:
    """Finds the best rule of a grid by its sums, float64 [A, T, T] of `score_sums`.

    Of equally good rules it takes the middle of the longest run of equally good thresholds, top
    thresholds and minimum areas, in this order; of two middles or runs the higher, which predicts
    less.
    """
    index = np.arange(sums.shape[1])
    above = index[:, np.newaxis] - index
    allowed = above >= 0 if grid.triplet else above == 0
    # Rounded, so that rules whose scores differ by the order of summation are equal.
    sums = np.where(allowed, np.round(sums, 9), -np.inf)
    tied = sums == sums.max()
    threshold = _middle(tied.any(axis=(0, 1)))
    tied = tied[..., threshold]
    top = _middle(tied.any(axis=0))
    return _Place(_middle(tied[:, top]), top, threshold)


def _middle(tied: np.ndarray) -> int:
    """The middle of the longest run of True in bool [K], the higher one where there are two."""
    steps = np.diff(np.concatenate([[0], tied.astype(int), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    longest = len(starts) - 1 - (ends - starts)[::-1].argmax()
    return int((starts[longest] + ends[longest]) // 2)


def _measure(counts: Counts, c: int, grid: Grid, place: _Place) -> tuple[np.ndarray, np.ndarray]:
    """Dice and mask area of every image under the rule at a place of the grid: float64 [N]."""
    kept = _kept(counts, c, grid)[:, place.area, place.top]
    of_masks = _dice(counts, c)[:, place.threshold]
    areas = kept * counts.areas[:, c, place.threshold]
    return np.where(kept, of_masks, counts.truths[:, c] == 0), areas


def search(counts: Counts, grid: Grid = GRIDS["area"], seed: int = 0) -> SearchResult:
    """Finds the best rule of every class, and scores it in three ways.

    Args:
        counts: Counts of N held-out images.
        grid: a Grid.
        seed: seed of the halves into which a single fold is divided for cross-fitting.

    Returns:
        A SearchResult.

    Raises:
        ValueError: there is one image only.
    """
    splits = counts.cross_fitting_groups(seed)
    shape = counts.presence.shape
    plain, tuned, cross_fitted, present, mean_areas = (np.zeros(shape) for _ in range(5))
    rules = []
    for c in range(counts.num_classes):
        plain[:, c] = _dice(counts, c)[:, THRESHOLDS.index(0.5)]
        for groups in splits:
            sums = score_sums(counts, c, grid, groups)
            total = sums.sum(axis=0)
            for group, own in enumerate(sums):
                members = groups == group
                scores, areas = _measure(counts, c, grid, _best(total - own, grid))
                cross_fitted[members, c] += scores[members]
                present[members, c] += areas[members] > 0
                mean_areas[members, c] += areas[members]
        place = _best(total, grid)
        rules.append(place.rule(grid))
        tuned[:, c], _ = _measure(counts, c, grid, place)
    blank = (counts.truths == 0).astype(float)
    means = (x / len(splits) for x in (cross_fitted, present, mean_areas))
    return SearchResult(tuple(rules), blank, plain, tuned, *means)


@dataclasses.dataclass(frozen=True)
class Rung:
    """Scores of one search on one kind of prediction.

    Attributes:
        prediction: test-time augmentation, such as "flips".
        search: a key of GRIDS; "plain" is a cut at 0.5, "blank" are blank masks.
        dice: the cross-fitted Dice of each class and their mean, C + 1 numbers.
        gain: mean minus that of the first search of the first prediction.
        interval: lower and upper end of the 95 % bootstrap interval of the gain.
        tuned: the mean Dice on the images that the rules were tuned on: optimistic.
    """

    prediction: str
    search: str
    dice: tuple[float, ...]
    gain: float
    interval: tuple[float, float]
    tuned: float

    def cells(self) -> list[str]:
        """Cells of a row, in the order of `ladder_columns`."""
        numbers = (*self.dice, self.gain, *self.interval, self.tuned)
        return [self.prediction, self.search, *(f"{number:.4f}" for number in numbers)]


def ladder_columns(class_names: Sequence[str]) -> list[str]:
    """Names of the cells of a Rung."""
    return ["prediction", "search", *class_names, "mean", "gain", "from", "to", "tuned"]


def ladder(counts: dict[str, Counts], names: Sequence[str], seed: int = 0) -> list[Rung]:
    """Searches several grids on several predictions of the same images.

    Args:
        counts: name of the prediction, such as "flips" -> Counts of the same N images.
        names: the keys of GRIDS to search.
        seed: as `search` takes it.

    Returns:
        Rungs, the best first: blank masks and, for each prediction, a cut at 0.5 and each search.
    """
    found: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for prediction, some in counts.items():
        results = [search(some, GRIDS[n], seed) for n in names]
        if not found:
            found.append(("none", "blank", results[0].all_blank, results[0].all_blank))
        found.append((prediction, "plain", results[0].plain, results[0].plain))
        for name, result in zip(names, results):
            found.append((prediction, name, result.cross_fitted, result.tuned))
    base = found[2][2]
    rungs = [
        Rung(
            prediction,
            name,
            tuple(class_means(honest)),
            float((honest - base).mean()),
            tuple(intervals(honest - base)[:, -1]),
            float(tuned.mean()),
        )
        for prediction, name, honest, tuned in found
    ]
    return sorted(rungs, key=lambda rung: -rung.gain)


def ladder_text(rungs: Sequence[Rung], class_names: Sequence[str]) -> str:
    """Formats rungs as a table and a sentence that names the best."""
    best = rungs[0]
    return (
        aligned(ladder_columns(class_names), [rung.cells() for rung in rungs])
        + f"\nBest: {best.search} with test-time augmentation {best.prediction}, "
        f"{best.dice[-1]:.4f} cross-fitted."
    )
