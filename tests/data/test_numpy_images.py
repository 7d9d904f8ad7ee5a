"""Images of other channels than RGB: NumPy files, grey, and what takes them."""

import dataclasses
import io

import hypothesis
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from clouds_tf.data import augmentation, augmentations, degradation
from clouds_tf.data.examples import check_exclusive
from clouds_tf.data.preprocessing import decode_image, encode_image, encoded_size, resize_image
from clouds_tf.data.source_images import read_image
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction import stretch
from clouds_tf.prediction.untrusted import decode_images, why_unreadable


def _pixels(height, width, channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [height, width, channels], np.uint8)


def _saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([2, 4, 5, 16]), st.integers(0, 9)
)
def test_a_file_of_numpy_is_decoded_as_numpy_reads_it(height, width, channels, seed):
    pixels = _pixels(height, width, channels, seed)
    encoded = _saved(pixels)
    assert encoded_size(encoded, channels).numpy().tolist() == [height, width]
    np.testing.assert_array_equal(decode_image(encoded, (height, width), channels), pixels)
    np.testing.assert_array_equal(encode_image(pixels), encoded)


@pytest.mark.lanes
def test_in_a_graph_it_is_decoded_and_resized_channel_by_channel():
    pixels = _pixels(64, 96, 5)
    decode = tf.function(lambda x: decode_images(x, (20, 30), channels=5))
    found = decode(tf.constant([_saved(pixels)] * 2))
    for i in range(5):
        alone = resize_image(pixels[..., i : i + 1], (20, 30))[..., 0]
        np.testing.assert_array_equal(found[1, ..., i], alone)


PIXELS = _pixels(6, 8, 4)
WRONG = {
    "an empty file": b"",
    "a GIF, expected a NumPy file of uint8 [height, width, 4]": b"GIF89a",
    "a PNG, expected a NumPy": tf.io.encode_png(PIXELS).numpy(),
    "uint16 [6, 8, 4], expected a NumPy file of uint8": _saved(PIXELS.astype(np.uint16)),
    "uint8 [6, 8, 3], expected": _saved(PIXELS[..., :3]),
    "uint8 [6, 8], expected": _saved(PIXELS[..., 0]),
    "uint8 [6, 8, 4] in Fortran's order": _saved(np.asfortranarray(PIXELS)),
    "not a whole, readable NumPy file": _saved(PIXELS)[:40],
    "a damaged or truncated NumPy file": _saved(PIXELS)[:-1],
    "damaged or truncated": _saved(PIXELS) + b"x",
    "6x8 (height x width) are more pixels than the SavedModel takes, 47": _saved(PIXELS),
}


@pytest.mark.parametrize("reason", WRONG)
def test_other_bytes_are_refused_with_what_was_got(reason):
    content, limit = WRONG[reason], 47 if "47" in reason else 1000
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_images(tf.constant([content]), (6, 8), limit, channels=4)
    assert reason in why_unreadable(content, limit, channels=4)


def test_files_are_checked_and_reduced_for_the_records(tmp_path):
    path = str(tmp_path / "a.npy")
    pixels = _pixels(64, 96, 4)
    np.save(path, pixels)
    assert read_image(path, (64, 96), channels=4) == (_saved(pixels), (64, 96))
    reduced, size = read_image(path, (64, 96), (32, 48), channels=4)
    assert size == (32, 48)
    np.testing.assert_array_equal(np.load(io.BytesIO(reduced)), resize_image(pixels, (32, 48)))
    for array, reason in (
        (pixels.astype(float), r"^float64 \[64, 96, 4\], expected .* see docs/own_data_set.md"),
        (pixels[:32], "^32x96 .* is another shape than the masks' 64x96"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=reason):
            read_image(path, (64, 96), channels=4)
    with pytest.raises(ValueError, match="^a NumPy file, expected a JPEG or a PNG$"):
        read_image(path, (64, 96))


@pytest.mark.parametrize(
    "mode, ending", [("L", "png"), ("RGB", "png"), ("LA", "png"), ("P", "png")]
)
def test_grey_images_have_one_channel(mode, ending):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    file = io.BytesIO()
    PIL.Image.fromarray(grey).convert(mode).save(file, ending)
    expected = PIL.Image.fromarray(grey).convert(mode).convert("L")
    found = decode_image(file.getvalue(), (6, 8), channels=1)
    np.testing.assert_array_equal(found[..., 0], expected)


def test_a_jpeg_of_one_channel_is_its_brightness():
    colours = np.full([16, 16, 3], (200, 40, 90), np.uint8)
    encoded = tf.io.encode_jpeg(colours, quality=100)
    expected = 0.299 * 200 + 0.587 * 40 + 0.114 * 90  # ITU-R BT.601
    assert np.abs(decode_image(encoded, (16, 16), channels=1).numpy() - expected).max() <= 1.5


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_warps_move_every_channel_as_they_move_rgb(channels):
    pixels, mask = _pixels(40, 60, channels), np.zeros([40, 60, 2], np.uint8)
    places = augmentation.affine_places((40, 60), [3, 4])
    found = augmentation.warp({"image": tf.constant(pixels), "mask": mask}, places)["image"]
    for i in range(channels):
        rgb = tf.constant(np.repeat(pixels[..., i : i + 1], 3, axis=2))
        alone = augmentation.warp({"image": rgb, "mask": mask}, places)["image"]
        np.testing.assert_array_equal(found[..., i], alone[..., 0])


def test_brightness_changes_in_every_channel():
    image = tf.fill([4, 4, 6], tf.constant(100, tf.uint8))
    found = degradation.photometric(image, [1, 2]).numpy()
    assert found.shape == (4, 4, 6)
    np.testing.assert_array_equal(found, np.broadcast_to(found[0, 0], found.shape))
    assert len(np.unique(found[0, 0])) > 3 and np.abs(found[0, 0].astype(int) - 100).max() < 60


@pytest.mark.parametrize("spec", ["robust", "keras_cv:random_hue"])
def test_changes_of_colour_are_for_rgb(spec):
    augmentations.check_augmentation(spec)
    with pytest.raises(ValueError, match=f"{spec} is for RGB, the images have 4 channels; take"):
        augmentations.find_augmentation(spec, channels=4)


def test_curves_of_brightness_are_not_for_numpy_files():
    stretch.check("sqrt", dataclasses.replace(CLOUDS, channels=1))
    stretch.check("none", dataclasses.replace(CLOUDS, channels=4))
    with pytest.raises(ValueError, match="stretch: got sqrt, expected none for .* 4 channels"):
        stretch.check("sqrt", dataclasses.replace(CLOUDS, channels=4))


def test_masks_of_exclusive_classes_may_not_overlap():
    dataset = dataclasses.replace(
        CLOUDS, class_names=("a", "b", "c"), mask_size=(4, 4), exclusive=True
    )
    check_exclusive(["1 4", "5 4", ""], dataset)
    overlapping = ["1 4", "12 3", "3 1 13 4"]
    with pytest.raises(ValueError, match="^2 pixels belong to both b and c, but the data set"):
        check_exclusive(overlapping, dataset)
    check_exclusive(overlapping, dataclasses.replace(dataset, exclusive=False))
    check_exclusive(["1 4"], dataclasses.replace(dataset, class_names=("a",)))
