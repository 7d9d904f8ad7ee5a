"""The U-Net: a ResNet-34 encoder, a decoder with skips, and a head that gives logits."""

import tensorflow as tf

from clouds_tf.models.resnet import resnet34, scale_channels

layers = tf.keras.layers

DECODER_CHANNELS = (256, 128, 64, 32, 16)
# Mean and standard deviation of ImageNet's RGB in 0..1, which published encoders were trained with.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
_STRIDE = 32  # of the deepest features


@tf.keras.utils.register_keras_serializable("clouds_tf")
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


@tf.keras.utils.register_keras_serializable("clouds_tf")
class CropLike(layers.Layer):
    """Cuts maps [B, H', W', C] back to the height and width of images [B, H, W, ...]."""

    def call(self, inputs):
        x, image = inputs
        size = tf.shape(image)
        cropped = x[:, : size[1], : size[2]]
        return tf.ensure_shape(cropped, [None, image.shape[1], image.shape[2], x.shape[3]])


@tf.keras.utils.register_keras_serializable("clouds_tf")
class Upsample(layers.Layer):
    """Nearest-neighbour upsampling, twice as high and wide: [B, H, W, C] -> [B, 2H, 2W, C].

    Written with concatenations, because XLA does not compile the gradient of a nearest-neighbour
    resize; as memory, a row of pixels that each stand twice is the channels concatenated twice.
    """

    def call(self, x):
        channels = x.shape[3]
        _, height, width, _ = tf.unstack(tf.shape(x))
        x = tf.concat([x, x], axis=3)
        x = tf.reshape(x, [-1, height, width * 2 * channels])
        x = tf.concat([x, x], axis=2)
        return tf.reshape(x, [-1, 2 * height, 2 * width, channels])


def _conv_bn_relu(x, filters, name):
    x = layers.Conv2D(
        filters, 3, padding="same", use_bias=False, kernel_initializer="he_uniform", name=name
    )(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def unet(num_classes=4, width=1.0):
    """Builds a U-Net with a ResNet-34 encoder.

    Ronneberger et al., "U-Net", 2015, figure 1, with the encoder of `resnet34` and the decoder of
    segmentation_models: five steps of upsampling, joining the skip of that resolution (the last
    step has none), and two 3x3 convolutions with batch norm. With 4 classes at width 1 it has
    24,436,804 trainable parameters.

    Args:
        num_classes: the number of maps, each a sigmoid of its own.
        width: multiplies the channels of every stage but the input's and the head's.

    Returns:
        A tf.keras.Model from RGB images [B, H, W, 3] of any numeric dtype in 0..255, any height and
        width, to logits, float32 [B, H, W, num_classes]. Scaling is part of the model.
    """
    image = tf.keras.Input([None, None, 3], name="image")
    x = layers.Rescaling(
        scale=[1 / (255 * std) for std in IMAGE_STD],
        offset=[-mean / std for mean, std in zip(IMAGE_MEAN, IMAGE_STD)],
        name="scale",
    )(image)
    x = ReflectPad(name="pad")(x)
    *skips, x = resnet34(x, width)
    for step, channels in enumerate(DECODER_CHANNELS, start=1):
        x = Upsample(name=f"decoder{step}_up")(x)
        if skips:
            x = layers.Concatenate(name=f"decoder{step}_skip")([x, skips.pop()])
        for conv in (1, 2):
            x = _conv_bn_relu(x, scale_channels(channels, width), f"decoder{step}_conv{conv}")
    x = layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name="head_conv")(x)
    logits = CropLike(name="logits", dtype="float32")([x, image])
    return tf.keras.Model(image, logits, name="unet_resnet34")
