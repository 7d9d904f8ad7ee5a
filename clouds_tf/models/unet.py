"""The U-Net: a ResNet-34 encoder, a decoder with skips, and a head that gives logits."""

import re

import numpy as np
import tensorflow as tf

from clouds_tf.dataset import MAX_CLASSES
from clouds_tf.keras import keras
from clouds_tf.models.encoders.resnet import resnet34, resnet34_preactivation, scale_channels
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.models.upsampling import UpsampleConv

layers = keras.layers

DECODER_CHANNELS = (256, 128, 64, 32, 16)
# Name -> the encoder, and the batch norm of the decoder that it was published with: the first two
# in segmentation_models_pytorch, the others in segmentation_models.
ENCODERS = {
    "resnet34": (resnet34, {"momentum": 0.9, "epsilon": 1e-5}),
    "resnet34_preactivation": (resnet34_preactivation, {"momentum": 0.99, "epsilon": 1e-3}),
}
MAX_WIDTH = 8.0
_STRIDE = 32  # of the deepest features


@keras.utils.register_keras_serializable("clouds_tf")
class ReflectPad(layers.Layer):
    """Pads images [B, H, W, C] at the bottom and right, by reflection, to multiples of 32.

    Images of any size come through, also smaller than the padding itself, which tf.pad refuses.
    """

    def call(self, image):
        for axis in (1, 2):
            length = image.shape[axis]
            if length is not None and length % _STRIDE == 0:
                continue
            if length is None:
                length = tf.shape(image)[axis]
            padded = -(-length // _STRIDE) * _STRIDE
            period = tf.maximum(2 * (length - 1), 1)
            position = tf.range(padded) % period
            image = tf.gather(image, tf.minimum(position, period - position), axis=axis)
        return image


@keras.utils.register_keras_serializable("clouds_tf")
class CropLike(layers.Layer):
    """Cuts maps [B, H', W', C] back to the height and width of images [B, H, W, ...]."""

    def call(self, inputs):
        x, image = inputs
        size = tf.shape(image)
        cropped = x[:, : size[1], : size[2]]
        return tf.ensure_shape(cropped, [None, image.shape[1], image.shape[2], x.shape[3]])


def unet(num_classes=4, width=1.0, encoder="resnet34", classification_head=False):
    """Builds a U-Net with a ResNet-34 encoder.

    Ronneberger et al., "U-Net", 2015, figure 1, with the decoder of segmentation_models: five steps
    of upsampling, joining the skip of that resolution (the last step has none), and two 3x3
    convolutions with batch norm. With 4 classes at width 1 it is the U-Net of

        segmentation_models_pytorch, with encoder "resnet34": 24,436,804 trainable parameters;
        segmentation_models, with "resnet34_preactivation": 24,456,589, of them 24,439,239
        trainable (the others are the moving statistics of batch norm, which PyTorch calls buffers
        and does not count).

    Args:
        num_classes: the number of maps, each a sigmoid of its own.
        width: multiplies the channels of every stage but the input's and the head's.
        encoder: a name in ENCODERS.
        classification_head: whether to tell as well, from the mean of the deepest features, which
            classes are present anywhere in the image.

    Returns:
        A keras.Model from RGB images [B, H, W, 3] of any numeric dtype in 0..255, any height and
        width, to a dict: "logits", float32 [B, H, W, num_classes], and with a classification head
        "presence_logits", float32 [B, num_classes]. Scaling is part of the model.

    Raises:
        ValueError: an unknown encoder, no class or more than 32, or a width that is not positive.

    >>> unet(num_classes=3, width=0.125).output_shape
    {'logits': (None, None, None, 3)}
    """
    if encoder not in ENCODERS:
        raise ValueError(f"encoder: got {encoder!r}, expected one of {', '.join(sorted(ENCODERS))}")
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes: got {num_classes}, expected 1 to {MAX_CLASSES}")
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(f"width: got {width}, expected more than 0 and at most {MAX_WIDTH}")
    apply_encoder, norm = ENCODERS[encoder]
    image = keras.Input([None, None, 3], name="image")
    *skips, deepest = apply_encoder(ReflectPad(name="pad", dtype="float32")(image), width)
    x = deepest
    for step, channels in enumerate(DECODER_CHANNELS, start=1):
        joined = [x, skips.pop()] if skips else x
        filters = scale_channels(channels, width)
        x = UpsampleConv(filters, name=f"decoder{step}_conv1")(joined)
        x = layers.ReLU(name=f"decoder{step}_relu1")(
            BatchNorm(name=f"decoder{step}_bn1", **norm)(x)
        )
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_uniform",
            name=f"decoder{step}_conv2",
        )(x)
        x = layers.ReLU(name=f"decoder{step}_relu2")(
            BatchNorm(name=f"decoder{step}_bn2", **norm)(x)
        )
    x = layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name="head_conv")(x)
    outputs = {"logits": CropLike(name="logits", dtype="float32")([x, image])}
    if classification_head:
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="presence_pool")(deepest)
        # Called "presence" in the checkpoints that there are.
        head = layers.Dense(num_classes, dtype="float32", name="presence")
        outputs["presence_logits"] = head(pooled)
    return keras.Model(image, outputs, name=f"unet_{encoder}")


def outline(model, image_size):
    """What a drawing of a U-Net shows: the maps between its stages.

    Args:
        model: of `unet`.
        image_size: (height, width) of an image.

    Returns:
        Two lists of dicts with name, convolutions (how many the stage has one after the other),
        height, width and channels: the way down, from the image to the deepest features, and the
        way up, to the logits. Maps of one height below the image's are the two ends of a skip.
    """
    steps = [f"decoder{step}" for step in range(1, len(DECODER_CHANNELS) + 1)]
    joints = [model.get_layer(f"{step}_conv1").input for step in steps[:-1]]
    down = [model.input, *[skip for _, skip in reversed(joints)], joints[0][0]]
    up = [model.get_layer(f"{step}_relu2").output for step in steps]
    up.append(model.get_layer("logits").output)
    names = ["image", "stem", "stage1", "stage2", "stage3", "stage4", *steps, "head"]

    def count(name):
        pattern = rf"{name}(_block\d)?_conv\d?"
        return sum(bool(re.fullmatch(pattern, layer.name)) for layer in model.layers)

    maps = keras.Model(model.input, down + up)(np.zeros([1, *image_size, 3], np.uint8))
    described = [
        {"name": name, "convolutions": count(name), "height": h, "width": w, "channels": channels}
        for name, (_, h, w, channels) in zip(names, (x.shape for x in maps))
    ]
    return described[: len(down)], described[len(down) :]
