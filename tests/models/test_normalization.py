import functools

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.training import distribution

pytestmark = pytest.mark.lanes

CHANNELS = 3


@functools.lru_cache(maxsize=None)
def _step(num, *devices, size=(16, 24), precision="float32", like=None, **arguments):
    """One step forward and back on parts of some images: a dict of arrays of the whole batch.

    The objective weighs every output differently, so that no gradient is zero.
    """
    strategy = distribution.strategy(*devices)
    images = _images(num) if like is None else _alike(num, *like)
    images = images[:, : size[0], : size[1]]
    with distribution.precision(precision), strategy.scope():
        layer = BatchNorm(momentum=0.5, **arguments)
        layer.build([None, *images.shape[1:]])
    for weight in layer.trainable_weights:
        weight.assign(np.linspace(0.5, 2, CHANNELS))
    ramp = np.random.default_rng(1).normal(size=images.shape).astype(np.float32)

    def on_replica(part, weights):
        part = tf.cast(part, layer.compute_dtype)
        with tf.GradientTape() as tape:
            tape.watch(part)
            outputs = layer(part, training=True)
            objective = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
        of_part, *of_weights = tape.gradient(objective, [part, *layer.trainable_weights])
        of_weights = tf.distribute.get_replica_context().all_reduce("SUM", of_weights)
        return tf.cast(outputs, tf.float32), tf.cast(of_part, tf.float32), of_weights

    @tf.function
    def step(part, weights):
        return strategy.run(on_replica, (part, weights))

    whole = tf.data.Dataset.from_tensors((images, ramp))
    batches = distribution.distribute_batches(strategy, lambda *worker: whole)
    outputs, of_images, of_weights = step(*next(iter(batches)))
    local = strategy.experimental_local_results
    return {
        "outputs": np.concatenate(local(outputs)),
        "gradient of images": np.concatenate(local(of_images)),
        "gradient of weights": np.array([local(gradient)[0] for gradient in of_weights]),
        "weights": np.array([weight.numpy() for weight in layer.weights]),
    }


def _images(num):
    """Random images, each brighter than the one before it, so that replicas differ."""
    images = np.random.default_rng(0).normal(5, 1, [num, 16, 24, CHANNELS]).astype(np.float32)
    return images * np.arange(1, num + 1, dtype=np.float32)[:, None, None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    "num, arguments",  # images: two and two, one and two, none and one
    [(4, {}), (3, {}), (1, {}), (3, {"scale": False}), (1, {"center": False})],
)
def test_two_replicas_are_as_one(num, arguments):
    one = _step(num, **arguments)
    two = _step(num, "mirrored", 2, **arguments)
    for name, expected in one.items():
        limit = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(two[name], expected, atol=limit, err_msg=name)


def _alike(num, mean, deviation):
    """Random images that are all of the same mean and deviation."""
    shape = [num, 16, 24, CHANNELS]
    return np.random.default_rng(2).normal(mean, deviation, shape).astype(np.float32)


@pytest.mark.parametrize("like", [(100, 0.01), (-3, 1e-3), (0.5, 5e-5), (0, 1)])
def test_several_replicas_are_nearly_as_exact_as_one(like):
    """Against float64; a difference of sums would be off by 8 deviations."""
    exact, axes = _alike(6, *like).astype(np.float64), (0, 1, 2)
    factor = np.linspace(0.5, 2, CHANNELS) / np.sqrt(exact.var(axes) + 1e-12)
    expected = (exact - exact.mean(axes)) * factor + np.linspace(0.5, 2, CHANNELS)
    one, two = (
        np.abs(_step(6, *devices, like=like, epsilon=1e-12)["outputs"] - expected).max()
        for devices in ((), ("mirrored", 2))
    )
    assert two <= 2 * one + 1e-6


@pytest.mark.parametrize("num", [2, 1])
def test_maps_of_one_pixel(num):
    one = _step(num, size=(1, 1))
    two = _step(num, "mirrored", 2, size=(1, 1))
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-5)
    assert np.isfinite(two["gradient of images"]).all()


@pytest.mark.parametrize(
    "precision, tolerance, num",
    [("bfloat16", 0.02, 3), ("float16", 0.003, 4), ("float16", 0.003, 1)],
)
def test_half_precision_keeps_its_statistics_in_float32(precision, tolerance, num):
    exact = _step(num)
    one = _step(num, precision=precision)
    half = _step(num, "mirrored", 2, precision=precision)
    np.testing.assert_allclose(half["outputs"], one["outputs"], rtol=0.01, atol=0.03)
    np.testing.assert_allclose(half["weights"], exact["weights"], rtol=1e-3)
    for name in ("outputs", "gradient of images"):
        limit = tolerance * np.abs(exact[name]).max()
        np.testing.assert_allclose(half[name], exact[name], atol=limit, err_msg=name)


def test_on_replicas_a_frozen_layer_infers():
    strategy = distribution.strategy("mirrored", 2)
    with strategy.scope():
        layer = BatchNorm()
        layer.build([None, 16, 24, CHANNELS])
    layer.trainable = False
    found = strategy.run(lambda: layer(tf.constant(_images(2)), training=True))
    for part in strategy.experimental_local_results(found):
        np.testing.assert_allclose(part, _images(2) / np.sqrt(1.001), rtol=1e-5)


def test_it_is_saved_and_loaded_like_keras_own(tmp_path):
    model = keras.Sequential([keras.Input([8, 8, CHANNELS]), BatchNorm(name="bn")])
    model(tf.constant(_images(2)[:, :8, :8]), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    peer = keras.layers.BatchNormalization()
    peer.build([None, 8, 8, CHANNELS])
    peer.set_weights(loaded.get_weights())
    images = _images(2)[:, :8, :8]
    np.testing.assert_array_equal(loaded(images), peer(images))
