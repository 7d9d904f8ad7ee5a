import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import NUM_DEVICES

from clouds_tf.keras import keras
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.training import distribution
from clouds_tf.training.averaging import MovingAverage, mean_applied

pytestmark = pytest.mark.lanes


def _model():
    image = keras.Input([4, 4, 1])
    return keras.Model(image, BatchNorm()(keras.layers.Conv2D(2, 1)(image)))


def _weights(model):
    return [weight.numpy() for weight in model.weights]


@pytest.mark.parametrize("arguments", [(), ("mirrored", NUM_DEVICES)])
@pytest.mark.parametrize("decay", [0.5, 0.05])
def test_the_average_is_that_of_numpy(arguments, decay):
    rng = np.random.default_rng(0)
    strategy = distribution.strategy(*arguments)
    with strategy.scope():
        model = _model()
        average = MovingAverage(model, decay)
    expected = _weights(model)

    update = tf.function(average.update)
    for step in range(1, 5):
        values = [rng.normal(size=value.shape).astype(np.float32) for value in expected]
        model.set_weights(values)
        update()
        rate = min(decay, (1 + step) / (10 + step))
        expected = [rate * old + (1 - rate) * new for old, new in zip(expected, values)]
    with average.applied():
        for found, right in zip(_weights(model), expected):
            np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
        for weight in model.trainable_weights:
            for copy in strategy.experimental_local_results(weight):
                np.testing.assert_array_equal(copy, weight)
    for found, right in zip(_weights(model), values):
        np.testing.assert_array_equal(found, right)


def test_the_weights_come_back_after_an_error():
    model = _model()
    average = MovingAverage(model, 0.9)
    model.set_weights([value + 1 for value in model.get_weights()])
    before = _weights(model)
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    for found, right in zip(_weights(model), before):
        np.testing.assert_array_equal(found, right)


def test_the_mean_of_the_last_epochs_is_swa_of_addons(tmp_path):
    addons = pytest.importorskip("tensorflow_addons", reason="lane two has no addons")
    steps_per_epoch, epochs, last = 3, 5, 2
    model, sgd = _model(), keras.optimizers.legacy.SGD(0.1)
    first = (epochs - last + 1) * steps_per_epoch  # the step that ends the first epoch to average
    swa = addons.optimizers.SWA(sgd, start_averaging=first - 1, average_period=steps_per_epoch)
    image, paths = np.float32(np.random.default_rng(0).normal(size=[8, 4, 4, 1])), []
    for step in range(1, epochs * steps_per_epoch + 1):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(image, training=True) - step) ** 2)
        weights = model.trainable_weights
        swa.apply_gradients(zip(tape.gradient(loss, weights), weights))
        if step % steps_per_epoch == 0:
            paths.append(tf.train.Checkpoint(model=model).save(str(tmp_path / f"{step}")))
    trained = [weight.numpy() for weight in model.trainable_weights]
    with mean_applied(model, paths[-last:]):
        ours = [weight.numpy() for weight in model.trainable_weights]
    swa.assign_average_vars(model.trainable_weights)
    for found, expected in zip(ours, model.trainable_weights):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert max(np.abs(mean - weight).max() for mean, weight in zip(ours, trained)) > 0.1


def test_the_mean_of_checkpoints(tmp_path):
    model, paths, values = _model(), [], []
    for i in range(3):
        model.set_weights([value + i for value in model.get_weights()])
        values.append(_weights(model))
        paths.append(tf.train.Checkpoint(model=model).save(str(tmp_path / f"{i}")))
    model.set_weights([value - 7 for value in model.get_weights()])
    before = _weights(model)
    with mean_applied(model, paths):
        for found, *all_three in zip(_weights(model), *values):
            np.testing.assert_allclose(found, np.mean(all_three, axis=0), rtol=1e-6)
    for found, right in zip(_weights(model), before):
        np.testing.assert_array_equal(found, right)
