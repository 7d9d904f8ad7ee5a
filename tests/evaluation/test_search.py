import dataclasses

import numpy as np
import pytest

from clouds_tf.evaluation.held_out import THRESHOLDS, Counts, _histogram
from clouds_tf.evaluation.search import _best, _dice, _Place, score_sums, search
from clouds_tf.evaluation.settings import MIN_AREAS, Grid
from clouds_tf.models.metrics import competition_dice
from clouds_tf.prediction.postprocessing import Rule, postprocess

pytestmark = pytest.mark.lanes

AREAS = (0, 5, 20, 60)
SMALL = Grid(AREAS)
WHOLE = Grid(AREAS, triplet=True)


def _random_images(num_images, seed=0):
    """Probabilities that know something of the masks, presence that does, and absent classes."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((num_images, 12, 13, 4)) < 0.4) & (rng.random((num_images, 1, 1, 4)) < 0.6)
    noise = rng.random((num_images, 12, 13, 4))
    presence = 0.3 * masks.any(axis=(1, 2)) + 0.7 * rng.random((num_images, 4))
    return np.float32(0.45 * masks + 0.55 * noise), masks.astype(np.uint8), np.float32(presence)


def _counts(probabilities, masks, presence, folds=None):
    folds = np.zeros(len(masks), int) if folds is None else folds
    return Counts(_histogram(probabilities, masks).numpy(), presence, folds)


def _scores(probabilities, masks, presence, rules):
    """By post-processing and the metric, image by image."""
    processed = postprocess(probabilities, presence, rules)
    return competition_dice(masks, processed).numpy()


def test_dice_is_that_of_the_masks():
    probabilities, masks, presence = _random_images(5)
    counts = _counts(probabilities, masks, presence)
    for i, threshold in list(enumerate(THRESHOLDS))[::4]:
        rule = Rule(threshold=threshold, top_threshold=threshold)
        expected = _scores(probabilities, masks, presence, (rule,) * 4)
        found = np.stack([_dice(counts, c)[:, i] for c in range(4)], axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_rule_of_the_grid_has_the_score_of_post_processing():
    images = _random_images(9)
    counts = _counts(*images)
    groups = np.arange(9) % 2
    sums = score_sums(counts, 1, WHOLE, groups)
    assert sums.shape == (2, 4, len(THRESHOLDS), len(THRESHOLDS))
    rng = np.random.default_rng(1)
    for _ in range(12):
        area, top, threshold = place = tuple(rng.integers(0, n) for n in sums.shape[1:])
        rule = Rule(
            threshold=THRESHOLDS[threshold],
            top_threshold=THRESHOLDS[top],
            min_area=AREAS[area],
        )
        expected = _scores(*images, (rule,) * 4)[:, 1]
        for group in (0, 1):
            found = sums[(group, *place)]
            assert found == pytest.approx(expected[groups == group].sum(), abs=1e-5)


def test_the_best_of_a_grid_is_found():
    sums = np.zeros((4, 19, 19))
    sums[1, 3, 3] = 1
    sums[1, 5, 4] = 2
    sums[0, 4, 5] = 3  # a top threshold below the other
    assert _best(sums, SMALL) == _Place(1, top=3, threshold=3)
    assert _best(sums, dataclasses.replace(SMALL, triplet=True)) == _Place(1, 5, 4)


def test_of_equals_the_middle_of_the_longest_run_is_taken_and_of_two_the_higher():
    sums = np.zeros((4, 19, 19))
    assert _best(sums, SMALL) == _Place(area=2, top=9, threshold=9)
    for threshold in (0, 1, 2, 8, 10, 11, 12):
        sums[:, threshold, threshold] = 1
    assert _best(sums, SMALL) == _Place(2, 11, 11)  # of 0 to 2 and 10 to 12
    sums[0, 11, 11] = 0
    assert _best(sums, SMALL).area == 2  # of 1 to 3
    sums[3, 11, 11] = 2
    assert _best(sums, SMALL).area == 3


def test_a_class_that_never_fires_gets_the_middle_of_everything():
    probabilities = np.full((6, 12, 13, 4), 0.01, np.float32)
    masks = np.zeros((6, 12, 13, 4), np.uint8)
    masks[:2, :, :, 1] = 1
    found = search(_counts(probabilities, masks, probabilities.max(axis=(1, 2))))
    assert found.rules == (Rule(0.5, 0.5, 15000),) * 4
    np.testing.assert_array_equal(found.cross_fitted, found.all_blank)


def test_a_class_that_only_harms_is_switched_off_on_the_safe_side():
    """It is never there, but up to 0.3 probable in up to 12x13 pixels."""
    probabilities = np.random.default_rng(0).random((6, 12, 13, 4), np.float32) * 0.3
    masks = np.zeros((6, 12, 13, 4), np.uint8)
    found = search(_counts(probabilities, masks, probabilities.max(axis=(1, 2))), SMALL)
    for rule in found.rules:
        assert rule.threshold >= 0.5 and rule.min_area >= 20
    np.testing.assert_array_equal(found.cross_fitted, 1)


@pytest.mark.parametrize("grid", [SMALL, WHOLE], ids=["small", "whole"])
def test_the_three_scores(grid):
    images = _random_images(40)
    folds = np.arange(40) % 4
    counts = _counts(*images, folds)
    found = search(counts, grid)
    plain = competition_dice(images[1], images[0] > 0.5)
    np.testing.assert_allclose(found.plain, plain, atol=1e-6)
    np.testing.assert_allclose(found.tuned, _scores(*images, found.rules), atol=1e-6)
    assert (found.tuned.mean(axis=0) >= found.plain.mean(axis=0) - 1e-9).all()
    # What is measured elsewhere than tuned cannot beat the best that there is.
    assert (found.cross_fitted.mean(axis=0) <= found.tuned.mean(axis=0) + 1e-9).all()

    rest = search(_counts(*(x[folds != 2] for x in images), folds[folds != 2]), grid)
    held_out = [x[folds == 2] for x in images]
    by_hand = _scores(*held_out, rest.rules)
    np.testing.assert_allclose(found.cross_fitted[folds == 2], by_hand, atol=1e-6)
    masks = postprocess(held_out[0], held_out[2], rest.rules)
    np.testing.assert_array_equal(found.present[folds == 2], masks.any(axis=(1, 2)))
    np.testing.assert_array_equal(found.areas[folds == 2], masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(found.all_blank, counts.truths == 0)


def test_more_to_choose_from_never_tunes_to_less():
    images = _random_images(12)
    counts = _counts(*images)
    small = search(counts, SMALL).tuned.mean(axis=0)
    whole = search(counts, WHOLE).tuned.mean(axis=0)
    assert (whole >= small - 1e-9).all()


def test_tuning_on_noise_is_exposed_by_cross_fitting():
    """Where there is nothing to learn, the optimistic score rises and the honest one does not."""
    rng = np.random.default_rng(3)
    probabilities = rng.random((10, 6, 7, 4), np.float32)
    masks = (rng.random((10, 6, 7, 4)) < 0.5).astype(np.uint8)
    grid = Grid(tuple(range(0, 40, 2)))
    found = search(_counts(probabilities, masks, probabilities.max((1, 2))), grid)
    assert found.cross_fitted.mean() < found.tuned.mean()


def test_one_fold_is_split_the_same_way_for_the_same_seed():
    counts = _counts(*_random_images(30))
    one, again, other = (search(counts, SMALL, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.cross_fitted, again.cross_fitted)
    assert (one.cross_fitted != other.cross_fitted).any()


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="got 1 held-out image, expected at least 2"):
        search(_counts(*_random_images(1)), SMALL)


def test_the_grid_covers_what_the_best_teams_used():
    assert MIN_AREAS[0] == 0 and {5000, 25000} <= set(MIN_AREAS) and 0.5 in THRESHOLDS
