import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.models import losses

# One image of 1 x 2 pixels and one class; logits 0 and log 3, so probabilities 1/2 and 3/4.
MASK = np.uint8([[[[1], [0]]]])
LOGITS = np.log(np.float32([[[[1], [3]]]]))


def test_values_by_hand():
    # CE: (log 2 + log 4) / 2. Dice: 1 - (2 * .5 + 1) / (1 + 1.25 + 1), with smooth = 1.
    cross_entropy, overlap = 1.5 * np.log(2), 1 - 2 / 3.25
    np.testing.assert_allclose(losses.bce(MASK, LOGITS), [cross_entropy], rtol=1e-6)
    np.testing.assert_allclose(losses.dice(MASK, LOGITS), [overlap], rtol=1e-6)
    np.testing.assert_allclose(losses.bce_dice(MASK, LOGITS), [cross_entropy + overlap], rtol=1e-6)
    np.testing.assert_allclose(losses.dice(MASK, LOGITS, smooth=0), [1 - 1 / 2.25], rtol=1e-6)


def _batch(seed=0, num=3, size=(6, 5)):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, [num, *size, 4], dtype=np.uint8)
    return mask, rng.normal(size=[num, *size, 4]).astype(np.float32)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_one_float32_for_each_image_that_no_other_image_changes(name):
    loss = losses.LOSSES[name]
    mask, logits = _batch()
    values = loss(mask, logits)
    assert values.dtype == tf.float32 and values.shape == (3,)
    alone = np.concatenate([loss(mask[i : i + 1], logits[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(values, alone, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float16, np.float64])
def test_the_number_type_of_masks_does_not_matter(name, dtype):
    mask, logits = _batch()
    expected = losses.LOSSES[name](mask.astype(np.float32), logits)
    np.testing.assert_array_equal(losses.LOSSES[name](mask.astype(dtype), logits), expected)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_float16_logits_do_not_overflow(name):
    # 512 x 512 ones are 262,144; the greatest float16 is 65,504.
    mask = np.ones([1, 512, 512, 4], np.uint8)
    value = losses.LOSSES[name](mask, np.full(mask.shape, 20, np.float16))
    np.testing.assert_allclose(value, [0], atol=1e-5)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
@pytest.mark.parametrize("truth", [0, 1])
def test_great_logits_give_finite_values_and_gradients(name, truth):
    mask = np.full([1, 2, 2, 1], truth, np.uint8)
    for logit in (-1e4, 1e4):
        logits = tf.fill(mask.shape, logit)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = losses.LOSSES[name](mask, logits)
        assert np.isfinite(value).all() and np.isfinite(tape.gradient(value, logits)).all()


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_logits_of_another_size_are_brought_to_the_mask(name):
    mask, _ = _batch(size=(8, 8))
    logits = np.random.default_rng(1).normal(size=(3, 4, 4, 4)).astype(np.float32)
    expected = losses.LOSSES[name](mask, tf.image.resize(logits, [8, 8]))
    np.testing.assert_allclose(losses.LOSSES[name](mask, logits), expected, rtol=1e-6)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
    hnp.arrays(np.uint8, (2, 3, 4, 2), elements={"min_value": 0, "max_value": 1}),
    hnp.arrays(np.float32, (2, 3, 4, 2), elements={"min_value": -30, "max_value": 30}),
)
def test_bounds_and_oracle(mask, logits):
    q = 1 / (1 + np.exp(-logits.astype(np.float64)))
    entropy = np.logaddexp(0, logits.astype(np.float64)) - logits * mask.astype(np.float64)
    np.testing.assert_allclose(losses.bce(mask, logits), entropy.mean((1, 2, 3)), rtol=1e-4)
    total = mask.sum((1, 2, 3)) + q.sum((1, 2, 3)) + 1
    expected = 1 - (2 * (mask * q).sum((1, 2, 3)) + 1) / total
    got = losses.dice(mask, logits).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (got >= -1e-6).all() and (got <= 1).all()


def test_nothing_there_and_nothing_found_costs_nothing():
    mask = np.zeros([1, 4, 4, 4], np.uint8)
    np.testing.assert_allclose(losses.bce_dice(mask, np.full(mask.shape, -50.0)), [0], atol=1e-6)


def test_a_step_against_the_gradient_lowers_every_loss():
    mask, start = _batch()
    for loss in losses.LOSSES.values():
        logits = tf.constant(start)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(mask, logits)
        better = loss(mask, logits - 0.1 * tape.gradient(value, logits))
        assert (better.numpy() < value.numpy()).all()


def test_presence_by_hand():
    mask = np.zeros([2, 2, 2, 2], np.uint8)
    mask[0, 1, 0, 0] = 1  # one pixel of the first class in the first image
    presence = np.log(np.float32([[3, 1], [1, 1]]))  # probabilities 3/4, 1/2, 1/2, 1/2
    expected = [(np.log(4 / 3) + np.log(2)) / 2, np.log(2)]
    values = losses.presence_bce(mask, presence)
    assert values.dtype == tf.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(losses.presence_bce(mask * 255, presence), expected, rtol=1e-6)
