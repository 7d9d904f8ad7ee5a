"""The one door to Keras: every module that builds or trains a model imports `keras` from here.

It is Keras 2 in both lanes: `tf.keras` of TensorFlow 2.15, and the package tf-keras beside newer
versions, whose own `tf.keras` is Keras 3. The choice depends on the version of TensorFlow alone,
not on the environment variable TF_USE_LEGACY_KERAS, nor on whether Keras 3 was imported before.

Keras 3 would not do: its optimizers' `apply_gradients` always sums over replicas (the training step
sums by itself, in packs, and clips in between), `get_scaled_loss` is gone, and its batch norm is
not fused.
"""

import tensorflow as tf

if tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
    keras = tf.keras
else:
    import tf_keras as keras  # noqa: F401

__all__ = ["keras"]
