import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest

from clouds_tf.models import losses
from clouds_tf.models.losses import entropy

# One image of 1 x 2 pixels and one class; logits 0 and log 3, so probabilities 1/2 and 3/4.
MASK = np.uint8([[[[1], [0]]]])
LOGITS = np.log(np.float32([[[[1], [3]]]]))
LOG2 = np.log(2)  # what the first pixel costs; the second, -log(1/4), costs twice that


@pytest.mark.parametrize(
    "loss, knobs, expected",
    [
        (entropy.bce, {}, (1 + 2) / 2),
        (entropy.weighted_bce, {"beta": 3}, (3 * 1 + 2) / 2),
        (entropy.balanced_bce, {"beta": 0.75}, (0.75 * 1 + 0.25 * 2) / 2),
        (entropy.balanced_bce, {}, (0.5 * 1 + 0.5 * 2) / 2),  # half of the pixels are in the mask
        (entropy.focal, {}, (0.25 * 0.5**2 * 1 + 0.75 * 0.75**2 * 2) / 2),
        (entropy.focal, {"gamma": 1, "alpha": 0.5}, (0.5 * 0.5 * 1 + 0.5 * 0.75 * 2) / 2),
    ],
)
def test_values_by_hand(loss, knobs, expected):
    np.testing.assert_allclose(loss(MASK, LOGITS, **knobs), [expected * LOG2], rtol=1e-6)


def test_the_balance_is_that_of_each_image():
    # All of the first image is in the mask, so nothing is left to weigh; none of the second is.
    mask = np.stack([np.ones([2, 2, 1]), np.zeros([2, 2, 1])])
    np.testing.assert_array_equal(entropy.balanced_bce(mask, np.zeros(mask.shape)), [0, 0])


@pytest.mark.parametrize("logit", [-100.0, 100.0])
def test_great_logits_are_exact(logit):
    mask, right = np.ones([1, 1, 1, 1]), logit > 0
    for loss, wrong in [(entropy.bce, 100), (entropy.weighted_bce, 200), (entropy.focal, 25)]:
        np.testing.assert_allclose(
            loss(mask, [[[[logit]]]]), [0 if right else wrong], rtol=1e-6, atol=1e-30
        )


@hypothesis.settings(max_examples=30)
@hypothesis.given(
    hnp.arrays(np.float32, (2, 3, 4, 2), elements={"min_value": 0, "max_value": 1}),
    hnp.arrays(np.float32, (2, 3, 4, 2), elements={"min_value": -30, "max_value": 30}),
)
def test_one_family(mask, logits):
    x = logits.astype(np.float64)
    expected = np.mean(np.logaddexp(0, x) - x * mask, (1, 2, 3))
    for family in (
        entropy.bce(mask, logits),
        entropy.weighted_bce(mask, logits, beta=1),
        2 * entropy.balanced_bce(mask, logits, beta=0.5),
        2 * entropy.focal(mask, logits, gamma=0, alpha=0.5),
    ):
        np.testing.assert_allclose(family, expected, rtol=1e-4, atol=1e-6)


def test_focal_is_that_of_addons():
    addons = pytest.importorskip("tensorflow_addons", reason="lane two has no addons")
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, [3, 4, 5, 2]).astype(np.float32)
    logits = rng.normal(0, 3, mask.shape).astype(np.float32)
    for alpha, gamma in ((0.25, 2.0), (0.6, 3.0)):
        peer = addons.losses.SigmoidFocalCrossEntropy(True, alpha, gamma, reduction="none")
        expected = np.mean(peer(mask, logits), axis=(1, 2)) / 2  # of the sum over two classes
        found = entropy.focal(mask, logits, gamma=gamma, alpha=alpha)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_focal_looks_away_from_what_is_right():
    easy, hard = np.full([1, 1, 1, 1], 4.0), np.full([1, 1, 1, 1], -4.0)
    mask = np.ones([1, 1, 1, 1])
    assert entropy.focal(mask, easy)[0] / entropy.bce(mask, easy)[0] < 1e-3
    assert entropy.focal(mask, hard)[0] / entropy.bce(mask, hard)[0] > 0.24


def test_presence_by_hand():
    mask = np.zeros([2, 2, 2, 2], np.uint8)
    mask[0, 1, 0, 0] = 1  # one pixel of the first class in the first image
    presence = np.log(np.float32([[3, 1], [1, 1]]))  # probabilities 3/4, 1/2, 1/2, 1/2
    expected = [(np.log(4 / 3) + LOG2) / 2, LOG2]
    values = losses.presence_bce(mask, presence)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    # Blended by half with an image of nothing: there, half.
    expected[0] = ((np.log(4 / 3) + np.log(4)) / 2 + LOG2) / 2
    np.testing.assert_allclose(losses.presence_bce(mask / 2, presence), expected, rtol=1e-6)
