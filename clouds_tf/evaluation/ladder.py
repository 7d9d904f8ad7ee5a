"""The ladder: cross-fitted scores of each search and each kind of prediction."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clouds_tf.evaluation.held_out import Counts
from clouds_tf.evaluation.score import aligned, class_means, intervals
from clouds_tf.evaluation.search import GRIDS, search


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
        """Cells of a row, in the order of `columns`."""
        numbers = (*self.dice, self.gain, *self.interval, self.tuned)
        return [self.prediction, self.search, *(f"{number:.4f}" for number in numbers)]


def columns(class_names: Sequence[str]) -> list[str]:
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


def as_text(rungs: Sequence[Rung], class_names: Sequence[str]) -> str:
    """Formats rungs as a table and a sentence that names the best."""
    best = rungs[0]
    return (
        aligned(columns(class_names), [rung.cells() for rung in rungs])
        + f"\nBest: {best.search} with test-time augmentation {best.prediction}, "
        f"{best.dice[-1]:.4f} cross-fitted."
    )
