"""Pictures of how good the held-out predictions are."""

import os

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.evaluation.held_out import THRESHOLDS, predict_fold
from clouds_tf.evaluation.search import AREA_GRID, MIN_AREAS, score_sums
from clouds_tf.inference.postprocessing import plain_rules, postprocess
from clouds_tf.schema import CLOUDS, NUM_CLASSES, SUBMISSION_SIZE


def score_maps(counts):
    """The mean Dice of every least area and threshold: float64 [4, A, T]."""
    unrefined = counts._replace(
        mask_areas=counts.mask_areas[..., :1], intersections=counts.intersections[..., :1]
    )
    groups = np.zeros(len(counts.folds), int)
    maps = []
    for c in range(NUM_CLASSES):
        sums = score_sums(unrefined, c, AREA_GRID, groups)[0, 0, ..., 0]
        maps.append(np.diagonal(sums, axis1=1, axis2=2) / len(groups))
    return np.stack(maps)


def reliability(counts):
    """How often pixels are of a class, by the probability that they were given.

    Returns:
        The edges of the bins, [T + 2]; the shares, float64 [4, T + 1], nan where a bin is empty;
        and the numbers of pixels in them, int64 [4, T + 1].
    """
    whole = np.full((len(counts.folds), NUM_CLASSES, 1), np.prod(SUBMISSION_SIZE))
    truths = counts.truths[..., np.newaxis]
    # More probable than nothing is every pixel, and than 1 none.
    above = np.concatenate([whole, counts.areas, 0 * whole], axis=2).sum(axis=0)
    shared = np.concatenate([truths, counts.intersections[..., 0], 0 * truths], axis=2).sum(axis=0)
    numbers, true = -np.diff(above), -np.diff(shared)
    shares = np.where(numbers > 0, true / np.maximum(numbers, 1), np.nan)
    return np.array([0, *THRESHOLDS, 1]), shares, numbers


def confusions(counts, present):
    """Counts images by whether a class is there, and whether it is predicted.

    Args:
        counts: Counts of N images.
        present: float [N, 4], as `search` gives it.

    Returns:
        float64 [4, 2, 2]: class, there, predicted.
    """
    there = np.stack([counts.truths == 0, counts.truths > 0], axis=1).astype(float)
    predicted = np.stack([1 - present, present], axis=1)
    return np.einsum("ntc,npc->ctp", there, predicted)


def extremes(values, count=2):
    """The places of the highest, the middle and the lowest of values [N]: a dict of lists."""
    order = np.argsort(-values, kind="stable").tolist()
    count = min(count, len(order))
    starts = {"best": 0, "median": (len(order) - count) // 2, "worst": len(order) - count}
    return {name: order[start : start + count] for name, start in starts.items()}


def examples(records_dir, members_by_fold, counts, found, test_time_augmentation="none"):
    """Draws images of high, middle and low score, with truth and prediction.

    Args:
        records_dir: a folder of shards.
        members_by_fold: as `load_members` gives it.
        counts: Counts of N images.
        found: as `search` gives it.
        test_time_augmentation: "none" or "flips".

    Returns:
        A matplotlib Figure.
    """
    dice = found["scores"]["cross_fitted"].mean(axis=1)
    named = [(name, i) for name, places in extremes(dice).items() for i in places]
    chosen = [i for _, i in named]
    drawn = {}
    for fold, members in members_by_fold.items():
        first = np.flatnonzero(counts.folds == fold)[0]
        places = [i - first for i in sorted(set(chosen)) if counts.folds[i] == fold]
        if not places:
            continue
        predicted = predict_fold(
            records_dir, fold, members, len(places), test_time_augmentation, places
        )
        images, truth, probabilities, presence = next(iter(predicted))
        some = probabilities, presence, images[0]
        masks = truth, *(
            postprocess(*some, rules, CLOUDS.gap_brightness)
            for rules in (plain_rules(NUM_CLASSES), found["rules"])
        )
        larger = tf.cast(tf.image.resize(images[0], SUBMISSION_SIZE), tf.uint8).numpy()
        for k, place in enumerate(places):
            drawn[first + place] = larger[k], [mask[k].numpy() for mask in masks]
    return figures.comparisons(
        [drawn[i][0] for i in chosen],
        [drawn[i][1] for i in chosen],
        [f"{name}: {dice[i]:.3f}" for name, i in named],
        ["truth", "cut at 1/2", "post-processed"],
    )


def write(folder, records_dir, members_by_fold, counts, found, test_time_augmentation="none"):
    """Writes all pictures as PNG into a folder; the arguments are those of `examples`."""
    number = f"{len(counts.folds):,} held-out images"
    drawn = {
        "scores": figures.score_maps(
            score_maps(counts), THRESHOLDS, MIN_AREAS, f"Dice on all {number}: optimistic"
        ),
        "reliability": figures.reliability(
            *reliability(counts), f"Reliability of the pixels of {number}"
        ),
        "presence": figures.confusions(
            confusions(counts, found["present"]), f"Presence in {number}, cross-fitted"
        ),
        "examples": examples(records_dir, members_by_fold, counts, found, test_time_augmentation),
    }
    for name, figure in drawn.items():
        figures.save(figure, os.path.join(folder, f"{name}.png"))
