import itertools

import numpy as np
import pytest

from clouds_tf.models.losses import overlap


def _jaccard_loss(truth, found):
    union = np.sum(truth | found)
    return 1 - np.sum(truth & found) / union if union else 0.0


def _by_definition(mask, logits):
    """The Lovász extension of 1 - intersection over union, as Berman et al. define it (eq. 7)."""
    truth = mask.ravel().astype(bool)
    errors = np.maximum(1 - logits.ravel() * np.where(truth, 1, -1), 0)
    wrong, before, total = np.zeros_like(truth), 0.0, 0.0
    for pixel in np.argsort(-errors):
        wrong[pixel] = True
        after = _jaccard_loss(truth, truth ^ wrong)
        total += errors[pixel] * (after - before)
        before = after
    return total


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_values_by_definition(share):
    rng = np.random.default_rng(0)
    mask = (rng.random([2, 3, 4, 2]) < share).astype(np.uint8)
    logits = rng.normal(size=mask.shape).astype(np.float32)

    def mean(mask, logits):
        each = [
            [_by_definition(mask[i, ..., c], logits[i, ..., c]) for c in (0, 1)] for i in (0, 1)
        ]
        return np.mean(each, axis=1)

    np.testing.assert_allclose(overlap.lovasz(mask, logits), mean(mask, logits), rtol=1e-5)
    symmetric = (mean(mask, logits) + mean(1 - mask, -logits)) / 2
    np.testing.assert_allclose(overlap.symmetric_lovasz(mask, logits), symmetric, rtol=1e-5)


def test_value_by_hand():
    # Errors 1.5 (of the background) and .5: the first costs 1 - 1/2, the second the rest.
    value = overlap.lovasz(np.uint8([[[[1], [0]]]]), np.float32([[[[0.5], [0.5]]]]))
    np.testing.assert_allclose(value, [1.5 * 0.5 + 0.5 * 0.5], rtol=1e-6)


def test_of_certain_answers_it_is_a_multiple_of_1_minus_iou():
    # Logits of 1 and -1 have errors of 2 or 0, so all answers stand in the order of their IoU.
    truth = np.array([1, 1, 0, 0], bool)
    for found in itertools.product([False, True], repeat=4):
        found = np.array(found)
        logits = np.where(found, 1.0, -1.0).reshape(1, 2, 2, 1)
        value = overlap.lovasz(truth.reshape(1, 2, 2, 1), logits)
        np.testing.assert_allclose(value, [2 * _jaccard_loss(truth, found)], atol=1e-6)
