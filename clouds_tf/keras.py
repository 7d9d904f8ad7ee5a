"""The one door to Keras: every module that builds or trains a model imports `keras` from here.

It is Keras 2 in both lanes: `tf.keras` of TensorFlow 2.15, and the package tf-keras with newer
versions, whose own `tf.keras` is Keras 3. The choice depends on the version of TensorFlow alone,
neither on the environment variable TF_USE_LEGACY_KERAS nor on an earlier import of Keras 3.

The project is not ported to Keras 3: its optimizers' `apply_gradients` always sums over replicas
(our training step sums by itself, in packs, and clips in between, so that they would be summed
twice), `get_scaled_loss` is gone, and its batch norm is not fused.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import tensorflow as tf

from clouds_tf.lazy import is_postponed

_Class = TypeVar("_Class", bound=type)
_unregistered: list[type] = []  # classes that wait for Keras


@functools.lru_cache(maxsize=None)
def _import() -> Any:
    if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 16):
        import tf_keras

        return tf_keras
    # With this variable tf.keras of 2.15 loads tf-keras too, which lane one does not install.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    return tf.keras


class _Keras:
    """Keras, which is imported when one of its names is first used."""

    def __getattr__(self, name: str) -> Any:
        module = _import()
        while _unregistered:
            module.utils.register_keras_serializable("clouds_tf")(_unregistered.pop())
        return getattr(module, name)


keras: Any = _Keras()


def serializable(cls: _Class) -> _Class:
    """Registers a class with Keras, so that it is found when a model is loaded that has it."""
    _unregistered.append(cls)
    if not is_postponed("tensorflow"):  # else when Keras is first used
        keras.layers
    return cls


@contextlib.contextmanager
def policy_kept() -> Iterator[None]:
    """Context after which Keras' global precision policy is what it was before."""
    before = keras.mixed_precision.global_policy()
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


# mypy sees no types of Keras; these names tell which of its objects is meant.
Model = Any
Layer = Any
KerasTensor = Any  # a symbolic tensor of the functional API
Optimizer = Any

__all__ = ["KerasTensor", "Layer", "Model", "Optimizer", "keras", "policy_kept", "serializable"]
