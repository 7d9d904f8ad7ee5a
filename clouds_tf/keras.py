"""The one door to Keras: every module that builds or trains a model imports `keras` from here.

It is Keras 2 in both lanes: `tf.keras` of TensorFlow 2.15, and the package tf-keras beside newer
versions, whose own `tf.keras` is Keras 3. The choice depends on the version of TensorFlow alone,
neither on the environment variable TF_USE_LEGACY_KERAS nor on an earlier import of Keras 3.

The project is not ported to Keras 3: its optimizers' `apply_gradients` always sums over replicas
(our training step sums by itself, in packs, and clips in between, so that they would be summed
twice), `get_scaled_loss` is gone, and its batch norm is not fused.
"""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
    # With this variable tf.keras of 2.15 loads tf-keras too, which lane one does not install.
    os.environ.pop("TF_USE_LEGACY_KERAS", None)
    keras: Any = tf.keras
else:
    import tf_keras

    keras = tf_keras

# mypy sees no types of Keras; these names tell which of its objects is meant.
Model = Any
Layer = Any
KerasTensor = Any  # a symbolic tensor of the functional API
Optimizer = Any

__all__ = ["KerasTensor", "Layer", "Model", "Optimizer", "keras"]
