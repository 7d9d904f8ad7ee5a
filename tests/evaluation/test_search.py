import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.evaluation.held_out import THRESHOLDS, Counts, count_pixels, count_refined
from clouds_tf.evaluation.search import AREA_GRID, MIN_AREAS, Grid, best, dice, score_sums, search
from clouds_tf.inference.postprocessing import Rule, postprocess
from clouds_tf.models.metrics import competition_dice

AREAS = (0, 5, 20, 60)
SMALL = AREA_GRID._replace(min_areas=AREAS)
WHOLE = Grid(AREAS, (0.0, 0.4, 0.8), True, (Rule(), Rule(fill="boxes")))


def _random_images(num_images, seed=0):
    """Probabilities that know something of the masks, presence that does, and absent classes."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((num_images, 12, 13, 4)) < 0.4) & (rng.random((num_images, 1, 1, 4)) < 0.6)
    noise = rng.random((num_images, 12, 13, 4))
    presence = 0.3 * masks.any(axis=(1, 2)) + 0.7 * rng.random((num_images, 4))
    return np.float32(0.45 * masks + 0.55 * noise), masks.astype(np.uint8), np.float32(presence)


_refined = tf.function(count_refined)


def _black(probabilities):
    return np.zeros((len(probabilities), 2, 2, 3), np.uint8)


def _counts(probabilities, masks, presence, folds=None, refinements=(Rule(),)):
    areas, intersections, truths = (np.asarray(x) for x in count_pixels(probabilities, masks))
    variants = [(areas, intersections)] + [
        tuple(np.asarray(x) for x in _refined(probabilities, masks, _black(masks), refinement))
        for refinement in refinements[1:]
    ]
    mask_areas, intersections = (np.stack(v, axis=3) for v in zip(*variants))
    folds = np.zeros(len(masks), int) if folds is None else folds
    return Counts(areas, mask_areas, intersections, truths, presence, folds)


def _scores(probabilities, masks, presence, rules):
    """By post-processing and the metric, image by image."""
    processed = postprocess(probabilities, presence, _black(masks), rules)
    return competition_dice(masks, processed).numpy()


def test_dice_is_that_of_the_masks():
    probabilities, masks, presence = _random_images(5)
    counts = _counts(probabilities, masks, presence, refinements=WHOLE.refinements)
    for v, refinement in enumerate(WHOLE.refinements):
        for i, threshold in list(enumerate(THRESHOLDS))[:: 4 + v]:
            rule = dataclasses.replace(
                refinement, threshold=threshold, top_threshold=threshold
            )
            expected = _scores(probabilities, masks, presence, (rule,) * 4)
            found = np.stack([dice(counts, c)[:, i, v] for c in range(4)], axis=1)
            np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_rule_of_the_grid_has_the_score_of_post_processing():
    images = _random_images(9)
    counts = _counts(*images, refinements=WHOLE.refinements)
    groups = np.arange(9) % 2
    sums = score_sums(counts, 1, WHOLE, groups)
    assert sums.shape == (2, 3, 4, len(THRESHOLDS), len(THRESHOLDS), 2)
    rng = np.random.default_rng(1)
    for _ in range(12):
        gate, area, top, threshold, v = place = tuple(rng.integers(0, n) for n in sums.shape[1:])
        rule = dataclasses.replace(
            WHOLE.refinements[v],
            threshold=THRESHOLDS[threshold],
            top_threshold=THRESHOLDS[top],
            min_area=AREAS[area],
            min_presence=WHOLE.min_presences[gate],
        )
        expected = _scores(*images, (rule,) * 4)[:, 1]
        for group in (0, 1):
            found = sums[(group, *place)]
            assert found == pytest.approx(expected[groups == group].sum(), abs=1e-5)


def test_the_best_of_a_grid_is_found_and_of_equals_the_first():
    sums = np.zeros((1, 2, 19, 19, 1))
    assert best(sums, SMALL) == (0, 0, 0, 0, 0)
    sums[0, 1, 3, 3] = 1
    sums[0, 1, 5, 4] = 2
    sums[0, 0, 4, 5] = 3  # a top threshold below the other
    assert best(sums, SMALL) == (0, 1, 3, 3, 0)
    assert best(sums, SMALL._replace(triplet=True)) == (0, 1, 5, 4, 0)


@pytest.mark.parametrize("grid", [SMALL, WHOLE], ids=["small", "whole"])
def test_the_three_scores(grid):
    images = _random_images(40)
    folds = np.arange(40) % 4
    counts = _counts(*images, folds, grid.refinements)
    found = search(counts, grid)
    scores = found["scores"]

    plain = competition_dice(images[1], images[0] > 0.5)
    np.testing.assert_allclose(scores["plain"], plain, atol=1e-6)
    np.testing.assert_allclose(scores["tuned"], _scores(*images, found["rules"]), atol=1e-6)
    assert (scores["tuned"].mean(axis=0) >= scores["plain"].mean(axis=0) - 1e-9).all()
    # What is measured elsewhere than tuned cannot beat the best that there is.
    assert (scores["cross_fitted"].mean(axis=0) <= scores["tuned"].mean(axis=0) + 1e-9).all()

    rest = search(
        _counts(*(x[folds != 2] for x in images), folds[folds != 2], grid.refinements), grid
    )
    held_out = [x[folds == 2] for x in images]
    by_hand = _scores(*held_out, rest["rules"])
    np.testing.assert_allclose(scores["cross_fitted"][folds == 2], by_hand, atol=1e-6)
    masks = postprocess(held_out[0], held_out[2], _black(held_out[0]), rest["rules"]).numpy()
    np.testing.assert_array_equal(found["present"][folds == 2], masks.any(axis=(1, 2)))


def test_more_to_choose_from_never_tunes_to_less():
    images = _random_images(12)
    counts = _counts(*images, refinements=WHOLE.refinements)
    plain_counts = _counts(*images)
    small = search(plain_counts, SMALL)["scores"]["tuned"].mean(axis=0)
    whole = search(counts, WHOLE)["scores"]["tuned"].mean(axis=0)
    assert (whole >= small - 1e-9).all()


def test_tuning_on_noise_is_exposed_by_cross_fitting():
    """Where there is nothing to learn, the optimistic score rises and the honest one does not."""
    rng = np.random.default_rng(3)
    probabilities = rng.random((10, 6, 7, 4), np.float32)
    masks = (rng.random((10, 6, 7, 4)) < 0.5).astype(np.uint8)
    grid = AREA_GRID._replace(min_areas=tuple(range(0, 40, 2)))
    scores = search(_counts(probabilities, masks, probabilities.max((1, 2))), grid)["scores"]
    assert scores["cross_fitted"].mean() < scores["tuned"].mean()


def test_one_fold_is_split_the_same_way_for_the_same_seed():
    counts = _counts(*_random_images(30))
    one, again, other = (search(counts, SMALL, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one["scores"]["cross_fitted"], again["scores"]["cross_fitted"])
    assert (one["scores"]["cross_fitted"] != other["scores"]["cross_fitted"]).any()


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="one held-out image is not enough"):
        search(_counts(*_random_images(1)), SMALL)


def test_the_grid_covers_what_the_best_teams_used():
    assert MIN_AREAS[0] == 0 and {5000, 25000} <= set(MIN_AREAS) and 0.5 in THRESHOLDS
