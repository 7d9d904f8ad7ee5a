"""The post-processing that scores best, and how much of its score is luck."""

import numpy as np

from clouds_tf.evaluation.held_out import THRESHOLDS

MIN_AREAS = tuple(range(0, 30001, 1000))  # pixels at SUBMISSION_SIZE


def dice(counts, min_area):
    """The competition's Dice when masks below a least area are emptied, for every threshold.

    Args:
        counts: Counts of N images.
        min_area: pixels at SUBMISSION_SIZE.

    Returns:
        float64 [N, C, T] in [0, 1].
    """
    kept = counts.areas >= max(min_area, 1)
    total = np.where(kept, counts.areas, 0) + counts.truths[..., np.newaxis]
    intersection = np.where(kept, counts.intersections, 0)
    return np.where(total == 0, 1.0, 2 * intersection / np.maximum(total, 1))


def tune(counts, min_areas=MIN_AREAS):
    """Finds threshold and least area of every class, over all pairs of the grid.

    Args:
        counts: Counts of N images.
        min_areas: the least areas to try.

    Returns:
        Indices into THRESHOLDS, int [C], and into min_areas, int [C]; of equals, the smallest area.
    """
    means = np.stack([dice(counts, min_area).mean(axis=0) for min_area in min_areas])
    best = means.transpose(1, 0, 2).reshape(means.shape[1], -1).argmax(axis=1)
    area_index, threshold_index = np.unravel_index(best, (len(min_areas), means.shape[2]))
    return threshold_index, area_index


def _scores(counts, threshold_index, area_index, min_areas):
    """Dice of every image and class, float64 [N, C], with the settings of `tune`."""
    classes = range(len(threshold_index))
    columns = [dice(counts, min_areas[area_index[c]])[:, c, threshold_index[c]] for c in classes]
    return np.stack(columns, axis=1)


def _subset(counts, members):
    return type(counts)(*(x[members] for x in counts))


def search(counts, seed=0, min_areas=MIN_AREAS):
    """Tunes thresholds and least areas, and scores them in three ways.

    Args:
        counts: Counts of N held-out images.
        seed: of the halves into which a single fold is split for cross-fitting.
        min_areas: the least areas to try.

    Returns:
        A dict: thresholds and min_areas, four numbers each, tuned on all images; and scores, a dict
        of float64 [N, 4]: "plain", cut at 1/2; "tuned", measured on the images that it was tuned on
        and so optimistic; "cross_fitted", tuned on the other folds, or on the other half where
        there is one fold, and measured on the rest.

    Raises:
        ValueError: there is one image only, so that there is no rest.
    """
    if len(counts.folds) < 2:
        raise ValueError("one held-out image is not enough to tune on some and measure on others")
    threshold_index, area_index = tune(counts, min_areas)
    groups = counts.folds
    if len(np.unique(groups)) == 1:
        groups = np.random.default_rng(seed).permutation(len(groups)) % 2
    cross_fitted = np.empty(counts.truths.shape)
    for group in np.unique(groups):
        settings = tune(_subset(counts, groups != group), min_areas)
        cross_fitted[groups == group] = _scores(
            _subset(counts, groups == group), *settings, min_areas
        )
    return {
        "thresholds": [THRESHOLDS[i] for i in threshold_index],
        "min_areas": [min_areas[i] for i in area_index],
        "scores": {
            "plain": dice(counts, 0)[:, :, THRESHOLDS.index(0.5)],
            "tuned": _scores(counts, threshold_index, area_index, min_areas),
            "cross_fitted": cross_fitted,
        },
    }
