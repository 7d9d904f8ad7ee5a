"""Optimizers of tensorflow-addons in our training step; lane two has none."""

import numpy as np
import pytest
import tensorflow as tf
from program import batches, trainer
from shared_fixtures import LANE_ONE

from clouds_tf import files
from clouds_tf.keras import keras
from clouds_tf.training import distribution
from clouds_tf.training.checkpoints import Checkpoints
from clouds_tf.training.optimizers import make_optimizer

needs_addons = pytest.mark.skipif(not LANE_ONE, reason="addons works with TensorFlow 2.15")
pytestmark = [pytest.mark.slow, pytest.mark.lanes]
SIZES = [4, 2, 4]


def _run(name, strategy=None, precision="float32"):
    """A trainer of the network of program.py."""
    strategy = strategy or distribution.strategy()
    with strategy.scope(), distribution.precision(precision):
        return trainer(len(SIZES), optimizer=name, learning_rate=0.01)


def _train(run, start=0, stop=len(SIZES)):
    """Takes some steps; gives the weights."""
    data = distribution.distribute_batches(
        run.strategy, lambda worker, count: batches(SIZES, worker, count).skip(start)
    )
    if not start:
        run.trace(data, data)
    for _, (images, masks) in zip(range(start, stop), data):
        run.step(images, masks, tf.constant(0.0))
    return [weight.numpy() for weight in run.model.weights]


@needs_addons
@pytest.mark.parametrize("name", ["lookahead", "addons:NovoGrad"])  # the first around RAdam
def test_replicas_and_resumed_runs_step_as_one_does(name, tmp_path):
    run = _run(name)
    _train(run, stop=2)
    Checkpoints(str(tmp_path), run.model, run).save_last()
    expected = _train(run, start=2)
    assert int(run.optimizer.iterations) == len(SIZES)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(_train(run, start=2)[0], expected[0], atol=1e-4)
    # The same functions go on from the checkpoint, into which nothing of the last steps goes.
    Checkpoints(str(tmp_path), run.model, run).restore_last([{"val_dice": 0.0}])
    for found, right in zip(_train(run, start=2), expected):
        np.testing.assert_array_equal(found, right)
    for found, right in zip(_train(_run(name, distribution.strategy("mirrored", 2))), expected):
        np.testing.assert_allclose(found, right, atol=2e-4)


@needs_addons
def test_a_new_optimizer_takes_the_state_of_a_checkpoint(tmp_path):
    for name in ("lookahead", "addons:NovoGrad"):
        run, other = _run(name), _run(name)
        for variable in run.optimizer.weights:
            variable.assign(tf.ones_like(variable) * 3)
        Checkpoints(str(tmp_path / name), run.model, run).save_last()
        Checkpoints(str(tmp_path / name), other.model, other).restore_last([{"val_dice": 0.0}])
        assert len(other.optimizer.weights) > 4
        for variable in other.optimizer.weights:
            assert (variable.numpy() == 3).all(), variable.name


@needs_addons
def test_float16_scales_the_loss():
    run = _run("addons:NovoGrad", precision="float16")
    assert isinstance(run.optimizer, keras.mixed_precision.LossScaleOptimizer)
    before = run.model.weights[0].numpy()
    after = _train(run, stop=1)
    assert all(np.isfinite(weight).all() for weight in after)
    assert np.abs(after[0] - before).max() > 1e-4


@needs_addons
@pytest.mark.parametrize("num_replicas", [1, 2])
@pytest.mark.parametrize("name", ["addons:NovoGrad", "addons:Yogi", "lamb"])
def test_only_kernels_decay(name, num_replicas):
    """Without a gradient, what moves is what decays."""
    strategy = distribution.strategy(*(("mirrored", 2) if num_replicas == 2 else ()))
    with strategy.scope():
        kernel = tf.Variable([[2.0, -1.0]], name="conv/kernel")
        bias = tf.Variable([2.0, -1.0], name="conv/bias")
        optimizer = make_optimizer(name, 0.1, [kernel, bias], weight_decay=0.5)

    def step():
        zeros = [tf.zeros_like(kernel), tf.zeros_like(bias)]
        optimizer.apply_gradients(
            zip(zeros, [kernel, bias]), experimental_aggregate_gradients=False
        )

    tf.function(lambda: strategy.run(step))()
    for local in strategy.experimental_local_results(bias):
        np.testing.assert_array_equal(local, [2.0, -1.0])
    # By 0.1 * 0.5 of the weights; LAMB's step has the norm of the weights, whatever the decay.
    rate = 0.1 if name == "lamb" else 0.05
    for local in strategy.experimental_local_results(kernel):
        np.testing.assert_allclose(local, [[2 * (1 - rate), -(1 - rate)]], rtol=1e-5)


def test_another_tensorflow_and_a_missing_package_are_named(monkeypatch):
    monkeypatch.setattr(tf, "__version__", "2.21.0")
    variables = [tf.Variable([1.0])]
    with pytest.raises(ValueError, match="^optimizer: radam needs TensorFlow 2.15 .* got 2.21.0"):
        make_optimizer("radam", 0.1, variables)
    monkeypatch.setattr(tf, "__version__", "2.15.1")
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^optimizer: addons:Yogi needs the package tensorflow-ad"):
        make_optimizer("addons:Yogi", 0.1, variables)
    with pytest.raises(ValueError, match="optimizer: got 'addons:SWA', expected one of .*NovoGrad"):
        make_optimizer("addons:SWA", 0.1, variables)
