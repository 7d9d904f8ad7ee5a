import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.training import distribution
from clouds_tf.training.optimizers import scale_learning_rate

pytestmark = pytest.mark.lanes

OPTIMIZERS = ["SGD", "Nadam", "AdamW", "RMSprop"]


def _train(optimizer, factor=None, scale="first", wrap=lambda optimizer: optimizer):
    """Two variables with the same start and gradients: their changes by a step."""
    start = np.float32([1, -2, 3])
    first, second = (tf.Variable(start, name=name) for name in ("first", "second"))
    if factor is not None:
        scale_learning_rate(optimizer, [first if scale == "first" else second], factor)
    optimizer = wrap(optimizer)
    optimizer.build([first, second])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(first**2) + tf.reduce_sum(second**2)
        variables = [first, second]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    step()
    return first.numpy() - start, second.numpy() - start


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("factor", [0, 0.1, 1, 3])
def test_the_change_is_scaled_whatever_the_optimizer(name, factor):
    arguments = {"weight_decay": 0} if name == "AdamW" else {}
    changes = _train(getattr(keras.optimizers, name)(0.01, **arguments), factor)
    assert np.abs(changes[1]).min() > 1e-4
    np.testing.assert_allclose(changes[0], factor * changes[1], rtol=1e-3, atol=1e-7)


def test_other_variables_step_as_without_it():
    plain = _train(keras.optimizers.Nadam(0.01))
    scaled = _train(keras.optimizers.Nadam(0.01), 0.1, scale="second")
    np.testing.assert_array_equal(plain[0], scaled[0])


def test_it_equals_a_learning_rate_of_its_own_in_a_long_run():
    def run(learning_rate, factor):
        variable = tf.Variable([1.0, -2.0], name="only")
        optimizer = keras.optimizers.Nadam(learning_rate)
        if factor:
            scale_learning_rate(optimizer, [variable], factor)
        optimizer.build([variable])
        for _ in range(20):
            optimizer.apply_gradients([(2 * variable, variable)])
        return variable.numpy()

    np.testing.assert_allclose(run(0.1, 0.1), run(0.01, None), rtol=1e-5)


def test_it_works_inside_loss_scaling():
    def wrapped(optimizer):
        return keras.mixed_precision.LossScaleOptimizer(optimizer, False, 8)

    changes = _train(keras.optimizers.SGD(0.01), 0.1, wrap=wrapped)
    np.testing.assert_allclose(changes[0], 0.1 * changes[1], rtol=1e-3)


def test_it_works_on_every_replica():
    strategy = distribution.strategy("mirrored", 2)
    with strategy.scope():
        first, second = (tf.Variable([1.0, 2.0], name=name) for name in ("first", "second"))
        optimizer = keras.optimizers.Adam(0.01)
        scale_learning_rate(optimizer, [first], 0.1)
        optimizer.build([first, second])

    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(first**2) + tf.reduce_sum(second**2)
        variables = [first, second]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    tf.function(lambda: strategy.run(step))()
    for one, other in zip(first.values, second.values):
        assert (other.numpy() < [1, 2]).all()
        np.testing.assert_allclose(one - [1, 2], 0.1 * (other - [1, 2]), rtol=1e-3)
