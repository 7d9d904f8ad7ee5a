"""What makes tests cheap: small encoders, and coarse figures and synthetic images.

"tiny" and "tiny_preactivation" are for tests that are not about encoders: one convolution a stage,
with batch norm behind or before it. A network of them is built, traced and saved in a quarter of
the time of a ResNet-34. Programs in a process of their own do without, unless they run this file.
"""

import dataclasses

from clouds_tf.data import sample_data
from clouds_tf.figures import style
from clouds_tf.keras import keras
from clouds_tf.models.encoders import ENCODERS, resnet
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.training import progress

layers = keras.layers


def _convolution(x, filters, name, dtype):
    settings = {"use_bias": False, "kernel_initializer": "he_normal", "dtype": dtype}
    return layers.Conv2D(filters, 3, 2, padding="same", name=f"{name}_conv", **settings)(x)


def _activated(x, name):
    return layers.ReLU(name=f"{name}_relu")(BatchNorm(name=f"{name}_bn")(x))


def _features(image, width, preactivation):
    x = layers.Rescaling(1 / 64, offset=-2, name="stem_scale", dtype="float32")(image)
    features = []
    for name, channels in zip(
        ["stem", *(f"stage{i}" for i in range(1, 5))], (64, 64, 128, 256, 512)
    ):
        dtype = "float32" if name == "stem" else None
        x = _activated(x, name) if preactivation and features else x
        x = _convolution(x, resnet.scale_channels(channels, width), name, dtype)
        x = x if preactivation else _activated(x, name)
        features.append(x)
    return features


def _replaced(encoder, preactivation):
    def apply(image, width=1.0):
        return _features(image, width, preactivation)

    return dataclasses.replace(encoder, apply=apply)


ENCODERS["tiny"] = _replaced(ENCODERS["resnet34"], False)
ENCODERS["tiny_preactivation"] = _replaced(ENCODERS["resnet34_preactivation"], True)

sample_data._RENDER_SIZE = (140, 210)  # a 25th of the pixels
style._STYLE["figure.dpi"] = 80  # a quarter of them
progress._NUM_PICTURES = 1  # a picture of four took a fifth of a training
