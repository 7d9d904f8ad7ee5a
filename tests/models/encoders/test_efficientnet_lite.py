import functools

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.encoders import encoder_layers
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_encoder_weights

pytestmark = pytest.mark.lanes

# (kernel size, stride of the first block, expansion factor) of every stage, and per encoder the
# parameters of the published model, and the (blocks, channels) of every stage.
STAGES = [(3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6)]
VARIANTS = {
    "efficientnet_lite0": (
        4_652_008,
        [(1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)],
    ),
    "efficientnet_lite1": (
        5_416_680,
        [(1, 16), (3, 24), (3, 40), (4, 80), (4, 112), (5, 192), (1, 320)],
    ),
    "efficientnet_lite2": (
        6_092_072,
        [(1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)],
    ),
}


def _blocks(encoder):
    """Kernel size, stride, expansion factor, channels before and after, block by block."""
    before, blocks = 32, []
    for (kernel, stride, expansion), (count, after) in zip(STAGES, VARIANTS[encoder][1]):
        for number in range(count):
            blocks.append((kernel, 1 if number else stride, expansion, before, after))
            before = after
    return blocks


_unet = functools.lru_cache(maxsize=None)(lambda encoder: unet(encoder=encoder))


@functools.lru_cache(maxsize=None)
def _published(encoder):
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
    for i, (kernel, _, expansion, before, after) in enumerate(_blocks(encoder)):
        name, inner = f"_blocks.{i}", before * expansion
        if expansion > 1:
            conv(f"{name}._expand_conv", inner, before, 1)
            norm(f"{name}._bn0", inner)
        conv(f"{name}._depthwise_conv", inner, 1, kernel)
        norm(f"{name}._bn1", inner)
        conv(f"{name}._project_conv", after, inner, 1)
        norm(f"{name}._bn2", after)
    conv("_conv_head", 1280, after, 1)
    norm("_bn1", 1280)
    weights["_fc.weight"], weights["_fc.bias"] = np.zeros((1000, 1280)), np.zeros(1000)
    return {name: values.astype(np.float32) for name, values in weights.items()}


def _features(encoder, weights, images):
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
    strides, maps = 2, {}
    for i, (_, stride, expansion, before, after) in enumerate(_blocks(encoder)):
        name, y, strides = f"_blocks.{i}", x, strides * stride
        if expansion > 1:
            y = tf.nn.relu6(norm(conv(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = tf.nn.relu6(norm(conv(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        y = norm(conv(y, f"{name}._project_conv"), f"{name}._bn2")
        maps[strides] = x = x + y if stride == 1 and before == after else y
    return list(maps.values())


@pytest.fixture(params=VARIANTS)
def encoder(request):
    return request.param


@pytest.mark.slow
def test_parameters_with_a_classifier_are_those_of_the_published_model(encoder):
    layers, channels = encoder_layers(_unet(encoder)), VARIANTS[encoder][1][-1][1]
    head = channels * 1280 + 2 * 1280 + 1281 * 1000
    shapes = [weight.shape for layer in layers for weight in layer.trainable_weights]
    assert sum(int(np.prod(shape)) for shape in shapes) + head == VARIANTS[encoder][0]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [*VARIANTS][1:])  # the first one is the same with fewer blocks
def test_features_with_published_weights(tmp_path, encoder):
    weights = _published(encoder)
    path = str(tmp_path / "lite.safetensors")
    safetensors.numpy.save_file(weights, path)
    model = _unet(encoder)
    load_encoder_weights(model, path)
    skips = [model.get_layer(f"decoder{step}_conv1").input for step in (4, 3, 2, 1)]
    ours = keras.Model(model.input, [*(skip for _, skip in skips), skips[-1][0]])
    images = np.random.default_rng(1).uniform(0, 255, (2, 64, 96, 3)).astype(np.float32)
    expected_features = _features(encoder, weights, images)
    assert len(expected_features) == 5
    for found, expected in zip(ours(images), expected_features):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_weights_that_lack_a_block_are_refused(tmp_path, encoder):
    weights = {k: v for k, v in _published(encoder).items() if not k.startswith("_blocks.7.")}
    path = str(tmp_path / "lite.safetensors")
    safetensors.numpy.save_file(weights, path)
    with pytest.raises(ValueError, match="15 missing: _blocks.7._bn0.bias, "):
        load_encoder_weights(_unet(encoder), path)
