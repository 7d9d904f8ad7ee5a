"""Access to Keras: every module that builds or trains a model imports `keras` from here.

It is Keras 2 in both lanes: `tf.keras` of TensorFlow 2.15, and the package tf-keras with newer
versions, whose own `tf.keras` is Keras 3. The choice depends only on the version of TensorFlow,
neither on the environment variable TF_USE_LEGACY_KERAS nor on an earlier import of Keras 3.

Keras 3 does not suffice: its optimizers' `apply_gradients` always sums over replicas (our training
step sums gradients itself and then clips them, so they would be summed twice), `get_scaled_loss` is
gone, and its batch norm is not fused.
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


def is_lane_one() -> bool:
    """Whether this is TensorFlow 2.15, for which tensorflow-addons and keras-cv are written."""
    return tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16)


@functools.lru_cache(maxsize=None)
def _import() -> Any:
    if not is_lane_one():
        import tf_keras

        return tf_keras
    # With this variable, tf.keras of 2.15 loads tf-keras, which lane one does not install.
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
    """Registers a class with Keras, so that models with it can be loaded."""
    _unregistered.append(cls)
    if not is_postponed("tensorflow"):  # otherwise, when Keras is first used
        keras.layers
    return cls


@contextlib.contextmanager
def policy_kept() -> Iterator[None]:
    """Context that restores Keras' global precision policy at its end."""
    before = keras.mixed_precision.global_policy()
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


# Keras has no types for mypy; these names document its objects.
Model = Any
Layer = Any
KerasTensor = Any  # a symbolic tensor of the functional API
Optimizer = Any

__all__ = ["KerasTensor", "Layer", "Model", "Optimizer", "keras", "policy_kept", "serializable"]
