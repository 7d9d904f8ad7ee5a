"""The one door to Keras: every module that builds or trains a model imports `keras` from here."""

import tensorflow as tf

keras = tf.keras
