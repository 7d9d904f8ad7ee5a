"""ResNet-34, the encoder of the U-Net."""

import tensorflow as tf

layers = tf.keras.layers

STAGE_BLOCKS = (3, 4, 6, 3)
STAGE_CHANNELS = (64, 128, 256, 512)


def scale_channels(channels, width):
    """A number of channels times a width, to the nearest multiple of 8, and at least 16.

    GPUs are fastest on multiples of 8; and below 16 channels the gradient of a 1x1 convolution at
    stride 2 corrupts memory on CPUs (oneDNN in TensorFlow 2.15).
    """
    return max(16, 8 * round(channels * width / 8))


def _conv(x, filters, kernel_size, strides, name):
    """A convolution without bias, padded like torchvision's: the same number on both sides.

    Keras' "same" pads an even input at stride 2 only at its end, which shifts every feature by half
    a pixel against weights that were trained with symmetric padding.
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _norm(x, name):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _block(x, filters, strides, name):
    """Two 3x3 convolutions beside the identity, or a projection where the shape changes."""
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _conv(x, filters, 1, strides, f"{name}_projection_conv")
        shortcut = _norm(shortcut, f"{name}_projection_bn")
    x = _conv(x, filters, 3, strides, f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(_norm(x, f"{name}_bn1"))
    x = _conv(x, filters, 3, 1, f"{name}_conv2")
    x = layers.Add(name=f"{name}_add")([shortcut, _norm(x, f"{name}_bn2")])
    return layers.ReLU(name=f"{name}_relu2")(x)


def resnet34(x, width=1.0):
    """Applies a ResNet-34 with the activation after the addition (version 1).

    He et al., "Deep Residual Learning for Image Recognition", 2015, table 1 and figure 3. With its
    pooling and 1000-way classifier it has 21,797,672 trainable parameters, as torchvision's.

    Args:
        x: scaled images, float [B, H, W, C]; H and W divisible by 32.
        width: multiplies the channels of every stage; 1 is the ResNet-34 of the paper.

    Returns:
        Five feature maps, float [B, H/s, W/s, channels] for strides s = 2, 4, 8, 16, 32: the stem
        and the four stages, with 64, 64, 128, 256, 512 channels at width 1.
    """
    x = _conv(x, scale_channels(64, width), 7, 2, "stem_conv")
    x = layers.ReLU(name="stem_relu")(_norm(x, "stem_bn"))
    features = [x]
    # Zeros are a fair padding of a maximum: nothing is below zero after the ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPool2D(3, 2, name="stem_pool")(x)
    for stage, (blocks, channels) in enumerate(zip(STAGE_BLOCKS, STAGE_CHANNELS), start=1):
        filters = scale_channels(channels, width)
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, strides, f"stage{stage}_block{block}")
        features.append(x)
    return features
