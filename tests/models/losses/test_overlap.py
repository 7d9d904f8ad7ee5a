import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest

from clouds_tf.models import losses
from clouds_tf.models.losses import overlap

# One image of 1 x 2 pixels and one class; logits 0 and log 3, so probabilities 1/2 and 3/4:
# sum(pq) = 1/2, sum p = 1, sum q = 5/4.
MASK = np.uint8([[[[1], [0]]]])
LOGITS = np.log(np.float32([[[[1], [3]]]]))


@pytest.mark.parametrize(
    "name, knobs, expected",
    [
        ("dice", {}, 1 - 2 / 3.25),
        ("dice", {"smooth": 0}, 1 - 1 / 2.25),
        ("tversky", {"smooth": 0}, 1 - 1 / 2.25),
        ("tversky", {"beta": 0.8}, 1 - 1.5 / (0.5 + 0.8 * 0.75 + 0.2 * 0.5 + 1)),
        ("jaccard", {}, 1 - 1.5 / 2.75),
        ("jaccard", {"smooth": 0}, 1 - 0.5 / 1.75),
    ],
)
def test_values_by_hand(name, knobs, expected):
    for prefix in ("", "batch_"):
        value = losses.LOSSES[prefix + name](MASK, LOGITS, **knobs)
        np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_what_the_sums_go_over():
    # Two images of one pixel and two classes, probabilities 1/2; only the first image has anything.
    mask = np.float32([[[[1, 0]]], [[[0, 0]]]])
    logits = np.zeros(mask.shape)
    there, not_there = 1 - 2 / 2.5, 1 - 1 / 1.5
    np.testing.assert_allclose(
        overlap.dice(mask, logits), [(there + not_there) / 2, not_there], rtol=1e-6
    )
    np.testing.assert_allclose(overlap.present_dice(mask, logits), [there, 0], rtol=1e-6)
    np.testing.assert_allclose(overlap.batch_dice(mask, logits), [1 - 2 / 4] * 2, rtol=1e-6)


maps = [
    hnp.arrays(np.uint8, (2, 3, 4, 2), elements={"min_value": 0, "max_value": 1}),
    hnp.arrays(np.float32, (2, 3, 4, 2), elements={"min_value": -30, "max_value": 30}),
]


@hypothesis.settings(max_examples=30)
@hypothesis.given(*maps)
def test_the_three_are_functions_of_one_another(mask, logits):
    mask[:, 0, 0] = 1  # without smoothing, something must be there
    dice = overlap.dice(mask, logits, smooth=0).numpy()
    np.testing.assert_allclose(overlap.tversky(mask, logits, smooth=0), dice, atol=1e-5)
    # With false ones and missed ones weighed 1 each, Tversky is Jaccard; here for one image.
    image = mask[:1, ..., :1], logits[:1, ..., :1]
    score = 1 - overlap.dice(*image, smooth=0).numpy()
    jaccard = overlap.jaccard(*image, smooth=0)
    np.testing.assert_allclose(jaccard, 1 - score / (2 - score), atol=1e-5)


@hypothesis.settings(max_examples=30)
@hypothesis.given(*maps)
def test_bounds_and_an_oracle_in_float64(mask, logits):
    q = 1 / (1 + np.exp(-logits.astype(np.float64)))
    total = mask.sum((1, 2)) + q.sum((1, 2)) + 1
    each = 1 - (2 * (mask * q).sum((1, 2)) + 1) / total
    np.testing.assert_allclose(overlap.dice(mask, logits), each.mean(1), atol=1e-5)
    whole = 1 - (2 * (mask * q).sum() + 1) / (mask.sum() + q.sum() + 1)
    np.testing.assert_allclose(overlap.batch_dice(mask, logits), [whole] * 2, atol=1e-5)
    for loss in (overlap.dice, overlap.jaccard, overlap.tversky, overlap.batch_jaccard):
        assert (-1e-6 <= loss(mask, logits).numpy()).all() and (loss(mask, logits) <= 1 + 1e-6)[0]
    assert (overlap.jaccard(mask, logits) >= overlap.dice(mask, logits) - 1e-6).numpy().all()


@hypothesis.settings(max_examples=30)
@hypothesis.given(*maps)
def test_semimetric_dice_is_dice_where_targets_are_0_or_1(mask, logits):
    for soft, hard in (
        (overlap.semimetric_dice, overlap.dice),
        (overlap.batch_semimetric_dice, overlap.batch_dice),
    ):
        np.testing.assert_allclose(soft(mask, logits), hard(mask, logits), atol=1e-5)


def test_semimetric_dice_is_least_at_the_targets():
    rng = np.random.default_rng(0)
    target = rng.uniform(0.05, 0.95, (2, 3, 4, 2)).astype(np.float32)
    logits = rng.normal(size=target.shape).astype(np.float32)
    q = 1 / (1 + np.exp(-logits.astype(np.float64)))
    each = np.abs(target - q).sum((1, 2)) / (target.sum((1, 2)) + q.sum((1, 2)) + 1)
    np.testing.assert_allclose(overlap.semimetric_dice(target, logits), each.mean(1), rtol=1e-5)
    right = np.log(target / (1 - target))
    assert (overlap.semimetric_dice(target, right).numpy() < 1e-5).all()
    surer = right + np.sign(right)  # which Dice likes better than what is right
    assert (overlap.semimetric_dice(target, surer).numpy() > 0.05).all()
    assert (overlap.dice(target, surer) < overlap.dice(target, right)).numpy().all()


def test_beta_says_which_mistake_costs_more():
    mask = np.float32([[[[1], [1], [0], [0]]]])
    too_much, too_little = 20 * np.float32([[[[1], [1], [1], [-1]]], [[[1], [-1], [-1], [-1]]]])
    for beta, sign in [(0.9, 1), (0.1, -1)]:
        costs = [overlap.tversky(mask, x[None], beta=beta)[0] for x in (too_much, too_little)]
        assert sign * (costs[0] - costs[1]) > 0
