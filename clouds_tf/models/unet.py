"""The U-Net: an encoder, a decoder with skips, and a head that returns logits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import own
from clouds_tf.dataset import MAX_CHANNELS, MAX_CLASSES
from clouds_tf.keras import KerasTensor, Model, keras
from clouds_tf.models.encoders import (
    MAX_WIDTH,
    Encoder,
    check_own_encoder,
    find_encoder,
    model_name,
)
from clouds_tf.models.encoders.resnet import scale_channels
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.models.upsampling import UpsampleConv

layers = keras.layers

DECODER_CHANNELS = (256, 128, 64, 32, 16)
_STRIDE = 32  # of the deepest features
_ARGUMENTS = "_clouds_tf_arguments"
_LEAST_SHARE = 1e-37  # a normal float32, which keeps logarithms finite


@keras.utils.register_keras_serializable("clouds_tf")
class ReflectPad(keras.layers.Layer):
    """Pads images [B, H, W, C] at the bottom and right to multiples of 32, by reflection.

    Images may be smaller than the padding, which tf.pad refuses.
    """

    def call(self, image: tf.Tensor) -> tf.Tensor:
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
class CropLike(keras.layers.Layer):
    """Crops maps [B, H', W', C] to the height and width of images [B, H, W, ...]."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        x, image = inputs
        size = tf.shape(image)
        cropped = x[:, : size[1], : size[2]]
        return tf.ensure_shape(cropped, [None, image.shape[1], image.shape[2], x.shape[3]])


@keras.utils.register_keras_serializable("clouds_tf")
class LogOdds(keras.layers.Layer):
    """Converts scores [B, H, W, C] of classes, against a background of score 0, to log odds.

    Returns the log odds log(q / (1 - q)) of the classes, [B, H, W, C], and of the background,
    [B, H, W, 1], where q are the softmax probabilities of the scores and of 0. Their sigmoid is the
    softmax, so they can be used like logits of independent classes.
    """

    def call(self, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        scores = tf.pad(scores, [[0, 0]] * 3 + [[0, 1]])
        scores -= tf.stop_gradient(tf.reduce_max(scores, axis=-1, keepdims=True))
        shares = tf.exp(scores)
        # The sum of the other classes, not 1 - q, which would lose all digits near q = 1.
        others = tf.cumsum(shares, axis=-1, exclusive=True)
        others += tf.cumsum(shares, axis=-1, exclusive=True, reverse=True)
        log_odds = scores - tf.math.log(others + _LEAST_SHARE)
        return log_odds[..., :-1], log_odds[..., -1:]


def unet(
    num_classes: int = 4,
    width: float = 1.0,
    encoder: Any = "resnet34",
    classification_head: bool = False,
    channels: int = 3,
    exclusive: bool = False,
    decoder_width: float = 1.0,
) -> Any:
    """Builds a U-Net.

    Ronneberger et al., "U-Net", 2015, figure 1, with the decoder of segmentation_models: five
    steps, each of which upsamples, concatenates the encoder's feature map of that resolution if
    there is one, and applies two 3x3 convolutions with batch norm. With 4 classes at width 1, it
    equals

        segmentation_models_pytorch's with encoder "resnet34": 24,436,804 trainable parameters;
        segmentation_models' with "resnet34_preactivation": 24,456,589 parameters, 24,439,239 of
        them trainable (the others are the moving statistics of batch norm, which PyTorch calls
        buffers and does not count).

    Args:
        num_classes: number of classes, 1 to 32.
        width: multiplies the channels of every stage except input and head; above 0 and at most 8.
        encoder: a key of clouds_tf.models.encoders.ENCODERS; or a function with the arguments and
            results of `Encoder.apply`, or its name, "module:function".
        classification_head: whether to also predict which classes are present in the image, from
            the mean of the deepest features.
        channels: number of channels of the images, 1 to 16.
        exclusive: whether a pixel belongs to at most one class, or else to the background.
        decoder_width: multiplies the channels of the decoder, in addition to `width`; above 0 and
            at most 8.

    Returns:
        A keras.Model from images [B, H, W, channels] of any numeric dtype in 0..255, of any height
        and width, to a dict: "logits", float32 [B, H, W, num_classes], whose sigmoid is the
        probability of each class; with a classification head, "presence_logits", float32
        [B, num_classes]; for exclusive classes, "background_logits", float32 [B, H, W, 1], with
        which the probabilities are a softmax, see `LogOdds`. Input scaling is part of the model.

    Raises:
        ValueError: an unknown encoder, or another argument out of bounds.

    >>> model = unet(num_classes=3, width=0.125)
    >>> model.output_shape
    {'logits': (None, None, None, 3)}
    >>> model(np.zeros([2, 33, 50, 3], np.uint8))["logits"].shape
    TensorShape([2, 33, 50, 3])
    """
    if callable(encoder):
        encoder = own.name_of("encoder", encoder, {})
    found = find_encoder(encoder)
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"num_classes: got {num_classes}, expected 1 to {MAX_CLASSES}")
    for name, factor in (("width", width), ("decoder_width", decoder_width)):
        if not 0 < factor <= MAX_WIDTH:
            raise ValueError(f"{name}: got {factor}, expected more than 0 and at most {MAX_WIDTH}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise ValueError(f"channels: got {channels}, expected 1 to {MAX_CHANNELS}")
    image = keras.Input([None, None, channels], name="image")
    features = found.apply(ReflectPad(name="pad", dtype="float32")(image), width)
    if own.is_own(encoder):
        check_own_encoder(encoder, image, features)
    deepest = features[-1]
    x = _decode({2**i: x for i, x in enumerate(features, start=1)}, width * decoder_width, found)
    x = layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name="head_conv")(x)
    outputs = {}
    if exclusive:
        x, background = LogOdds(name="log_odds", dtype="float32")(x)
        crop = CropLike(name="background_logits", dtype="float32")
        outputs["background_logits"] = crop([background, image])
    outputs["logits"] = CropLike(name="logits", dtype="float32")([x, image])
    if classification_head:
        pooled = layers.GlobalAveragePooling2D(dtype="float32", name="presence_pool")(deepest)
        # In checkpoints, the layer is called "presence".
        head = layers.Dense(num_classes, dtype="float32", name="presence")
        outputs["presence_logits"] = head(pooled)
    model = keras.Model(image, outputs, name=model_name(encoder))
    # Not as a normal attribute, which Keras would track in checkpoints.
    vars(model)[_ARGUMENTS] = {
        "num_classes": num_classes,
        "width": width,
        "encoder": encoder,
        "classification_head": classification_head,
        # Omitted if they have the default, so that earlier versions can read the file.
        **({} if channels == 3 else {"channels": channels}),
        **({"exclusive": True} if exclusive else {}),
        **({} if decoder_width == 1 else {"decoder_width": decoder_width}),
    }
    return model


