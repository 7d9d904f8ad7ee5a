import functools

import cv2
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.encoders import encoder_layers
from clouds_tf.models.encoders.resnet import resnet34, resnet34_preactivation, scale_channels

pytestmark = pytest.mark.lanes

ENCODERS = pytest.mark.parametrize("apply_encoder", [resnet34, resnet34_preactivation])


@functools.lru_cache(maxsize=None)
def _encoder(width=1.0, apply_encoder=resnet34):
    """Weights that a test changes are read by that test alone."""
    image = keras.Input([None, None, 3])
    return keras.Model(image, apply_encoder(image, width), name="unet_resnet34")


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_parameters_with_a_classifier_are_those_of_torchvision():
    encoder = _encoder()
    classes = keras.layers.Dense(1000)(keras.layers.GlobalAveragePooling2D()(encoder.output[-1]))
    classifier = keras.Model(encoder.input, classes)
    assert _count(classifier.trainable_weights) == 21_797_672


@ENCODERS
@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_features_halve_from_stride_2_to_32(apply_encoder, size):
    features = _encoder(0.125, apply_encoder)(np.zeros([2, *size, 3], np.float32))
    for feature, stride, channels in zip(features, (2, 4, 8, 16, 32), (16, 16, 16, 32, 64)):
        assert feature.shape == (2, size[0] // stride, size[1] // stride, channels)


def test_first_convolution_is_centred_on_every_second_pixel():
    # Keras' "same" at stride 2 would be centred half a pixel off.
    encoder = _encoder(0.125)
    image = np.random.default_rng(0).uniform(0, 255, (32, 64, 3)).astype(np.float32)
    conv = encoder.get_layer("stem_conv")
    got = keras.Model(encoder.input, conv.output)(image[None])[0, ..., 5]
    kernel = conv.kernel.numpy()[..., 5]
    image = ((image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).astype(np.float32)
    expected = sum(
        cv2.filter2D(image[..., c], -1, kernel[..., c], borderType=cv2.BORDER_CONSTANT)
        for c in range(3)
    )
    np.testing.assert_allclose(got, expected[::2, ::2], atol=1e-4)


def test_pooling_takes_the_greatest_of_3x3_around_every_second_pixel():
    encoder = _encoder(0.125)
    image = np.random.default_rng(1).normal(size=(1, 32, 64, 3)).astype(np.float32)
    relu, pool = (encoder.get_layer(name).output for name in ("stem_relu", "stem_pool"))
    before, after = keras.Model(encoder.input, [relu, pool])(image)
    expected = cv2.dilate(before[0].numpy(), np.ones([3, 3]))[::2, ::2]
    np.testing.assert_array_equal(after[0], expected)


def test_a_block_without_its_convolutions_is_the_identity():
    encoder = _encoder(0.125)
    encoder.get_layer("stage1_block2_bn2").gamma.assign(tf.zeros([16]))
    image = np.random.default_rng(2).normal(size=(1, 32, 32, 3)).astype(np.float32)
    outputs = [encoder.get_layer(f"stage1_block{b}_relu2").output for b in (1, 2)]
    before, after = keras.Model(encoder.input, outputs)(image)
    np.testing.assert_array_equal(before, after)


def test_a_preactivated_block_without_its_convolutions_is_the_identity():
    encoder = _encoder(0.125, resnet34_preactivation)
    encoder.get_layer("stage1_block2_conv2").kernel.assign(tf.zeros([3, 3, 16, 16]))
    image = np.random.default_rng(2).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    outputs = [encoder.get_layer(f"stage1_block{b}_add").output for b in (1, 2)]
    before, after = keras.Model(encoder.input, outputs)(image)
    np.testing.assert_array_equal(before, after)


@ENCODERS
def test_features_are_activated(apply_encoder):
    image = np.random.default_rng(3).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    for feature in _encoder(0.125, apply_encoder)(image):
        assert feature.numpy().min() == 0 and feature.numpy().max() > 0


@pytest.mark.parametrize(
    "apply_encoder, num_projections, num_norms",
    # One batch norm a convolution; or two a block, and of the image, the stem, and the end.
    [(resnet34, 3, 33 + 3), (resnet34_preactivation, 4, 2 * 16 + 3)],
)
def test_34_convolutions_and_a_few_projections_without_bias(
    apply_encoder, num_projections, num_norms
):
    encoder = _encoder(0.125, apply_encoder)
    convs = [x for x in encoder.layers if isinstance(x, keras.layers.Conv2D)]
    norms = [x for x in encoder.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(convs) == 33 + num_projections  # the 34th is the classifier
    assert len(norms) == num_norms
    assert not any(conv.use_bias for conv in convs)


@ENCODERS
def test_encoder_layers_are_all_but_the_input(apply_encoder):
    encoder = _encoder(0.125, apply_encoder)
    assert encoder_layers(encoder) == encoder.layers[1:]


@pytest.mark.parametrize(
    "channels, width, scaled",
    [(64, 1, 64), (512, 0.5, 256), (64, 0.3, 16), (64, 0.375, 24), (16, 0.25, 16), (64, 2, 128)],
)
def test_channels_are_scaled_to_multiples_of_8(channels, width, scaled):
    assert scale_channels(channels, width) == scaled
