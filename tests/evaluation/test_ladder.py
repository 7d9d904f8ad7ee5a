import numpy as np
import pytest

from clouds_tf.evaluation.counts import EDGES, Counts
from clouds_tf.evaluation.search import ladder, ladder_columns, ladder_text, search

NAMES = ("Fish", "Flower", "Gravel", "Sugar")


def _counts(seed, num_images=12):
    """Random pixel counts, of which two fifths of the classes are absent."""
    rng = np.random.default_rng(seed)
    histograms = rng.integers(0, 800, (num_images, 4, 2, len(EDGES) + 1))
    histograms[rng.random((num_images, 4)) < 0.4, 1] = 0  # absent
    presence, means = np.float32(rng.random((2, num_images, 4)))
    return Counts(histograms, presence, means, np.arange(num_images) % 3)


def test_every_prediction_has_rules_of_its_own_and_the_best_is_named():
    counts = {"none": _counts(0), "flips": _counts(1)}
    rungs = ladder(counts)
    assert {(rung.prediction, rung.masks) for rung in rungs} == {
        ("none", "blank"),
        *((way, name) for way in counts for name in ("plain", "rules")),
    }
    assert len(rungs) == 5
    found = {way: search(some) for way, some in counts.items()}
    base = found["none"].cross_fitted
    for rung in rungs:
        result = found[rung.prediction]
        honest, tuned = {
            "blank": (result.all_blank, result.all_blank),
            "plain": (result.plain, result.plain),
        }.get(rung.masks, (result.cross_fitted, result.tuned))
        assert rung.dice == pytest.approx((*honest.mean(axis=0), honest.mean()))
        assert rung.gain == pytest.approx(honest.mean() - base.mean())
        assert rung.interval[0] <= rung.gain <= rung.interval[1]
        assert rung.tuned == pytest.approx(tuned.mean())
    means = [rung.dice[-1] for rung in rungs]
    assert means == sorted(means, reverse=True)
    *lines, best = ladder_text(rungs, NAMES).splitlines()
    assert lines[0].split() == ladder_columns(NAMES)
    assert [line.split() for line in lines[1:]] == [rung.cells() for rung in rungs]
    assert rungs[0].masks in best and rungs[0].prediction in best and f"{means[0]:.4f}" in best
