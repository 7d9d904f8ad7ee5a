import cv2
import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import real_data

from clouds_tf.data.preprocessing import decode_image, resize_image

pytestmark = pytest.mark.lanes


def _smooth_image(height, width):
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return np.stack([255 * x, 255 * y, 127 + 100 * np.sin(6 * x + 4 * y)], axis=-1).astype("uint8")


def _jpeg(image):
    return tf.io.encode_jpeg(image, quality=100, chroma_downsampling=False)


@pytest.mark.parametrize(
    "size", [(64, 96), (32, 48), (31, 47), (9, 13), (64, 48), (100, 150), (32, 150)]
)
def test_equals_opencv_on_smooth_images(size):
    image = _smooth_image(64, 96)
    decoded = decode_image(_jpeg(image), size).numpy()
    smaller = (min(size[1], 96), min(size[0], 64))
    expected = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    expected = cv2.resize(expected, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert decoded.shape == (*size, 3) and decoded.dtype == np.uint8
    difference = np.abs(decoded.astype(int) - expected)
    # Two ways of averaging differ most where the mirrored border counts.
    assert difference.mean() < 1.5 and np.quantile(difference, 0.99) <= 8


def test_the_full_size_is_libjpegs_own_answer():
    encoded = _jpeg(_smooth_image(40, 56))
    decoded = decode_image(encoded, (40, 56))
    expected = cv2.imdecode(np.frombuffer(encoded.numpy(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.numpy().astype(int) - expected).max() <= 1


def test_fine_texture_does_not_alias():
    """Stripes of one pixel become grey, at any scale; picking pixels would keep them."""
    image = np.zeros((128, 192, 3), np.uint8)
    image[:, ::2] = 255
    decoded = decode_image(_jpeg(image), (40, 60)).numpy().astype(int)
    assert abs(decoded.mean() - 127.5) < 3 and decoded[5:-5, 5:-5].std() < 20


def test_grey_becomes_rgb():
    encoded = tf.io.encode_jpeg(_smooth_image(16, 24)[..., :1], quality=100)
    decoded = decode_image(encoded, (16, 24)).numpy()
    assert (decoded[..., :1] == decoded).all()


def test_the_same_eagerly_in_a_function_and_in_a_dataset():
    encoded = _jpeg(_smooth_image(70, 90))
    eager = decode_image(encoded, (32, 40))
    function = tf.function(decode_image)
    dataset = tf.data.Dataset.from_tensors(encoded).map(lambda x: decode_image(x, (32, 40)))
    assert dataset.element_spec == tf.TensorSpec([32, 40, 3], tf.uint8)
    np.testing.assert_array_equal(function(encoded, (32, 40)), eager)
    np.testing.assert_array_equal(next(iter(dataset)), eager)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b"<html>", lambda b: b[: len(b) // 2]])
def test_what_is_not_a_whole_jpeg_is_refused(damage):
    encoded = damage(_jpeg(_smooth_image(64, 96)).numpy())
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(encoded, (32, 48))


def test_a_native_image_is_close_to_its_full_decode():
    path = str(real_data("clouds_native") / "train_images" / "a9ab897.jpg")
    full = cv2.imread(path)[..., ::-1]
    expected = cv2.resize(full, (480, 320), interpolation=cv2.INTER_AREA).astype(int)
    difference = decode_image(tf.io.read_file(path), (320, 480)).numpy() - expected
    # Brightness is kept; texture is a little sharper or softer, as the filters are.
    assert abs(difference.mean()) < 0.2 and np.abs(difference).mean() < 6


@pytest.mark.parametrize("size", [(5, 7), (7, 10), (6, 6)])
def test_no_pixel_is_moved_by_a_size_that_libjpeg_rounds_up(size):
    """An eighth of 84 columns is 10.5; taken as 11 it would move the right border by a third."""
    y, x = np.mgrid[:56, :84].astype(np.float32)
    image = np.stack([3 * x, 4 * y, x + y], axis=-1).astype(np.uint8)
    expected = cv2.resize(image.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
    difference = np.abs(decode_image(_jpeg(image), size).numpy() - expected)
    # A third of a pixel of the result is 12 in the red of (5, 7).
    assert difference.max() < 3


@pytest.mark.parametrize("size", [(64, 96), (50, 75), (24, 40), (20, 30), (10, 15), (100, 150)])
def test_pixels_are_resized_as_a_jpeg_is(size):
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    image = cv2.resize(noise, (192, 128), interpolation=cv2.INTER_CUBIC)
    encoded = _jpeg(image)
    pixels = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
    expected = decode_image(encoded, size).numpy().astype(int)
    found = resize_image(pixels, size).numpy()
    assert np.abs(found - expected).mean() < 0.6 and np.abs(found - expected).max() <= 6
    batch = resize_image(tf.stack([pixels, pixels[::-1]]), size).numpy()
    np.testing.assert_array_equal(batch[0], found)


def test_pixels_of_a_native_image_are_resized_as_its_jpeg_is():
    path = str(real_data("clouds_native") / "train_images" / "a9ab897.jpg")
    encoded = tf.io.read_file(path)
    pixels = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE")
    for size in ((320, 480), (192, 288), (128, 192)):
        expected = decode_image(encoded, size).numpy().astype(int)
        difference = resize_image(pixels, size).numpy() - expected
        assert np.abs(difference).mean() < 0.5 and np.abs(difference).max() <= 6
