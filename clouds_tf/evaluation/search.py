"""Search for the best post-processing with cross-fitted scores, and comparison of predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clouds_tf.evaluation.counts import HUNDREDTHS, Counts
from clouds_tf.evaluation.score import class_means, dice_of_areas, intervals
from clouds_tf.messages import aligned, short_repr
from clouds_tf.prediction.postprocessing import (
    LOWEST_THRESHOLD,
    MIN_TOP_MEANS,
    RELATIVE_THRESHOLDS,
    Rule,
    is_present,
    mask_thresholds,
)


class _Place(NamedTuple):
    """A candidate rule, given by the index of each of its settings."""

    min_top_mean: int
    relative: int

    @property
    def rule(self) -> Rule:
        """The Rule with these indices."""
        relative = RELATIVE_THRESHOLDS[self.relative]
        return Rule(LOWEST_THRESHOLD, relative, MIN_TOP_MEANS[self.min_top_mean])


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """Result of a search: rules, and their scores on N images of C classes.

    Attributes:
        rules: C Rules, tuned on all images.
        all_blank: float64 [N, C]: Dice of blank masks, which a model should beat.
        plain: float64 [N, C]: Dice at a threshold of 0.5.
        tuned: float64 [N, C]: Dice on the images that the rules were tuned on, so optimistic.
        cross_fitted: float64 [N, C]: Dice of rules that were tuned on the other folds or, with a
            single fold, on the other half; the mean over ten splits.
        present: float64 [N, C]: share of these splits in which the image has a mask.
        areas: float64 [N, C]: mean area of these masks in pixels.
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
        """The Dice [N, C] of blank masks and the three kinds of scores, by name."""
        names = ("all_blank", "plain", "tuned", "cross_fitted")
        return {name: getattr(self, name) for name in names}

    @property
    def presence_accuracy(self) -> np.ndarray:
        """Share of the ways above in which a class has a mask where it should: float64 [N, C]."""
        return np.where(self.all_blank, 1 - self.present, self.present)


