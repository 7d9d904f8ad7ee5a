import numpy as np
import pytest

from clouds_tf.evaluation.held_out import THRESHOLDS, Counts, count_pixels
from clouds_tf.evaluation.search import MIN_AREAS, dice, search, tune
from clouds_tf.models.metrics import competition_dice
from clouds_tf.serving.postprocessing import postprocess

AREAS = (0, 5, 20, 60)


def _random_images(num_images, seed=0):
    """Probabilities that know something of the masks, and absent classes."""
    rng = np.random.default_rng(seed)
    masks = (rng.random((num_images, 12, 13, 4)) < 0.4) & (rng.random((num_images, 1, 1, 4)) < 0.6)
    noise = rng.random((num_images, 12, 13, 4))
    return np.float32(0.45 * masks + 0.55 * noise), masks.astype(np.uint8)


def _counts(probabilities, masks, folds=None):
    parts = [np.asarray(x) for x in count_pixels(probabilities, masks)]
    return Counts(*parts, np.zeros(len(masks), int) if folds is None else folds)


@pytest.mark.parametrize("min_area", AREAS)
def test_dice_is_that_of_the_post_processed_masks(min_area):
    probabilities, masks = _random_images(5)
    found = dice(_counts(probabilities, masks), min_area)
    for i, threshold in enumerate(THRESHOLDS):
        processed = postprocess(probabilities, [threshold] * 4, [min_area] * 4)
        np.testing.assert_allclose(found[..., i], competition_dice(masks, processed), atol=1e-6)


def test_tune_finds_the_best_of_the_grid_by_brute_force():
    probabilities, masks = _random_images(8)
    threshold_index, area_index = tune(_counts(probabilities, masks), AREAS)
    for c in range(4):
        scores = {
            (t, a): np.mean(
                competition_dice(masks, postprocess(probabilities, [t] * 4, [a] * 4))[:, c]
            )
            for t in THRESHOLDS
            for a in AREAS
        }
        chosen = THRESHOLDS[threshold_index[c]], AREAS[area_index[c]]
        assert scores[chosen] == pytest.approx(max(scores.values()), abs=1e-6)


def test_the_three_scores():
    probabilities, masks = _random_images(40)
    folds = np.arange(40) % 4
    counts = _counts(probabilities, masks, folds)
    found = search(counts, min_areas=AREAS)
    scores = found["scores"]

    plain = competition_dice(masks, probabilities > 0.5)
    np.testing.assert_allclose(scores["plain"], plain, atol=1e-6)
    tuned = postprocess(probabilities, found["thresholds"], found["min_areas"])
    np.testing.assert_allclose(scores["tuned"], competition_dice(masks, tuned), atol=1e-6)
    assert (scores["tuned"].mean(axis=0) >= scores["plain"].mean(axis=0) - 1e-9).all()
    # What is measured elsewhere than tuned cannot beat the best that there is.
    assert (scores["cross_fitted"].mean(axis=0) <= scores["tuned"].mean(axis=0) + 1e-9).all()

    rest = _counts(probabilities[folds != 2], masks[folds != 2])
    thresholds, areas = tune(rest, AREAS)
    by_hand = postprocess(
        probabilities[folds == 2], [THRESHOLDS[i] for i in thresholds], [AREAS[i] for i in areas]
    )
    np.testing.assert_allclose(
        scores["cross_fitted"][folds == 2], competition_dice(masks[folds == 2], by_hand), atol=1e-6
    )


def test_tuning_on_noise_is_exposed_by_cross_fitting():
    """Where there is nothing to learn, the optimistic score rises and the honest one does not."""
    rng = np.random.default_rng(3)
    probabilities = rng.random((10, 6, 7, 4), np.float32)
    masks = (rng.random((10, 6, 7, 4)) < 0.5).astype(np.uint8)
    scores = search(_counts(probabilities, masks), min_areas=tuple(range(0, 40, 2)))["scores"]
    assert scores["cross_fitted"].mean() < scores["tuned"].mean()


def test_one_fold_is_split_the_same_way_for_the_same_seed():
    counts = _counts(*_random_images(30))
    one, again = (search(counts, seed=5, min_areas=AREAS) for _ in range(2))
    np.testing.assert_array_equal(one["scores"]["cross_fitted"], again["scores"]["cross_fitted"])


def test_one_image_is_refused():
    with pytest.raises(ValueError, match="one held-out image is not enough"):
        search(_counts(*_random_images(1)), min_areas=AREAS)


def test_the_grid_covers_what_the_best_teams_used():
    assert MIN_AREAS[0] == 0 and {5000, 25000} <= set(MIN_AREAS) and 0.5 in THRESHOLDS