def unet_arguments(model: Model) -> dict[str, Any]:
    """The arguments with which `unet` built a model.

    Raises:
        ValueError: it was not made by `unet`, or is a copy.
    """
    if _ARGUMENTS not in vars(model):
        raise ValueError(
            f"model: got {model.name!r}, expected what clouds_tf.models.unet.unet returned"
        )
    return dict(vars(model)[_ARGUMENTS])


def _decode(features: dict[int, Any], width: float, encoder: Encoder) -> Any:
    """Applies the decoder to feature maps by stride; returns maps at stride 1."""

    def activated(x: KerasTensor, step: int, number: int) -> Any:
        norm = BatchNorm(
            momentum=encoder.decoder_momentum,
            epsilon=encoder.decoder_epsilon,
            name=f"decoder{step}_bn{number}",
        )
        return layers.ReLU(name=f"decoder{step}_relu{number}")(norm(x))

    x = features[_STRIDE]
    for step, channels in enumerate(DECODER_CHANNELS, start=1):
        skip = features.get(_STRIDE >> step)
        filters = scale_channels(channels, width)
        x = UpsampleConv(filters, name=f"decoder{step}_conv1")(x if skip is None else [x, skip])
        x = layers.Conv2D(
            filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_uniform",
            name=f"decoder{step}_conv2",
        )(activated(x, step, 1))
        x = activated(x, step, 2)
    return x


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a U-Net and the map that it returns, for a drawing.

    Attributes:
        name: such as "stem", "stage2", "decoder1" or "head".
        convolutions: number of convolutions that the stage applies one after the other.
        height: height of the map in pixels.
        width: width of the map in pixels.
        channels: number of channels of the map.
    """

    name: str
    convolutions: int
    height: int
    width: int
    channels: int


def outline(model: Model, image_size: tuple[int, int]) -> tuple[list[Stage], list[Stage]]:
    """Describes the stages of a U-Net, for a drawing.

    Args:
        model: a keras.Model of `unet`.
        image_size: (height, width) of an image.

    Returns:
        The way down, from the image to the deepest features, and the way up, to the logits. Maps of
        one height below the image's are the two ends of a skip.
    """
    steps = [f"decoder{step}" for step in range(1, len(DECODER_CHANNELS) + 1)]
    inputs = [tf.nest.flatten(model.get_layer(f"{step}_conv1").input) for step in steps]
    down = [model.input, *[skip for _, *skips in reversed(inputs) for skip in skips], inputs[0][0]]
    up = [model.get_layer(f"{step}_relu2").output for step in steps]
    up.append(model.get_layer("logits").output)
    stages = ["stem", "stage1", "stage2", "stage3", "stage4"][1 - len(down) :]
    maps = keras.Model(model.input, down + up)(
        np.zeros([1, *image_size, model.input_shape[-1]], np.uint8)
    )
    depths = _convolutions(model, down + up)
    described = [
        Stage(name, depth, *found.shape[1:])
        for name, depth, found in zip(["image", *stages, *steps, "head"], depths, maps)
    ]
    return described[: len(down)], described[len(down) :]


def _convolutions(model: Model, maps: list[Any]) -> list[int]:
    """Counts the convolutions on the longest path from each map to the next."""
    depths: dict[int, int] = {}
    for layer in model.layers:  # in the order of the graph
        counted = isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, UpsampleConv))
        before = max((depths.get(id(x), 0) for x in tf.nest.flatten(layer.input)), default=0)
        depths[id(layer.output)] = before + counted
    found = [depths[id(x)] for x in maps]
    return [deeper - shallower for deeper, shallower in zip(found, [0, *found])]
