import warnings

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.training import distribution
from clouds_tf.training.adaptive import Lamb, Lookahead, RectifiedAdam

START = [np.float32([1.0, -2.0]), np.float32([[0.5], [3.0]])]
NUM_STEPS = 20
MAKERS = {
    "radam": lambda rate: RectifiedAdam(rate),
    "lamb": lambda rate: Lamb(rate, decay_rate=0.1),
    "lookahead": lambda rate: Lookahead(RectifiedAdam(rate)),
}
RATES = {
    "constant": lambda: 0.05,
    "schedule": lambda: keras.optimizers.schedules.CosineDecay(0.05, NUM_STEPS),
}


def _gradients(variables):
    return [4 * variable**3 for variable in variables]


def _steps(optimizer, variables, number, parts=1):
    for _ in range(number):
        gradients = [gradient / parts for gradient in _gradients(variables)]
        optimizer.apply_gradients(zip(gradients, variables))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", MAKERS)
def test_weights_equal_those_of_addons(name, rate):
    warnings.simplefilter("ignore")
    addons = pytest.importorskip("tensorflow_addons", reason="lane two has no addons")
    peer = addons.optimizers.RectifiedAdam(RATES[rate]())
    if name == "lookahead":
        peer = addons.optimizers.Lookahead(peer)
    elif name == "lamb":
        exempt = ["of_1_axis"]
        peer = addons.optimizers.LAMB(
            RATES[rate](), weight_decay=0.1, exclude_from_weight_decay=exempt
        )
    ours, theirs = (
        [tf.Variable(x, name=f"of_{x.ndim}_axis") for x in START] for _ in range(2)
    )
    _steps(MAKERS[name](RATES[rate]()), ours, NUM_STEPS)
    _steps(peer, theirs, NUM_STEPS)
    for found, expected, start in zip(ours, theirs, START):
        assert np.abs(found - start).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_two_replicas_step_as_one_does(name):
    single = [tf.Variable(x) for x in START]
    optimizer = MAKERS[name](0.05)
    optimizer.build(single)
    _steps(optimizer, single, NUM_STEPS)

    strategy = distribution.strategy("mirrored", 2)
    with strategy.scope():
        variables = [tf.Variable(x) for x in START]
        optimizer = MAKERS[name](0.05)
        optimizer.build(variables)
    step = tf.function(lambda: strategy.run(_steps, args=(optimizer, variables, 1, 2)))
    for _ in range(NUM_STEPS):
        step()
    for variable, expected in zip(variables, single):
        for local in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(local, expected, atol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_a_checkpoint_goes_on_as_if_undisturbed(name, tmp_path):
    def make():
        variables = [tf.Variable(x) for x in START]
        optimizer = MAKERS[name](0.05)
        optimizer.build(variables)
        return variables, optimizer, tf.train.Checkpoint(variables=variables, optimizer=optimizer)

    undisturbed, optimizer, _ = make()
    _steps(optimizer, undisturbed, NUM_STEPS)
    variables, optimizer, checkpoint = make()
    _steps(optimizer, variables, 7)
    path = checkpoint.save(str(tmp_path / "c"))
    variables, optimizer, checkpoint = make()
    checkpoint.restore(path).assert_consumed()
    _steps(optimizer, variables, NUM_STEPS - 7)
    for found, expected in zip(variables, undisturbed):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", MAKERS)
def test_a_compiled_model_comes_back_with_its_optimizer(name, tmp_path):
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    model.compile(MAKERS[name](0.05), "mse")
    data = np.float32([[1, 2], [3, 4]]), np.float32([[1], [0]])
    model.fit(*data, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.fit(*data, epochs=7, shuffle=False, verbose=0)
    for found, expected in zip(loaded.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(found, expected)


def test_lamb_steps_in_proportion_to_the_weights():
    # Of the first step of Adam each element is 1, with the sign of the gradient.
    weights = [np.float32([[3.0, 4.0]]), np.float32([[0.0, 0.0]]), np.float32([3.0, 4.0])]
    variables = [tf.Variable(x) for x in weights]
    optimizer = Lamb(0.1, decay_rate=0.0)
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.ones_like(x), x) for x in variables])
    for variable, start, change in zip(variables, weights, [0.5 / 2**0.5, 0.1, 0.1]):
        np.testing.assert_allclose(variable, start - change, rtol=1e-5)
