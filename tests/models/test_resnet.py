import cv2
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.models.resnet import resnet34


def _encoder(width=1.0):
    image = tf.keras.Input([None, None, 3])
    return tf.keras.Model(image, resnet34(image, width))


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_parameters_with_a_classifier_are_those_of_torchvision():
    encoder = _encoder()
    classes = tf.keras.layers.Dense(1000)(
        tf.keras.layers.GlobalAveragePooling2D()(encoder.output[-1])
    )
    classifier = tf.keras.Model(encoder.input, classes)
    assert _count(classifier.trainable_weights) == 21_797_672


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
def test_features_halve_from_stride_2_to_32(size):
    features = _encoder(width=0.125)(np.zeros([2, *size, 3], np.float32))
    for feature, stride, channels in zip(features, (2, 4, 8, 16, 32), (8, 8, 16, 32, 64)):
        assert feature.shape == (2, size[0] // stride, size[1] // stride, channels)


def test_first_convolution_is_centred_on_every_second_pixel():
    # Keras' "same" at stride 2 would be centred half a pixel off.
    encoder = _encoder(width=0.125)
    image = np.random.default_rng(0).normal(size=(32, 64, 3)).astype(np.float32)
    conv = encoder.get_layer("stem_conv")
    got = tf.keras.Model(encoder.input, conv.output)(image[None])[0, ..., 5]
    kernel = conv.kernel.numpy()[..., 5]
    expected = sum(
        cv2.filter2D(image[..., c], -1, kernel[..., c], borderType=cv2.BORDER_CONSTANT)
        for c in range(3)
    )
    np.testing.assert_allclose(got, expected[::2, ::2], atol=1e-5)


def test_pooling_takes_the_greatest_of_3x3_around_every_second_pixel():
    encoder = _encoder(width=0.125)
    image = np.random.default_rng(1).normal(size=(1, 32, 64, 3)).astype(np.float32)
    relu, pool = (encoder.get_layer(name).output for name in ("stem_relu", "stem_pool"))
    before, after = tf.keras.Model(encoder.input, [relu, pool])(image)
    expected = cv2.dilate(before[0].numpy(), np.ones([3, 3]))[::2, ::2]
    np.testing.assert_array_equal(after[0], expected)


def test_a_block_without_its_convolutions_is_the_identity():
    encoder = _encoder(width=0.125)
    encoder.get_layer("stage1_block2_bn2").gamma.assign(tf.zeros([8]))
    image = np.random.default_rng(2).normal(size=(1, 32, 32, 3)).astype(np.float32)
    outputs = [encoder.get_layer(f"stage1_block{b}_relu2").output for b in (1, 2)]
    before, after = tf.keras.Model(encoder.input, outputs)(image)
    np.testing.assert_array_equal(before, after)


def test_every_convolution_has_a_batch_norm_and_no_bias():
    encoder = _encoder(width=0.125)
    convs = [x for x in encoder.layers if isinstance(x, tf.keras.layers.Conv2D)]
    norms = [x for x in encoder.layers if isinstance(x, tf.keras.layers.BatchNormalization)]
    assert len(convs) == len(norms) == 33 + 3  # 34 less the classifier, and three projections
    assert not any(conv.use_bias for conv in convs)
