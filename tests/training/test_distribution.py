import json

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import NUM_DEVICES

from clouds_tf.keras import keras
from clouds_tf.training import distribution

pytestmark = pytest.mark.lanes


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
        dense = keras.layers.Dense(1)
        assert dense(tf.ones([1, 2])).dtype == precision
        assert dense.kernel.dtype == tf.float32
    finally:
        distribution.set_precision("float32")


@pytest.mark.parametrize("config", ["", "{}", "[1]", '{"cluster": {"worker": ["a:1"]}}', "a"])
def test_a_cluster_that_is_not_described_is_refused(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=r'TF_CONFIG: got .*, expected \{"cluster": .*"index": 0'):
        distribution.strategy("multi_worker")


@pytest.mark.parametrize("worker, index", [("a:1", 1), ("a", 0)])
def test_a_worker_beyond_the_last_or_without_a_port_is_refused(monkeypatch, worker, index):
    task = {"cluster": {"worker": [worker]}, "task": {"type": "worker", "index": index}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    with pytest.raises(ValueError, match="TF_CONFIG"):
        distribution.strategy("multi_worker")


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_every_replica_has_its_part_of_every_batch(size):
    strategy = distribution.strategy("mirrored", NUM_DEVICES)
    batch = tf.random.stateless_uniform([size, 2, 2, 1], [1, 2])
    calls = []

    def make_batches(worker, num_workers):
        calls.append((worker, num_workers))
        return tf.data.Dataset.from_tensors((batch, batch * 2)).repeat(2)

    for images, masks in distribution.distribute_batches(strategy, make_batches):
        parts = strategy.experimental_local_results(images)
        assert sorted(len(part) for part in parts) == [
            (size + i) // NUM_DEVICES for i in range(NUM_DEVICES)
        ]
        np.testing.assert_array_equal(tf.concat(parts, axis=0), batch)
        masks = tf.concat(strategy.experimental_local_results(masks), axis=0)
        np.testing.assert_array_equal(masks, batch * 2)
    assert calls == [(0, 1)]


def test_one_process_is_the_chief():
    assert distribution.is_chief(distribution.strategy())
    assert distribution.is_chief(distribution.strategy("mirrored", 2))


def test_the_precision_is_that_of_before_after_the_block():
    with pytest.raises(RuntimeError), distribution.precision("bfloat16"):
        assert keras.layers.Dense(1)(tf.ones([1, 2])).dtype == tf.bfloat16
        raise RuntimeError
    assert keras.layers.Dense(1)(tf.ones([1, 2])).dtype == tf.float32
    with pytest.raises(ValueError, match="precision: got 'half', expected one of float32, "):
        distribution.set_precision("half")


def test_what_gpus_cannot_do_deterministically_is_refused(monkeypatch):
    distribution.check_deterministic(True, 4)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    distribution.check_deterministic(False, 1)
    for arguments in ((True, 1), (False, 2)):
        with pytest.raises(ValueError, match="deterministic: TensorFlow has no deterministic grad"):
            distribution.check_deterministic(*arguments)
