import dataclasses

import numpy as np
import pytest
from sample import member
from sample import small_records as _small_records
from shared_fixtures import IMAGE_SIZE
from test_search import _counts, _random_images

from clouds_tf.dataset import CLOUDS
from clouds_tf.evaluation import pictures
from clouds_tf.evaluation.held_out import HeldOut
from clouds_tf.evaluation.search import MIN_TOP_MEANS, RELATIVE_THRESHOLDS, search
from clouds_tf.models.metrics import competition_dice
from clouds_tf.prediction.postprocessing import Rule, postprocess


def test_the_map_of_scores_is_the_mean_dice():
    probabilities, truth = _random_images(6)
    counts = _counts(probabilities, truth)
    maps = pictures._score_maps(counts)
    assert maps.shape == (4, len(MIN_TOP_MEANS), len(RELATIVE_THRESHOLDS))
    masks = postprocess(probabilities, (Rule(0.01, 0.6, 0.4),) * 4)
    place = MIN_TOP_MEANS.index(0.4), RELATIVE_THRESHOLDS.index(0.6)
    expected = competition_dice(truth, masks).numpy().mean(axis=0)
    np.testing.assert_allclose(maps[:, place[0], place[1]], expected, atol=1e-6)
    np.testing.assert_allclose(maps[:, -1, 0], (counts.truths == 0).mean(axis=0))  # none at 1


def test_reliability_by_hand():
    rng = np.random.default_rng(0)
    probabilities = np.float32(rng.random((1, *CLOUDS.submission_size, 4)) ** 2)
    masks = np.uint8(rng.random(probabilities.shape) < probabilities)
    counts = _counts(probabilities, masks)
    edges, shares, numbers = pictures._reliability(counts)
    for c in range(4):
        expected, _ = np.histogram(probabilities[..., c], edges)
        np.testing.assert_array_equal(numbers[c], expected)
        true, _ = np.histogram(probabilities[..., c][masks[..., c] == 1], edges)
        np.testing.assert_allclose(shares[c], true / expected)
        middles = (edges[1:] + edges[:-1]) / 2
        np.testing.assert_allclose(shares[c], middles, atol=0.02)  # drawn by their probability


def test_confusions_by_hand():
    counts = _counts(*_random_images(3))
    histograms = counts.histograms.copy()
    histograms[:, :, 1] = 0
    histograms[:, [0, 3], 1, -1] = 5  # pixels of Fish and Sugar
    counts = dataclasses.replace(counts, histograms=histograms)
    present = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0.5, 1, 0, 0]])
    found = pictures._confusions(counts, present)
    np.testing.assert_allclose(found[0], [[0, 0], [1.5, 1.5]])
    np.testing.assert_allclose(found[1], [[0, 3], [0, 0]])
    np.testing.assert_allclose(found[2], [[3, 0], [0, 0]])
    np.testing.assert_allclose(found[3], [[0, 0], [3, 0]])


def test_extremes_are_the_best_the_median_and_the_worst():
    values = np.array([0.1, 0.9, 0.5, 0.3, 0.7])
    expected = {"best": [1], "median": [2], "worst": [0]}
    assert pictures._extremes(values, count=1) == expected
    assert pictures._extremes(values[:1])["worst"] == [0]


small_records = _small_records


@pytest.mark.slow
def test_examples_are_held_out_images_with_their_truth(small_records):
    held_out = HeldOut(small_records, dict.fromkeys((0, 2), [member(IMAGE_SIZE)]))
    counts = held_out.count()
    found = search(counts)
    figure = pictures._examples(held_out, counts, found)
    assert len(figure.axes) == 6 * 4
    scores = found.cross_fitted.mean(axis=1)
    assert figure.axes[0].texts[0].get_text() == f"best: {scores.max():.3f}"
    names = [axes.get_title("left") for axes in figure.axes[:4]]
    assert names == ["image", "truth", "threshold 0.5", "post-processed"]
    # The truth in the first row is that of the best image.
    classes = {text.get_text() for text in figure.axes[1].texts}
    present = counts.truths[scores.argmax()] > 0
    assert len(classes) == present.sum()
