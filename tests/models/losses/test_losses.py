"""What holds for every loss."""

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import NUM_DEVICES

from clouds_tf.models import losses
from clouds_tf.models.losses import LOSSES, entropy

NAMES = sorted({*LOSSES} - {"cce"})  # cce takes one more map, see test_exclusive.py
BATCH_LOSSES = sorted(name for name in LOSSES if name.startswith("batch_"))


def _batch(seed=0, num=3, size=(6, 5)):
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 2, [num, *size, 4], dtype=np.uint8)
    return mask, rng.normal(size=[num, *size, 4]).astype(np.float32)


def _value_and_gradient(loss, mask, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(mask, logits)
    return value, tape.gradient(value, logits)


@pytest.mark.parametrize("name", NAMES)
def test_one_float32_for_each_image(name):
    mask, logits = _batch()
    values = LOSSES[name](mask, logits)
    assert values.dtype == tf.float32 and values.shape == (3,)
    alone = np.concatenate([LOSSES[name](mask[i : i + 1], logits[i : i + 1]) for i in range(3)])
    if name in BATCH_LOSSES:
        np.testing.assert_array_equal(values, np.repeat(values[0], 3))
        assert not np.allclose(values, alone, rtol=1e-3)
    else:
        np.testing.assert_allclose(values, alone, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_type_of_masks_does_not_matter(name):
    mask, logits = _batch()
    expected = LOSSES[name](mask.astype(np.float32), logits)
    for dtype in (np.bool_, np.uint8, np.int64, np.float16, np.float64):
        np.testing.assert_array_equal(LOSSES[name](mask.astype(dtype), logits), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_masks_of_255_are_refused(name):
    mask, logits = _batch()
    step = tf.function(lambda mask, logits: tf.reduce_mean(LOSSES[name](mask, logits)))
    for loss, dtype in ((LOSSES[name], np.uint8), (step, np.float32)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="mask: .* from 0 to 1 .*255"):
            loss(255 * mask.astype(dtype), logits)


@pytest.mark.parametrize("wrong", [-1, np.nan])
def test_masks_of_less_than_zero_or_nothing_are_refused(wrong):
    mask, logits = _batch()
    mask = mask.astype(np.float32)
    mask[0, 0, 0, 0] = wrong
    for loss in (entropy.bce, lambda mask, _: losses.presence_bce(mask, logits[:, 0, 0])):
        with pytest.raises(tf.errors.InvalidArgumentError, match="mask: expected"):
            loss(mask, logits)


@pytest.mark.parametrize("name", NAMES)
def test_blended_masks_are_welcome(name):
    mask, logits = _batch()
    value, gradient = _value_and_gradient(LOSSES[name], 0.7 * mask, logits)
    assert np.isfinite(value).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_sums_in_float16_would_overflow(name):
    # 256 x 257 ones are 65,792; the greatest float16 is 65,504.
    mask = np.ones([1, 256, 257, 1], np.uint8)
    value = LOSSES[name](mask, np.full(mask.shape, 20, np.float16))
    np.testing.assert_allclose(value, [0], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_great_logits_give_finite_values_and_gradients(name):
    for truth in (0, 1):
        mask = np.full([1, 2, 2, 1], truth, np.uint8)
        for logit in (-1e4, -100.0, 100.0, 1e4):
            value, gradient = _value_and_gradient(LOSSES[name], mask, np.full(mask.shape, logit))
            assert np.isfinite(value).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_finite_differences(name):
    mask, logits = _batch(size=(3, 4))
    rng = np.random.default_rng(1)
    _, gradient = _value_and_gradient(LOSSES[name], mask, logits)
    for _ in range(5):
        step = 0.001 * rng.choice([-1.0, 1.0], logits.shape).astype(np.float32)
        ahead, behind = (tf.reduce_sum(LOSSES[name](mask, logits + s)) for s in (step, -step))
        assert float(ahead - behind) / 2 == pytest.approx(
            np.sum(gradient * step), abs=2e-6, rel=0.01
        )


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_another_size_are_brought_to_the_mask(name):
    mask, _ = _batch(size=(8, 8))
    logits = np.random.default_rng(1).normal(size=(3, 4, 4, 4)).astype(np.float32)
    expected = LOSSES[name](mask, tf.image.resize(logits, [8, 8]))
    np.testing.assert_allclose(LOSSES[name](mask, logits), expected, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_costs_nothing(name):
    mask, _ = _batch()
    mask[0, ..., 0] = 0
    np.testing.assert_allclose(LOSSES[name](mask, 40.0 * mask - 20), [0] * 3, atol=1e-5)


def _all_values_and_gradients(mask, logits, names):
    """The mean loss over the global batch and its gradient, for every loss."""
    values = []
    for name in names:
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = LOSSES[name](mask, logits)
        values.append((value, tape.gradient(value, logits)))
    return values


@pytest.mark.slow
def test_graphs_of_any_size_and_xla_give_the_same():
    mask, logits = _batch()
    # XLA knows no sets of a size that the data decide, as those of components are.
    names = sorted({*NAMES} - {"distance_bce"})
    expected = _all_values_and_gradients(mask, tf.constant(logits), names)
    anything = tf.TensorSpec([None, None, None, 4])
    for xla in (False, True):
        step = tf.function(
            lambda mask, logits: _all_values_and_gradients(mask, logits, names), jit_compile=xla
        )
        if not xla:
            step = step.get_concrete_function(anything, anything)
        for got, wanted in zip(step(tf.cast(mask, tf.float32), tf.constant(logits)), expected):
            np.testing.assert_allclose(got[0], wanted[0], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(got[1], wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.lanes
def test_replicas_give_the_loss_and_gradient_of_one_device():
    names = ["bce", *BATCH_LOSSES]  # all others know but one image
    strategy = tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(NUM_DEVICES)],
        # The usual one cannot have several numbers of replicas in one process.
        tf.distribute.ReductionToOneDevice(),
    )
    step = None
    for num in (4, 3, 1):  # images: some replicas get fewer, or none
        mask, logits = _batch(num=num)
        whole = tf.data.Dataset.from_tensor_slices((mask, logits)).batch(4)
        batches = strategy.experimental_distribute_dataset(whole)
        if step is None:
            step = tf.function(
                lambda *batch: strategy.run(_all_values_and_gradients, args=(*batch, names))
            ).get_concrete_function(*batches.element_spec)
        (batch,) = batches
        expected = _all_values_and_gradients(mask, tf.constant(logits), names)
        for name, (values, gradients), wanted in zip(names, step(*batch), expected):
            for parts, whole in zip((values, gradients), wanted):
                parts = np.concatenate(strategy.experimental_local_results(parts))
                message = f"{name} of {num} images"
                np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6, err_msg=message)
