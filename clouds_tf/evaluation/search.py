"""The post-processing that scores best, and how much of its score is luck."""

import collections
import dataclasses

import numpy as np

from clouds_tf.evaluation.held_out import THRESHOLDS
from clouds_tf.inference.postprocessing import Rule
from clouds_tf.schema import NUM_CLASSES

MIN_AREAS = tuple(range(0, 30001, 1000))  # pixels at SUBMISSION_SIZE
MIN_PRESENCES = tuple(round(0.05 * i, 2) for i in range(20))
_NUM_SPLITS = 10  # into halves, where there is one fold only

# What to try: least areas; least presences; whether top thresholds may be above the others; and V
# Rules, the refinements that were counted.
Grid = collections.namedtuple("Grid", "min_areas min_presences triplet refinements")
AREA_GRID = Grid(MIN_AREAS, (0.0,), False, (Rule(),))


def _refining(*fields):
    return AREA_GRID._replace(refinements=(Rule(), *(Rule(**some) for some in fields)))


GRIDS = {
    "area": AREA_GRID,
    "triplet": AREA_GRID._replace(triplet=True),
    "gate": AREA_GRID._replace(min_presences=MIN_PRESENCES),
    "triplet_gate": AREA_GRID._replace(triplet=True, min_presences=MIN_PRESENCES),
    "components": _refining(*({"min_component_area": area} for area in (1000, 2000, 5000))),
    "holes": _refining({"fill": "holes"}),
    "gap": _refining({"remove_gap": True}),
    "boxes": _refining({"fill": "boxes"}, {"fill": "boxes", "remove_gap": True}),
}
GRIDS["all"] = Grid(
    MIN_AREAS,
    MIN_PRESENCES,
    True,
    tuple(dict.fromkeys(rule for grid in GRIDS.values() for rule in grid.refinements)),
)


def dice(counts, c):
    """The competition's Dice of the masks of a class, at every threshold.

    Args:
        counts: Counts of N images.
        c: the index of the class.

    Returns:
        float64 [N, T, V] in [0, 1].
    """
    total = counts.mask_areas[:, c] + counts.truths[:, c, np.newaxis, np.newaxis]
    return np.where(total == 0, 1.0, 2 * counts.intersections[:, c] / np.maximum(total, 1))


def _kept(counts, c, grid):
    """Whether the class counts as present, under every rule: bool [N, G, A, T]."""
    large = counts.areas[:, c, np.newaxis, :] >= np.array(grid.min_areas)[:, np.newaxis]
    # In the precision of post-processing, so that equal numbers are equal.
    gates = np.array(grid.min_presences, np.float32)
    likely = counts.presence[:, c, np.newaxis] >= gates
    return large[:, np.newaxis] & likely[:, :, np.newaxis, np.newaxis]


def score_sums(counts, c, grid, groups):
    """Adds up the Dice of a class over groups of images, for every rule of a grid at once.

    The Dice of an image is that of a blank mask, plus, where the class counts as present, what its
    mask gains over that. Whether it does depends on presence, least area and top threshold alone,
    the mask on threshold and refinement alone; so the sums of all pairs are a product of matrices.

    Args:
        counts: Counts of N images.
        c: the index of the class.
        grid: a Grid.
        groups: the group of each image, int [N] in 0..K-1.

    Returns:
        float64 [K, G, A, T, T, V]: least presence, least area, top threshold, threshold,
        refinement.
    """
    kept = _kept(counts, c, grid)
    blank = np.equal(counts.truths[:, c], 0)
    gain = dice(counts, c) - blank[:, np.newaxis, np.newaxis]
    sums = np.empty((groups.max() + 1, *kept.shape[1:], *gain.shape[1:]))
    for group in range(len(sums)):
        members = groups == group
        gains = np.tensordot(kept[members].astype(float), gain[members], axes=(0, 0))
        sums[group] = gains + blank[members].sum()
    return sums


def best(sums, grid):
    """The place of the best of sums [G, A, T, T, V]; of equals the first, so the smallest area."""
    index = np.arange(sums.shape[2])
    above = index[:, np.newaxis, np.newaxis] - index[:, np.newaxis]
    allowed = above >= 0 if grid.triplet else above == 0
    # Rounded, so that rules whose scores differ by the order of summation are equal.
    sums = np.where(allowed, np.round(sums, 9), -np.inf)
    return np.unravel_index(sums.argmax(), sums.shape)


def _measure(counts, c, grid, place):
    """Dice of every image under the rule at a place of the grid, and whether its mask is there."""
    gate, area, top, threshold, refinement = place
    kept = _kept(counts, c, grid)[:, gate, area, top]
    scores = np.where(kept, dice(counts, c)[:, threshold, refinement], counts.truths[:, c] == 0)
    return scores, kept & (counts.mask_areas[:, c, threshold, refinement] > 0)


def _rule(grid, place):
    gate, area, top, threshold, refinement = place
    return dataclasses.replace(
        grid.refinements[refinement],
        threshold=THRESHOLDS[threshold],
        top_threshold=THRESHOLDS[top],
        min_area=grid.min_areas[area],
        min_presence=grid.min_presences[gate],
    )


def _splits(folds, seed):
    """Ways to divide images into groups, of which one is measured and the rest is tuned on."""
    if len(folds) < 2:
        raise ValueError("one held-out image is not enough to tune on some and measure on others")
    names, groups = np.unique(folds, return_inverse=True)
    if len(names) > 1:
        return [groups]
    rng = np.random.default_rng(seed)
    return [rng.permutation(len(folds)) % 2 for _ in range(_NUM_SPLITS)]


def search(counts, grid=AREA_GRID, seed=0):
    """Finds the best rule of every class, and scores it in three ways.

    Args:
        counts: Counts of N held-out images.
        grid: a Grid, its refinements those of the counts.
        seed: of the halves into which a single fold is split for cross-fitting.

    Returns:
        A dict: rules, four Rules, tuned on all images; scores, a dict of float64 [N, 4]: "plain",
        cut at 1/2; "tuned", measured on the images that it was tuned on and so optimistic;
        "cross_fitted", tuned on the other folds and measured on the rest, or, where there is one
        fold, on the other half, the mean over ten ways to halve it; and present, float64 [N, 4],
        in which share of those ways the image has a mask.

    Raises:
        ValueError: there is one image only, so that there is no rest.
    """
    splits = _splits(counts.folds, seed)
    rules = []
    plain, tuned, cross_fitted, present = np.zeros((4, *counts.truths.shape))
    for c in range(NUM_CLASSES):
        plain[:, c] = dice(counts, c)[:, THRESHOLDS.index(0.5), 0]
        for groups in splits:
            sums = score_sums(counts, c, grid, groups)
            total = sums.sum(axis=0)
            for group, own in enumerate(sums):
                place = best(total - own, grid)
                members = groups == group
                for mean, values in zip((cross_fitted, present), _measure(counts, c, grid, place)):
                    mean[members, c] += values[members] / len(splits)
        place = best(total, grid)
        rules.append(_rule(grid, place))
        tuned[:, c], _ = _measure(counts, c, grid, place)
    scores = {"plain": plain, "tuned": tuned, "cross_fitted": cross_fitted}
    return {"rules": tuple(rules), "scores": scores, "present": present}
