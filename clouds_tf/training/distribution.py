"""Devices and precision: where, and in which numbers, a model is trained."""

import functools

import tensorflow as tf

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


# One of a kind in a process: TensorFlow numbers the sums over replicas of every MirroredStrategy
# from the same start, and stops where those of a second one have other shapes.
@functools.lru_cache(maxsize=None)
def strategy(distribute="none", num_devices=None):
    """Makes the tf.distribute strategy of a run; asked again, it gives the same.

    Args:
        distribute: "none", or "mirrored" for all GPUs of this machine.
        num_devices: under "mirrored", how many GPUs; on a machine without one, how many logical CPU
            devices to try it out with. None takes every GPU, or the one CPU.

    Returns:
        A tf.distribute.Strategy.

    Raises:
        ValueError: more devices than there are GPUs, or an unknown strategy.
        RuntimeError: the CPU is in use already and cannot be divided any more.
    """
    if distribute == "none":
        return tf.distribute.get_strategy()
    if distribute != "mirrored":
        raise ValueError(f"distribute: got {distribute!r}, expected 'none' or 'mirrored'")
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


def set_precision(precision):
    """Makes the models that are built from now on compute in float32, bfloat16 or float16.

    Weights, batch-norm statistics, logits and losses stay float32 in each; float16 scales the loss.
    """
    tf.keras.mixed_precision.set_global_policy(_POLICIES[precision])


def set_seed(seed):
    """Makes the weights of the models that are built from now on repeatable."""
    tf.keras.utils.set_random_seed(seed)
