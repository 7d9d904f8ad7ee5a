import pytest
import tensorflow as tf
from conftest import NUM_DEVICES

from clouds_tf.training import distribution


def test_one_device():
    assert distribution.strategy().num_replicas_in_sync == 1


@pytest.mark.parametrize("num_devices", [1, 2, NUM_DEVICES])
def test_as_many_replicas_as_asked_for(num_devices):
    strategy = distribution.strategy("mirrored", num_devices)
    assert strategy.num_replicas_in_sync == num_devices


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="distribute: got 'horovod', expected"):
        distribution.strategy("horovod")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_is_that_of_new_layers(precision):
    try:
        distribution.set_precision(precision)
        dense = tf.keras.layers.Dense(1)
        assert dense(tf.ones([1, 2])).dtype == precision
        assert dense.kernel.dtype == tf.float32
    finally:
        distribution.set_precision("float32")


def test_a_seed_repeats_the_weights():
    def weights(seed):
        distribution.set_seed(seed)
        dense = tf.keras.layers.Dense(3)
        dense.build([1, 2])
        return dense.kernel.numpy().tolist()

    assert weights(1) == weights(1) != weights(2)
