"""Devices, numeric precision and batches of a training."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Optional

import tensorflow as tf

from clouds_tf.data.batching import Position
from clouds_tf.keras import keras, policy_kept
from clouds_tf.training import workers

# Name -> policy of Keras.
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
STRATEGIES = ("none", "mirrored", "multi_worker")


# Cached, because TensorFlow numbers the all-reduces of every MirroredStrategy in a process from the
# same start, and fails if a second strategy has other shapes.
@functools.lru_cache(maxsize=None)
def strategy(distribute: str = "none", num_devices: int | None = None) -> tf.distribute.Strategy:
    """Makes the tf.distribute strategy of a run; repeated calls return the same one.

    Args:
        distribute: "none"; "mirrored" for all GPUs of this machine; or "multi_worker" for the GPUs
            of all machines in the environment variable TF_CONFIG, one process on each.
        num_devices: number of GPUs for "mirrored"; on a machine without GPUs, number of logical
            CPU devices, for trying it out. None uses all GPUs, or the CPU.

    Returns:
        A tf.distribute.Strategy. With "multi_worker", the call waits for all workers.

    Raises:
        ValueError: more devices than GPUs, an unknown strategy, or a TF_CONFIG that does not name
            the workers and the index of this one.
        RuntimeError: the CPU is already in use and can no longer be divided.
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
    """Divides the CPU into that many logical devices, unless there are enough already."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) < num_devices:
        logical = [tf.config.LogicalDeviceConfiguration()] * num_devices
        tf.config.set_logical_device_configuration(cpu, logical)


def _read_cluster(text: str) -> tuple[list[str], int]:
    """Reads TF_CONFIG: "host:port" of all workers, and the index of this one."""
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


@dataclasses.dataclass(frozen=True)
class Feed:
    """Functions that make the batches of a training run.

    Attributes:
        training: a function from a Position to a tf.data.Dataset with that worker's part of every
            batch from there on.
        validation: a function (worker, num_workers) -> that worker's part of the held-out batches.
        names: a function (epoch, step), both from 0 -> names of the images in that batch, for
            error messages.
        held_out_names: a function (number) -> names of the first held-out images, for pictures.
        data_service: address of the tf.data service that makes the training batches, in no fixed
            order; None if this process makes them.
    """

    training: Callable[[Position], tf.data.Dataset]
    validation: Callable[[int, int], tf.data.Dataset]
    names: Callable[[int, int], "list[str]"]
    held_out_names: Callable[[int], "list[str]"] = lambda number: []
    data_service: Optional[str] = None


def distribute_batches(
    strategy: tf.distribute.Strategy, make_batches: Callable[[int, int], tf.data.Dataset]
) -> Any:
    """Distributes batches to replicas, as a tf.distribute.DistributedDataset.

    The parts of a batch differ by at most one image, and are empty if there are fewer images than
    replicas. `make_batches` is a function (worker, num_workers) -> that worker's part of every
    global batch; the datasets of all workers have the same number of elements.
    """

    def of_this_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        num_workers = context.num_input_pipelines
        batches = make_batches(context.input_pipeline_id, num_workers)
        return _divide(batches, context.num_replicas_in_sync // num_workers)

    return strategy.distribute_datasets_from_function(of_this_worker)


def _divide(batches: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Splits each batch into consecutive parts of nearly equal size."""
    if parts == 1:
        return batches

    def cut(*batch: tf.Tensor) -> tf.data.Dataset:
        size = tf.shape(batch[0], tf.int64)[0]

        def part(i: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(x[size * i // parts : size * (i + 1) // parts] for x in batch)

        return tf.data.Dataset.range(parts).map(part)

    return batches.flat_map(cut)


def check_deterministic(freeze_encoder: bool, num_replicas: int) -> None:
    """Raises ValueError if a training cannot be deterministic on the GPUs of this machine.

    TensorFlow has no deterministic gradient on GPUs for batch norm with given statistics, which
    frozen encoders and several replicas use.
    """
    if tf.config.list_physical_devices("GPU") and (freeze_encoder or num_replicas > 1):
        raise ValueError(
            "deterministic: TensorFlow has no deterministic gradient on GPUs for batch norm with "
            "given statistics, which freeze_encoder and several devices use; do without one of them"
        )


def set_precision(name: str) -> None:
    """Sets the numeric precision of models that are built from now on.

    Weights, batch-norm statistics, logits and losses stay float32; float16 uses loss scaling.

    Args:
        name: "float32", "bfloat16" or "float16".
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision: got {name!r}, expected one of {', '.join(PRECISIONS)}")
    keras.mixed_precision.set_global_policy(PRECISIONS[name])


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Context in which models are built for a numeric precision, see `set_precision`."""
    with policy_kept():
        set_precision(name)
        yield
