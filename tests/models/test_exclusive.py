"""Exclusive classes: a softmax over the classes and the background, in the form of log odds."""

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import strategies as st

from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.losses import entropy, overlap
from clouds_tf.models.probabilities import for_masks
from clouds_tf.models.unet import LogOdds, unet
from clouds_tf.prediction.fusing import fuse
from clouds_tf.prediction.postprocessing import Rule, postprocess

pytestmark = pytest.mark.lanes


def _scores(seed=0, shape=(2, 3, 4, 3), scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def _softmax(scores):
    """Probabilities of the classes and, last, of the background, in float64."""
    background = np.zeros([*scores.shape[:-1], 1])
    return scipy.special.softmax(np.concatenate([scores, background], axis=-1), axis=-1)


def _log_odds(scores):
    return tf.concat(LogOdds()(tf.constant(scores)), axis=-1)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(
    hnp.arrays(np.float32, (1, 1, 2, 4), elements=st.floats(-30, 30, width=32)),
)
def test_the_sigmoid_of_log_odds_is_the_softmax(scores):
    expected = _softmax(scores)
    found = _log_odds(scores).numpy().astype(np.float64)
    np.testing.assert_allclose(scipy.special.expit(found), expected, rtol=3e-5, atol=1e-30)
    # Of probabilities next to 1, too: the others' are not lost.
    rest = [np.delete(expected, i, axis=-1).sum(axis=-1) for i in range(5)]
    np.testing.assert_allclose(scipy.special.expit(-found), np.stack(rest, -1), rtol=3e-5)


def test_of_one_class_it_is_the_logit_and_great_scores_stay_finite():
    scores = _scores(shape=(1, 2, 2, 1))
    np.testing.assert_allclose(_log_odds(scores)[..., :1], scores, rtol=1e-5, atol=1e-6)
    great = np.float32([[[[1e4, -1e4, 9e3]], [[-1e4, -1e4, -1e4]]]])
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(great))
        value = losses.parse("cce+dice")(np.zeros(great.shape), _log_odds(variable))
    assert np.isfinite(value).all() and np.isfinite(tape.gradient(value, variable)).all()


def _truth(seed=1, shape=(2, 3, 4, 3)):
    """Masks of classes that exclude each other."""
    values = np.random.default_rng(seed).integers(0, shape[-1] + 1, shape[:-1])
    return (values[..., np.newaxis] == np.arange(shape[-1])).astype(np.uint8)


def test_cross_entropy_and_its_gradient_are_those_of_the_softmax():
    scores, truth = _scores(), _truth()
    labels = np.concatenate([truth, 1 - truth.sum(axis=-1, keepdims=True)], axis=-1)
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(scores))
        value = entropy.cce(truth, _log_odds(variable))
    padded = tf.concat([scores, tf.zeros_like(scores[..., :1])], axis=-1)
    expected = tf.nn.softmax_cross_entropy_with_logits(labels.astype(np.float32), padded)
    np.testing.assert_allclose(value, tf.reduce_mean(expected, axis=[1, 2]), rtol=1e-5)
    pixels = truth.shape[1] * truth.shape[2]
    slope = (_softmax(scores) - labels)[..., :-1] / pixels
    np.testing.assert_allclose(tape.gradient(value, variable), slope, rtol=1e-4, atol=1e-7)


def test_a_confident_mistake_on_the_background_keeps_its_gradient():
    # Two classes share a pixel of the background, which has 1e-13 left.
    scores = np.float32([[[[30, 30]]]])
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(scores))
        value = entropy.cce(np.zeros([1, 1, 1, 2]), _log_odds(variable))
    np.testing.assert_allclose(value, [30 + np.log(2)], rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(value, variable), [[[[0.5, 0.5]]]], rtol=1e-4)


def test_other_losses_see_the_classes_alone():
    log_odds, truth = _log_odds(_scores()), _truth()
    q = _softmax(_scores())[..., :-1]
    expected = 1 - (2 * (truth * q).sum((1, 2)) + 1) / (truth.sum((1, 2)) + q.sum((1, 2)) + 1)
    np.testing.assert_allclose(overlap.dice(truth, log_odds), expected.mean(axis=1), rtol=1e-5)
    for name in sorted({*losses.LOSSES} - {"cce"}):
        loss = losses.LOSSES[name]
        np.testing.assert_array_equal(loss(truth, log_odds), loss(truth, log_odds[..., :-1]))


def test_categorical_cross_entropy_of_independent_classes_is_refused():
    with pytest.raises(ValueError, match="cce needs all classes at once, and exclusive ones"):
        losses.parse("cce+dice")(_truth(), _scores())
    with pytest.raises(ValueError, match="no class_weights"):
        losses.ByClass(losses.parse("cce"), (1.0, 1.0, 1.0))(_truth(), _log_odds(_scores()))


def test_the_network_gives_log_odds_fused_or_not():
    keras.utils.set_random_seed(0)
    model = unet(3, 0.125, "tiny", exclusive=True)
    images = np.random.default_rng(0).integers(0, 256, [2, 40, 50, 3], np.uint8)
    found = model(images)
    assert found["logits"].shape == (2, 40, 50, 3)
    assert found["background_logits"].shape == (2, 40, 50, 1)
    total = tf.reduce_sum(tf.sigmoid(tf.concat([*found.values()], axis=-1)), axis=-1)
    np.testing.assert_allclose(total, 1, rtol=1e-5)
    for name, maps in fuse(model)(images).items():
        np.testing.assert_allclose(maps, found[name], atol=1e-4)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    hnp.arrays(np.float32, (2, 3, 3, 4), elements=st.sampled_from([0, 0.125, 0.25, 0.375, 0.625])),
    st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5]), min_size=4, max_size=4),
)
def test_masks_never_overlap_and_are_the_most_probable_classes(probabilities, thresholds):
    rules = [Rule(threshold) for threshold in thresholds]
    kept = for_masks(probabilities, exclusive=True)
    np.testing.assert_array_equal(kept, for_masks(tf.constant(probabilities), exclusive=True))
    masks = postprocess(probabilities, rules, exclusive=True).numpy()
    assert masks.sum(axis=-1).max() <= 1
    best = probabilities.argmax(axis=-1)
    for i, threshold in enumerate(thresholds):
        wanted = (best == i) & (probabilities[..., i] > np.float32(threshold))
        np.testing.assert_array_equal(masks[..., i], wanted)
    assert for_masks(probabilities, exclusive=False) is probabilities
