import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.prediction.ensemble import input_sizes, mean_prediction

pytestmark = pytest.mark.lanes


def _left_half(images):
    """A model that sees the class on the left, whatever the image shows."""
    width = images.shape[2]
    left = tf.range(width) < width // 2
    logits = tf.where(left, 100.0, -100.0)[tf.newaxis, tf.newaxis, :, tf.newaxis]
    return {"logits": tf.broadcast_to(logits, [images.shape[0], images.shape[1], width, 4])}


def _brightness(images):
    return {"logits": tf.tile(tf.reduce_mean(images, axis=3, keepdims=True), [1, 1, 1, 4])}


def test_one_model_is_left_as_it_is():
    images = tf.zeros([2, 6, 8, 3])
    mean, presence = mean_prediction([_left_half], [images], (6, 8))
    mean = mean.numpy()
    assert mean.shape == (2, 6, 8, 4) and mean.dtype == np.float32
    assert (mean[:, :, :4] == 1).all() and (mean[:, :, 4:] == 0).all()
    np.testing.assert_array_equal(presence, np.ones((2, 4)))  # the highest probability


def test_flips_average_out_what_is_not_in_the_image():
    images = tf.zeros([1, 6, 8, 3])
    mean, _ = mean_prediction([_left_half], [images], (6, 8), "flips")
    np.testing.assert_allclose(mean, 0.5)


def test_flips_keep_what_is_in_the_image():
    images = tf.random.stateless_uniform([2, 6, 8, 3], [1, 2], -3, 3)
    plain, _ = mean_prediction([_brightness], [images], (6, 8))
    flipped, _ = mean_prediction([_brightness], [images], (6, 8), "flips")
    np.testing.assert_allclose(flipped, plain, atol=1e-6)


def test_models_are_averaged_each_at_its_own_size():
    images = [tf.zeros([1, 6, 8, 3]), tf.fill([1, 3, 4, 3], 100.0)]
    mean = mean_prediction([_left_half, _brightness], images, (6, 8))[0].numpy()
    np.testing.assert_allclose(mean[:, :, :4], 1)
    np.testing.assert_allclose(mean[:, :, 4:], 0.5)


def test_presence_is_the_mean_of_the_heads_that_there_are():
    def with_head(images):
        bright = tf.reduce_max(images[:, :, :4], axis=[1, 2, 3])  # anything but its mirror image
        presence = tf.where(bright > 0, np.log(3.0), -np.log(3.0))[:, tf.newaxis]
        return {**_left_half(images), "presence_logits": tf.tile(presence, [1, 4])}

    images = tf.concat([tf.zeros([1, 6, 4, 3]), tf.ones([1, 6, 4, 3])], axis=2)
    _, presence = mean_prediction([with_head, _left_half], [images, images], (6, 8))
    np.testing.assert_allclose(presence, np.full((1, 4), 0.25), rtol=1e-6)
    mean, presence = mean_prediction([with_head], [images], (6, 8), "flips")
    np.testing.assert_allclose(presence, np.full((1, 4), 0.5), rtol=1e-6)
    np.testing.assert_allclose(mean, 0.5)


def test_members_weigh_what_is_said():
    images = [tf.zeros([1, 6, 8, 3]), tf.fill([1, 3, 4, 3], 100.0)]
    mean, presence = mean_prediction(
        [_left_half, _brightness], images, (6, 8), "flips", member_weights=(3, 1)
    )
    np.testing.assert_allclose(mean, 0.75 * 0.5 + 0.25)
    np.testing.assert_allclose(presence, 0.625)


def _first_row(images):
    """A model that sees the class in the first row, whatever the image shows."""
    logits = tf.where(tf.range(images.shape[1]) < 1, 100.0, -100.0)[tf.newaxis, :, None, None]
    return {"logits": tf.broadcast_to(logits, [*images.shape[:3], 4])}


def test_rotations_are_all_symmetries_of_a_square():
    images = tf.random.stateless_uniform([2, 4, 4, 3], [1, 2], -3, 3)
    plain, _ = mean_prediction([_brightness], [images], (8, 12))
    rotated, _ = mean_prediction([_brightness], [images], (8, 12), "rotations")
    np.testing.assert_allclose(rotated, plain, atol=1e-6)
    mean, _ = mean_prediction([_first_row], [images], (4, 4), "rotations")
    border = np.full((4, 4), 0.25)  # each edge is the first row in 2 of 8 views
    border[1:3, 1:3] = 0
    border[[0, 0, 3, 3], [0, 3, 0, 3]] = 0.5
    np.testing.assert_allclose(mean[1, :, :, 2], border, atol=1e-6)


def test_scales_are_sizes_of_the_input():
    assert input_sizes((256, 384), "flips") == [(256, 384)]
    assert input_sizes((48, 72), "rotations+scales") == [(48, 72), (32, 64), (64, 96)]
    assert input_sizes((32, 32), "scales") == [(32, 32)]


@pytest.mark.parametrize(
    "models, images, augmentation, message",
    [
        ([], [], "none", "got 0 models and 0 batches"),
        ([_left_half], [tf.zeros([1, 6, 8, 3])] * 2, "none", "got 1 models and 2 batches"),
        ([_left_half], [tf.zeros([1, 6, 8, 3])], "turns", "got 'turns', expected one of .*flips"),
        ([_left_half], [tf.zeros([1, 6, 8, 3])], "rotations", "rotations need square .* 6x8"),
    ],
)
def test_impossible_arguments_are_named(models, images, augmentation, message):
    with pytest.raises(ValueError, match=message):
        mean_prediction(models, images, (6, 8), augmentation)
