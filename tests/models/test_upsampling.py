import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.upsampling import UpsampleConv, spread_kernel

pytestmark = pytest.mark.lanes

RNG = np.random.default_rng(0)
X = RNG.normal(size=[2, 3, 4, 6])
KERNEL = RNG.normal(size=[3, 3, 11, 7])
SKIP = RNG.normal(size=[2, 6, 8, 5])
BIAS = RNG.normal(size=7)


def _plainly(x, kernel, skip):
    """Upsampled, joined and convolved, one after the other."""
    x = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
    return tf.nn.conv2d(tf.concat([x, skip], axis=3), kernel, 1, "SAME")


def _layer(inputs, weights, **kwargs):
    layer = UpsampleConv(7, dtype="float64", **kwargs)
    layer(inputs)
    layer.set_weights(weights)
    return layer


@pytest.mark.parametrize("skip_channels", [0, 5])
def test_one_convolution_of_upsampled_and_joined_maps(skip_channels):
    skip, kernel = SKIP[..., :skip_channels], KERNEL[:, :, : 6 + skip_channels]
    inputs = [X, skip] if skip_channels else X
    expected = _plainly(X, kernel, skip)
    np.testing.assert_allclose(_layer(inputs, [kernel])(inputs), expected, atol=1e-12)
    with_bias = _layer(inputs, [kernel, BIAS], use_bias=True)
    np.testing.assert_allclose(with_bias(inputs), expected + BIAS, atol=1e-12)
    up, rest = spread_kernel(tf.constant(kernel), 6)
    fused = _layer(inputs, [up, rest][: len(inputs) if skip_channels else 1], fused=True)
    np.testing.assert_allclose(fused(inputs), expected, atol=1e-12)


def test_gradients_are_those_of_the_plain_way():
    layer = _layer([X, SKIP], [KERNEL])
    weight = RNG.normal(size=[2, 6, 8, 7])
    gradients = []
    for ours in (True, False):
        x, skip = tf.constant(X), tf.constant(SKIP)
        with tf.GradientTape() as tape:
            tape.watch([x, skip])
            y = layer([x, skip]) if ours else _plainly(x, layer.kernel, skip)
            loss = tf.reduce_sum(weight * y)
        gradients.append(tape.gradient(loss, [x, skip, layer.kernel]))
    for got, expected in zip(*gradients):
        np.testing.assert_allclose(got, expected, atol=1e-12)


def test_the_layer_comes_back_from_its_config():
    layer = UpsampleConv(7, use_bias=True, fused=True, name="up")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()


def test_configurations_of_version_0_1_are_read():
    assert UpsampleConv.from_config({"filters": 8, "folded": True}).fused
    assert not UpsampleConv.from_config({"filters": 8, "use_bias": True}).fused
