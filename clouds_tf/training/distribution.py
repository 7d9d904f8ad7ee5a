"""Devices and numeric precision of a training."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator

import tensorflow as tf

from clouds_tf.keras import keras

# Name -> policy of Keras.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("none", "mirrored", "multi_worker")
_STOP_GRACE = 20.0  # seconds; clusters that announce the end of a machine give 30 or more


# One of a kind in a process: TensorFlow numbers the sums over replicas of every MirroredStrategy
# from the same start, and stops where those of a second one have other shapes.
@functools.lru_cache(maxsize=None)
def strategy(distribute="none", num_devices=None):
    """Makes the tf.distribute strategy of a run; asked again, it gives the same.

    Args:
        distribute: "none"; "mirrored" for all GPUs of this machine; or "multi_worker" for those of
            all machines that the environment variable TF_CONFIG names, one process on each.
        num_devices: under "mirrored", how many GPUs; on a machine without one, how many logical CPU
            devices to try it out with. None takes every GPU, or the one CPU.

    Returns:
        A tf.distribute.Strategy.

    Raises:
        ValueError: more devices than there are GPUs, an unknown strategy, or a TF_CONFIG that does
            not say which workers there are and which one this is.
        RuntimeError: the CPU is in use already and cannot be divided any more.
    """
    if distribute == "none":
        return tf.distribute.get_strategy()
    if distribute == "multi_worker":
        _check_cluster(os.environ.get("TF_CONFIG", ""))
        return tf.distribute.MultiWorkerMirroredStrategy()
    if distribute != "mirrored":
        raise ValueError(
            f"distribute: got {distribute!r}, expected 'none', 'mirrored' or 'multi_worker'"
        )
    if num_devices is None:
        return tf.distribute.MirroredStrategy()
    gpus = tf.config.list_physical_devices("GPU")
    if gpus and num_devices > len(gpus):
        raise ValueError(f"num_devices: got {num_devices}, expected 1 to {len(gpus)} (GPUs here)")
    if not gpus:
        _divide_cpu(num_devices)
    kind = "GPU" if gpus else "CPU"
    return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(num_devices)])


def _divide_cpu(num_devices):
    """Makes that many logical devices of the CPU, unless there are enough already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) < num_devices:
        logical = [tf.config.LogicalDeviceConfiguration()] * num_devices
        tf.config.set_logical_device_configuration(cpu, logical)


def _check_cluster(config):
    """Raises ValueError unless TF_CONFIG names this worker among all workers."""
    expected = 'expected {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", '
    try:
        config = json.loads(config)
        workers, task = config["cluster"]["worker"], config["task"]
        known = task["type"] == "worker" and 0 <= task["index"] < len(workers)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f'TF_CONFIG: got {config!r}, {expected}"index": 0}}}}')


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes what all see: the first worker, or the only one."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def stop_grace(strategy: tf.distribute.Strategy) -> float | None:
    """Seconds that a worker told to stop may wait for others; None where there are no others."""
    return _STOP_GRACE if _num_workers(strategy) > 1 else None


def _num_workers(strategy: tf.distribute.Strategy) -> int:
    resolver = strategy.cluster_resolver
    workers = resolver.cluster_spec().as_dict().get("worker", []) if resolver else []
    return max(1, len(workers))


@contextlib.contextmanager
def restarting(distribute):
    """A context for a run that outlives the loss of a worker.

    TensorFlow does not let a worker join those that are running. So where one is lost, which the
    others learn within a minute, each of them starts its program again with the same arguments; it
    waits for the lost one to come back, and goes on from the last checkpoint.

    Args:
        distribute: as `strategy` has it; nothing happens unless it is "multi_worker".
    """
    try:
        yield
    except tf.errors.UnavailableError:
        if distribute != "multi_worker":
            raise
        print("A worker was lost; starting again, from the last checkpoint, when it is back")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.argv])


def distribute_batches(strategy, make_batches):
    """Gives every replica its part of every batch.

    Args:
        strategy: a tf.distribute.Strategy.
        make_batches: a function (worker, num_workers) -> tf.data.Dataset of that worker's part of
            every global batch; all workers' datasets have as many elements.

    Returns:
        A tf.distribute.DistributedDataset. Parts differ by one image at most, and are empty where
        there are fewer images than replicas.
    """

    def of_this_worker(context):
        num_workers = context.num_input_pipelines
        batches = make_batches(context.input_pipeline_id, num_workers)
        return _divide(batches, context.num_replicas_in_sync // num_workers)

    return strategy.distribute_datasets_from_function(of_this_worker)


def _divide(batches, parts):
    """Cuts each batch into that many, one after the other, as even as can be."""
    if parts == 1:
        return batches

    def cut(*batch):
        size = tf.shape(batch[0], tf.int64)[0]

        def part(i):
            return tuple(x[size * i // parts : size * (i + 1) // parts] for x in batch)

        return tf.data.Dataset.range(parts).map(part)

    return batches.flat_map(cut)


def set_deterministic():
    """Makes every operation give the same bits each time; some are slower then, a few refuse."""
    tf.config.experimental.enable_op_determinism()


def set_precision(precision: str) -> None:
    """Sets the precision in which models compute that are built from now on.

    Weights, batch-norm statistics, logits and losses stay float32; float16 scales the loss.

    Args:
        precision: "float32", "bfloat16" or "float16".
    """
    if precision not in PRECISIONS:
        expected = ", ".join(PRECISIONS)
        raise ValueError(f"precision: got {precision!r}, expected one of {expected}")
    keras.mixed_precision.set_global_policy(PRECISIONS[precision])


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Context in which models are built to compute in a precision, as `set_precision` has it."""
    before = keras.mixed_precision.global_policy()
    set_precision(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def set_seed(seed: int) -> None:
    """Makes the weights of the models that are built from now on repeatable."""
    keras.utils.set_random_seed(seed)
