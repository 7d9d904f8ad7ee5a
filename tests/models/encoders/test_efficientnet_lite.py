import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.encoders.efficientnet_lite import efficientnet_lite0
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_encoder_weights

# (kernel size, stride, expansion factor, input and output channels), block by block.
BLOCKS = [
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
]
LAST = (0, 2, 4, 10, 15)  # the last block of each stride


def _published():
    """Weights with the names and layout of the published file, classifier included."""
    rng = np.random.default_rng(0)
    weights = {}

    def conv(name, out, channels, kernel):
        fan_in = channels * kernel**2
        weights[f"{name}.weight"] = rng.normal(0, fan_in**-0.5, (out, channels, kernel, kernel))

    def norm(name, channels):
        for part in ("weight", "running_var"):
            weights[f"{name}.{part}"] = rng.uniform(0.5, 1.5, channels)
        for part in ("bias", "running_mean"):
            weights[f"{name}.{part}"] = rng.normal(0, 0.2, channels)
        weights[f"{name}.num_batches_tracked"] = np.zeros(())

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    for i, (kernel, _, expansion, before, after) in enumerate(BLOCKS):
        name, inner = f"_blocks.{i}", before * expansion
        if expansion > 1:
            conv(f"{name}._expand_conv", inner, before, 1)
            norm(f"{name}._bn0", inner)
        conv(f"{name}._depthwise_conv", inner, 1, kernel)
        norm(f"{name}._bn1", inner)
        conv(f"{name}._project_conv", after, inner, 1)
        norm(f"{name}._bn2", after)
    conv("_conv_head", 1280, 320, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"], weights["_fc.bias"] = np.zeros((1000, 1280)), np.zeros(1000)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def _features(weights, images):
    """The feature maps, with plain ops and weights in PyTorch's layout."""

    def conv(x, name, stride=1):
        kernel = weights[f"{name}.weight"].transpose(2, 3, 1, 0)
        if kernel.shape[2] == 1 < x.shape[-1]:
            kernel = kernel.transpose(0, 1, 3, 2)
            return tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
        return tf.nn.conv2d(x, kernel, stride, "SAME")

    def norm(x, name):
        scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + 1e-3)
        return (x - weights[f"{name}.running_mean"]) * scale + weights[f"{name}.bias"]

    x = tf.nn.relu6(norm(conv((images - 127) / 128, "_conv_stem", 2), "_bn0"))
    maps = []
    for i, (_, stride, expansion, before, after) in enumerate(BLOCKS):
        name, y = f"_blocks.{i}", x
        if expansion > 1:
            y = tf.nn.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = tf.nn.relu6(norm(conv(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if stride == 1 and before == after else y
        if i in LAST:
            maps.append(x)
    return maps


def test_parameters_with_a_classifier_are_those_of_the_published_model():
    image = keras.Input([None, None, 3])
    encoder = keras.Model(image, efficientnet_lite0(image))
    head = 320 * 1280 + 2 * 1280 + 1281 * 1000
    count = sum(int(np.prod(weight.shape)) for weight in encoder.trainable_weights)
    assert count + head == 4_652_008


def test_features_with_published_weights(tmp_path):
    weights = _published()
    path = str(tmp_path / "lite0.safetensors")
    safetensors.numpy.save_file(weights, path)
    model = unet(encoder="efficientnet_lite0")
    load_encoder_weights(model, path)
    names = ["block0_project_bn", *(f"block{i}_add" for i in LAST[1:4]), "block15_project_bn"]
    features = keras.Model(model.input, [model.get_layer(name).output for name in names])
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    for found, expected in zip(features(images), _features(weights, images)):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_that_lack_a_block_are_refused(tmp_path):
    weights = {k: v for k, v in _published().items() if not k.startswith("_blocks.7.")}
    path = str(tmp_path / "lite0.safetensors")
    safetensors.numpy.save_file(weights, path)
    with pytest.raises(ValueError, match="15 missing: _blocks.7._bn0.bias, "):
        load_encoder_weights(unet(encoder="efficientnet_lite0"), path)
