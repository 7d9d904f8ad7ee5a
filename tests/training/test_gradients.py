"""Accumulated gradients equal those of the whole batch."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from program import SIZE, batches, network

from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.training import Recipe, distribution
from clouds_tf.training.gradients import accumulated, check_accumulation, whole
from clouds_tf.training.optimizers import make_optimizer
from clouds_tf.training.steps import Meter, training_step


def _network():
    """Two convolutions without batch norm, and two heads."""
    image = keras.Input([*SIZE, 3])
    x = keras.layers.Rescaling(1 / 64, offset=-1)(image)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Conv2D(4, 3, padding="same", dtype="float32", name="logits")(x)
    presence = keras.layers.Dense(4, dtype="float32", name="presence")(pooled)
    return keras.Model(image, {"logits": logits, "presence_logits": presence})


# All tests of a process use as many devices: TensorFlow refuses groups of two sizes.
@functools.lru_cache(maxsize=None)
def _stepped(accumulate, num_devices=None, size=7, precision="float32"):
    """The weights, the loss and the metrics after a step."""
    strategy = distribution.strategy("mirrored" if num_devices else "none", num_devices)
    with distribution.precision(precision), strategy.scope():
        keras.utils.set_random_seed(3)
        model = _network()
        optimizer = make_optimizer("sgd", 0.1, model.trainable_variables)
        meter = Meter(model, [])
        loss = losses.parse("bce+batch_dice+lovasz")  # the second needs the whole batch
        step = training_step(model, optimizer, loss, meter, clip_norm=0.1, accumulate=accumulate)
        data = distribution.distribute_batches(strategy, lambda *part: batches([size], *part))
        value, _ = step(*next(iter(data)), tf.constant(0.0))
        return [weight.numpy() for weight in model.weights], float(value), meter.result()


@pytest.mark.slow
@pytest.mark.parametrize(
    "accumulate, settings",
    [
        (3, {}),
        (9, {}),  # two parts are empty
        (2, {"num_devices": 2, "size": 3}),  # one part is empty
        (2, {"precision": "float16"}),
    ],
)
def test_a_step_in_parts_equals_a_step_on_the_whole_batch(accumulate, settings):
    found = _stepped(accumulate, **settings)
    expected = _stepped(1, **{**settings, "num_devices": None})
    tolerance = 1e-5 if "precision" not in settings else 2e-3
    for one, other in zip(found[0], expected[0]):
        np.testing.assert_allclose(one, other, atol=tolerance)
    assert found[1] == pytest.approx(expected[1], abs=tolerance)
    assert found[2] == pytest.approx(expected[2], abs=tolerance)


def test_batch_norm_counts_each_part_once():
    model, momentum = network(), 0.99  # of Keras
    ((images, _),) = batches([6])
    inner = keras.Model(model.input, model.get_layer("bn").input)
    expected = model.get_layer("bn").moving_mean.numpy()
    for part in (images[:3], images[3:]):
        expected = momentum * expected + (1 - momentum) * inner(part).numpy().mean((0, 1, 2))

    def measure(outputs):
        total = tf.add_n([tf.reduce_mean(tf.square(values)) for values in outputs.values()])
        return total, total, {}

    tf.function(lambda: accumulated(model, images, measure, 2)[2])()
    np.testing.assert_allclose(model.get_layer("bn").moving_mean, expected, rtol=1e-4, atol=1e-6)
    one, other = whole(model, images, measure)[0], accumulated(model, images, measure, 1)[0]
    for left, right in zip(one, other):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3)


def test_what_cannot_be_exact_is_refused():
    with pytest.raises(ValueError, match="^xla: got accumulate=2 as well"):
        Recipe(xla=True, accumulate=2)
    image = keras.Input([*SIZE, 3])
    logits = keras.layers.Dropout(0.5, name="drop")(keras.layers.Conv2D(4, 1)(image))
    model = keras.Model(image, {"logits": logits})
    with pytest.raises(ValueError, match="^accumulate: the layer drop draws random numbers"):
        check_accumulation(model)
