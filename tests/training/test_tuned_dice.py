import itertools

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.prediction.postprocessing import (
    MIN_TOP_MEANS,
    RELATIVE_THRESHOLDS,
    Rule,
    postprocess,
)
from clouds_tf.training.tuned_dice import TunedDice


def _batch(scale):
    rng = np.random.default_rng(4)
    masks = rng.integers(0, 2, [9, 2, 3, 2]).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    masks[::3, ..., 0] = 0
    logits = np.float32(scale * (3 * masks - 1.5 + rng.normal(0, 2, masks.shape)))
    return masks, logits, rng.integers(0, 2, 9)


@pytest.mark.parametrize("exclusive", [False, True])
def test_it_is_that_of_rules_found_on_the_other_half(exclusive):
    masks, logits, halves = _batch(0.7)
    tuned = TunedDice(2, exclusive)
    update = tf.function(tuned.update)
    for part in (slice(0, 4), slice(4, 9)):  # however the images are divided
        update(*(tf.constant(x[part]) for x in (masks, logits, halves)))

    truth, q = masks[:, ::2, ::2] > 0, 1 / (1 + np.exp(-logits[:, ::2, ::2]))
    rules = [*itertools.product(RELATIVE_THRESHOLDS, MIN_TOP_MEANS)]
    scores = np.empty([9, 2, len(rules)])
    for number, (relative, mean) in enumerate(rules):
        found = postprocess(q, [Rule(0.01, relative, mean)] * 2, exclusive).numpy()
        total = (found.sum((1, 2)) + truth.sum((1, 2))).astype(float)
        both = (found & truth).sum((1, 2))
        scores[..., number] = np.where(total == 0, 1, 2 * both / np.maximum(total, 1))
    sums = np.array([scores[halves == half].sum(axis=0) for half in (0, 1)])
    expected = sum(sums[h, c, sums[1 - h, c].argmax()] for h in (0, 1) for c in (0, 1)) / 18
    assert tuned.result() == pytest.approx(expected, abs=1e-6)
    tuned.reset()
    update(*map(tf.constant, (masks, logits, halves)))
    assert tuned.result() == pytest.approx(expected, abs=1e-6)
