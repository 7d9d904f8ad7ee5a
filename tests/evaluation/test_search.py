import numpy as np
import pytest

from clouds_tf.evaluation.counts import HUNDREDTHS, Counts, _histogram
from clouds_tf.evaluation.search import (
    MIN_TOP_MEANS,
    RELATIVE_THRESHOLDS,
    Outcomes,
    _best,
    _measure,
    _Place,
    search,
)
from clouds_tf.models.metrics import competition_dice
from clouds_tf.prediction.postprocessing import Rule, postprocess, top_means

pytestmark = pytest.mark.lanes

LIMITS = len(MIN_TOP_MEANS), len(RELATIVE_THRESHOLDS)


def _random_images(num_images, seed=0):
    """Probabilities that know something of the masks, and absent classes."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((num_images, 12, 13, 4)) < 0.4) & (rng.random((num_images, 1, 1, 4)) < 0.6)
    noise = rng.random((num_images, 12, 13, 4)) * rng.random((num_images, 1, 1, 1))
    return np.float32(0.45 * masks + 0.55 * noise), masks.astype(np.uint8)


def _counts(probabilities, masks, folds=None):
    folds = np.zeros(len(masks), int) if folds is None else folds
    histograms, means = _histogram(probabilities, masks).numpy(), top_means(probabilities).numpy()
    return Counts(histograms, probabilities.max(axis=(1, 2)), means, folds)


def _scores(probabilities, masks, rules):
    """By post-processing and the metric, image by image."""
    return competition_dice(masks, postprocess(probabilities, rules)).numpy()


def test_dice_is_that_of_the_masks():
    images = _random_images(5)
    counts = _counts(*images)
    for i, threshold in list(enumerate(HUNDREDTHS))[::20]:
        expected = _scores(*images, (Rule(threshold),) * 4)
        places = np.full((5, 1), i)
        found = np.hstack([_measure(counts, c, places)[0] for c in range(4)])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_every_rule_has_the_score_of_post_processing():
    images = _random_images(9)
    groups = np.arange(9) % 2
    sums = Outcomes.of(_counts(*images), 1).score_sums(groups)
    assert sums.shape == (2, *LIMITS)
    rng = np.random.default_rng(1)
    for _ in range(12):
        mean, relative = place = tuple(rng.integers(0, n) for n in LIMITS)
        rule = Rule(0.01, RELATIVE_THRESHOLDS[relative], MIN_TOP_MEANS[mean])
        expected = _scores(*images, (rule,) * 4)[:, 1]
        for group in (0, 1):
            found = sums[(group, *place)]
            assert found == pytest.approx(expected[groups == group].sum(), abs=1e-5)


def test_of_equals_the_middle_of_the_longest_run_is_taken_and_of_two_the_higher():
    sums = np.zeros((4, 16))
    assert _best(sums) == _Place(min_top_mean=2, relative=8)
    for relative in (0, 1, 2, 8, 10, 11, 12):
        sums[:, relative] = 1
    assert _best(sums) == _Place(2, 11)  # of 0 to 2 and 10 to 12
    sums[0, 11] = 0
    assert _best(sums).min_top_mean == 2  # of 1 to 3
    sums[3, 11] = 2
    assert _best(sums).min_top_mean == 3


def test_a_class_that_never_fires_gets_the_middle_of_everything():
    probabilities = np.full((6, 12, 13, 4), 0.01, np.float32)
    masks = np.zeros((6, 12, 13, 4), np.uint8)
    masks[:2, :, :, 1] = 1
    found = search(_counts(probabilities, masks))
    assert found.rules == (Rule(0.01, 0.6, 0.5),) * 4
    np.testing.assert_array_equal(found.cross_fitted, found.all_blank)


def test_a_class_that_only_harms_is_switched_off_on_the_safe_side():
    """It is never there, but up to 0.3 probable."""
    probabilities = np.random.default_rng(0).random((6, 12, 13, 4), np.float32) * 0.3
    masks = np.zeros((6, 12, 13, 4), np.uint8)
    found = search(_counts(probabilities, masks))
    for rule in found.rules:
        assert rule.min_top_mean >= 0.6
    np.testing.assert_array_equal(found.cross_fitted, 1)


def test_the_three_scores():
    images = _random_images(40)
    folds = np.arange(40) % 4
    counts = _counts(*images, folds)
    found = search(counts)
    plain = competition_dice(images[1], images[0] > 0.5)
    np.testing.assert_allclose(found.plain, plain, atol=1e-6)
    np.testing.assert_allclose(found.tuned, _scores(*images, found.rules), atol=1e-6)
    assert (found.tuned.mean(axis=0) >= found.plain.mean(axis=0) - 1e-9).all()
    # What is measured elsewhere than tuned cannot beat the best that there is.
    assert (found.cross_fitted.mean(axis=0) <= found.tuned.mean(axis=0) + 1e-9).all()

    rest = search(_counts(*(x[folds != 2] for x in images), folds[folds != 2]))
    probabilities, truth = (x[folds == 2] for x in images)
    by_hand = _scores(probabilities, truth, rest.rules)
    np.testing.assert_allclose(found.cross_fitted[folds == 2], by_hand, atol=1e-6)
    masks = postprocess(probabilities, rest.rules).numpy()
    np.testing.assert_array_equal(found.present[folds == 2], masks.any(axis=(1, 2)))
    np.testing.assert_array_equal(found.areas[folds == 2], masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(found.all_blank, counts.truths == 0)
    right = masks.any(axis=(1, 2)) == truth.any(axis=(1, 2))
    np.testing.assert_array_equal(found.presence_accuracy[folds == 2], right)


def test_presence_of_one_fold_is_the_mean_over_ways_to_halve_it():
    probabilities, masks = _random_images(12, seed=2)
    counts, right = _counts(probabilities, masks), np.zeros([12, 4])
    splits = counts.cross_fitting_groups(seed=3)
    for groups in splits:
        for group in (0, 1):
            own, other = groups == group, groups != group
            rules = search(_counts(probabilities[other], masks[other])).rules
            found = postprocess(probabilities[own], rules).numpy().any(axis=(1, 2))
            right[own] += found == masks[own].any(axis=(1, 2))
    accuracy = search(counts, seed=3).presence_accuracy
    np.testing.assert_allclose(accuracy, right / len(splits), atol=1e-9)
    assert 0 < accuracy.mean() < 1 and len(np.unique(accuracy)) > 2


def test_tuning_on_noise_is_exposed_by_cross_fitting():
    """Where there is nothing to learn, the optimistic score rises and the honest one does not."""
    rng = np.random.default_rng(3)
    probabilities = rng.random((10, 6, 7, 4), np.float32)
    masks = (rng.random((10, 6, 7, 4)) < 0.5).astype(np.uint8)
    found = search(_counts(probabilities, masks))
    assert found.cross_fitted.mean() < found.tuned.mean()


def test_one_fold_is_split_the_same_way_for_the_same_seed():
    counts = _counts(*_random_images(30))
    one, again, other = (search(counts, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.cross_fitted, again.cross_fitted)
    assert (one.cross_fitted != other.cross_fitted).any()


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="got 1 held-out image, expected at least 2"):
        search(_counts(*_random_images(1)))
