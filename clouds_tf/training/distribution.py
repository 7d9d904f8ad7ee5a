"""Devices and numeric precision of a training."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.training import workers

# Name -> policy of Keras.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("none", "mirrored", "multi_worker")
_STOP_GRACE = 20.0  # seconds; clusters that announce the end of a machine give 30 or more


# One of a kind in a process: TensorFlow numbers the sums over replicas of every MirroredStrategy
# from the same start, and stops where those of a second one have other shapes.
@functools.lru_cache(maxsize=None)
def strategy(distribute: str = "none", num_devices: int | None = None) -> tf.distribute.Strategy:
    """Makes the tf.distribute strategy of a run; called again, it gives the same one.

    Args:
        distribute: "none"; "mirrored" for all GPUs of this machine; or "multi_worker" for those of
            all machines that the environment variable TF_CONFIG names, one process on each.
        num_devices: number of GPUs under "mirrored"; on a machine without one, number of logical
            CPU devices to try it out with. None takes every GPU, or the one CPU.

    Returns:
        A tf.distribute.Strategy. Under "multi_worker" the call waits for all workers.

    Raises:
        ValueError: more devices than there are GPUs, an unknown strategy, or a TF_CONFIG that does
            not say which workers there are and which one this is.
        RuntimeError: the CPU is in use already and cannot be divided any more.
    """
    if distribute == "none":
        return tf.distribute.get_strategy()
    if distribute == "multi_worker":
        workers.meet(*_read_cluster(os.environ.get("TF_CONFIG", "")))
        cluster = tf.distribute.MultiWorkerMirroredStrategy()
        workers.default_sigterm()
        return cluster
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


def _divide_cpu(num_devices: int) -> None:
    """Makes that many logical devices of the CPU, unless there are enough already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) < num_devices:
        logical = [tf.config.LogicalDeviceConfiguration()] * num_devices
        tf.config.set_logical_device_configuration(cpu, logical)


def _read_cluster(text: str) -> tuple[list[str], int]:
    """All workers as "host:port" and the index of this one, from the text of TF_CONFIG."""
    try:
        config = json.loads(text)
        workers, task = config["cluster"]["worker"], config["task"]
        named = all(re.fullmatch(r".+:\d+", worker) for worker in workers)
        if named and task["type"] == "worker" and 0 <= task["index"] < len(workers):
            return workers, task["index"]
    except (ValueError, KeyError, TypeError):
        pass
    expected = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    raise ValueError(f"TF_CONFIG: got {text!r}, expected {expected}")


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the chief worker, which writes the shared files."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.task_id


def stop_grace(strategy: tf.distribute.Strategy) -> float | None:
    """Seconds that a worker told to stop may wait for others; None where there are no others."""
    return _STOP_GRACE if workers.num_workers(strategy) > 1 else None


def distribute_batches(
    strategy: tf.distribute.Strategy, make_batches: Callable[[int, int], tf.data.Dataset]
) -> Any:
    """Gives every replica its part of every batch.

    Args:
        strategy: a tf.distribute.Strategy.
        make_batches: a function (worker, num_workers) -> tf.data.Dataset of that worker's part of
            every global batch; all workers' datasets have as many elements.

    Returns:
        A tf.distribute.DistributedDataset. Parts differ by one image at most, and are empty where
        there are fewer images than replicas.
    """

    def of_this_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_workers = context.num_input_pipelines
        batches = make_batches(context.input_pipeline_id, num_workers)
        return _divide(batches, context.num_replicas_in_sync // num_workers)

    return strategy.distribute_datasets_from_function(of_this_worker)


def _divide(batches: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Cuts each batch into parts, one after the other, as even as can be."""
    if parts == 1:
        return batches

    def cut(*batch: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(batch[0], tf.int64)[0]

        def part(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(x[size * i // parts : size * (i + 1) // parts] for x in batch)

        return tf.data.Dataset.range(parts).map(part)

    return batches.flat_map(cut)


def set_deterministic() -> None:
    """Makes every operation of this process give the same bits each time; some become slower."""
    tf.config.experimental.enable_op_determinism()


def check_deterministic(freeze_encoder: bool, num_replicas: int) -> None:
    """Checks that a training can be deterministic on the GPUs of this machine.

    Raises:
        ValueError: it cannot: TensorFlow has no deterministic gradient on GPUs for batch norm with
            given statistics, which frozen encoders and several replicas use.
    """
    if tf.config.list_physical_devices("GPU") and (freeze_encoder or num_replicas > 1):
        raise ValueError(
            "deterministic: TensorFlow has no deterministic gradient on GPUs for batch norm with "
            "given statistics, which freeze_encoder and several devices use; leave one of them out"
        )


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