def _measure(counts: Counts, c: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dice and areas of the masks of class `c` above HUNDREDTHS[places].

    Places int [N, F] -> float64 [N, F], the competition's Dice, and int32 [N, F].
    """
    one = counts.of_class(c)
    shared, areas = (
        np.take_along_axis(numbers[:, 0], places, axis=1)
        for numbers in (one.intersections, one.areas)
    )
    return dice_of_areas(shared, one.truths, areas), areas


def places_of(limits: np.ndarray) -> np.ndarray:
    """Indices in HUNDREDTHS of limits of `mask_thresholds`: float32 to int of the same shape."""
    return np.searchsorted(np.array(HUNDREDTHS, np.float32), limits)


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Outcomes of all rules for one class in N images: A minimum means, F relative thresholds.

    Presence depends only on the minimum mean, and the mask only on the relative threshold.

    Attributes:
        kept: bool [N, A]: whether the class counts as present.
        dice: float64 [N, F]: Dice of the mask if it does.
        areas: int32 [N, F]: area of that mask in pixels.
        blank: bool [N]: whether the class is truly absent.
    """

    kept: np.ndarray
    dice: np.ndarray
    areas: np.ndarray
    blank: np.ndarray

    @classmethod
    def of(cls, counts: Counts, c: int) -> Outcomes:
        """The Outcomes of the class with index `c`."""
        means = counts.top_means[:, [c]]
        lowest, relative = np.float32(LOWEST_THRESHOLD), np.array(RELATIVE_THRESHOLDS, np.float32)
        places = places_of(mask_thresholds(means, lowest, relative).numpy())
        dice, areas = _measure(counts, c, places)
        kept = is_present(means, np.array(MIN_TOP_MEANS, np.float32)).numpy()
        return cls(kept, dice, areas, counts.truths[:, c] == 0)

    def score_sums(self, groups: np.ndarray) -> np.ndarray:
        """Sums the Dice over groups of images, for all rules at once.

        The Dice of an image is that of a blank mask plus, if the class counts as present, the gain
        of its mask over that; so the sums for all rules are a product of matrices.

        Args:
            groups: the group of each image, int [N] in 0..K-1.

        Returns:
            float64 [K, A, F].
        """
        kept, gain = self.kept.astype(float), self.dice - self.blank[:, np.newaxis]
        sums = np.empty((groups.max() + 1, kept.shape[1], gain.shape[1]))
        for group in range(len(sums)):
            members = groups == group
            sums[group] = kept[members].T @ gain[members] + self.blank[members].sum()
        return sums

    def measure(self, place: _Place) -> tuple[np.ndarray, np.ndarray]:
        """Dice and mask area of every image with one rule: float64 [N], int32 [N]."""
        kept = self.kept[:, place.min_top_mean]
        dice, areas = self.dice[:, place.relative], self.areas[:, place.relative]
        return np.where(kept, dice, self.blank), kept * areas


def _best(sums: np.ndarray) -> _Place:
    """Finds the best rule by its sums, float64 [A, F] of `Outcomes.score_sums`.

    Of equally good rules, it takes the middle of the longest run of equally good relative
    thresholds, then of minimum means; of two middles or runs, the higher one, which predicts less.
    """
    # Rounded, so that scores that differ only by the order of summation are equal.
    sums = np.round(sums, 9)
    tied = sums == sums.max()
    relative = _middle(tied.any(axis=0))
    return _Place(_middle(tied[:, relative]), relative)


def _middle(tied: np.ndarray) -> int:
    """The middle of the longest run of True in bool [K]; of two, the higher one."""
    steps = np.diff(np.concatenate([[0], tied.astype(int), [0]]))
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    longest = len(starts) - 1 - (ends - starts)[::-1].argmax()
    return int((starts[longest] + ends[longest]) // 2)


def search(counts: Counts, seed: int = 0) -> SearchResult:
    """Finds the best rule of every class, and scores it in three ways.

    Args:
        counts: Counts of N held-out images.
        seed: seed of the random halves for cross-fitting with a single fold.

    Returns:
        A SearchResult.

    Raises:
        ValueError: there is only one image.
    """
    splits = counts.cross_fitting_groups(seed)
    shape = counts.presence.shape
    plain, tuned, cross_fitted, present, mean_areas = (np.zeros(shape) for _ in range(5))
    rules, halves = [], np.full((len(plain), 1), HUNDREDTHS.index(0.5))
    for c in range(counts.num_classes):
        plain[:, [c]], _ = _measure(counts, c, halves)
        outcomes = Outcomes.of(counts, c)
        for groups in splits:
            sums = outcomes.score_sums(groups)
            total = sums.sum(axis=0)
            for group, own in enumerate(sums):
                members = groups == group
                scores, areas = outcomes.measure(_best(total - own))
                cross_fitted[members, c] += scores[members]
                present[members, c] += areas[members] > 0
                mean_areas[members, c] += areas[members]
        place = _best(total)
        rules.append(place.rule)
        tuned[:, c], _ = outcomes.measure(place)
    blank = (counts.truths == 0).astype(float)
    means = (x / len(splits) for x in (cross_fitted, present, mean_areas))
    return SearchResult(tuple(rules), blank, plain, tuned, *means)


@dataclasses.dataclass(frozen=True)
class Rung:
    """Scores of one kind of masks from one kind of prediction.

    Attributes:
        prediction: test-time augmentation, such as "flips".
        masks: "blank", "plain" (a threshold of 0.5), or "rules" (tuned).
        dice: the cross-fitted Dice of each class and their mean, C + 1 numbers.
        gain: gain of the mean over that of the tuned rules of the first prediction.
        interval: lower and upper end of the 95 % bootstrap interval of the gain.
        tuned: the mean Dice on the images that the rules were tuned on, so optimistic.
    """

    prediction: str
    masks: str
    dice: tuple[float, ...]
    gain: float
    interval: tuple[float, float]
    tuned: float

    def cells(self) -> list[str]:
        """Cells of a row, in the order of `ladder_columns`."""
        numbers = (*self.dice, self.gain, *self.interval, self.tuned)
        return [self.prediction, self.masks, *(f"{number:.4f}" for number in numbers)]


def ladder_columns(class_names: Sequence[str]) -> list[str]:
    """Names of the cells of a Rung."""
    return ["prediction", "masks", *class_names, "mean", "gain", "from", "to", "tuned"]


def ladder(counts: dict[str, Counts], seed: int = 0) -> list[Rung]:
    """Compares several predictions of the same images, each with its own tuned rules.

    Args:
        counts: name of the prediction, such as "flips" -> Counts of the same N images.
        seed: see `search`.

    Returns:
        Rungs, best first: blank masks and, for each prediction, a threshold of 0.5 and tuned rules.
    """
    found: list[tuple[str, str, np.ndarray, np.ndarray]] = []
    for prediction, some in counts.items():
        result = search(some, seed)
        if not found:
            found.append(("none", "blank", result.all_blank, result.all_blank))
        found.append((prediction, "plain", result.plain, result.plain))
        found.append((prediction, "rules", result.cross_fitted, result.tuned))
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
        aligned([ladder_columns(class_names), *(rung.cells() for rung in rungs)])
        + f"\nBest: {best.masks} with test-time augmentation {best.prediction}, "
        f"{best.dice[-1]:.4f} cross-fitted."
    )
