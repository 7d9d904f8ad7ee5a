import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction import stretch as stretches


def _sky(seed=0):
    """A picture whose brightness has the quantiles of a training image."""
    share = np.random.default_rng(seed).random((300, 400))
    grey = np.interp(share, [0, 0.1, 0.5, 0.9, 1], [15, 25.7, 62.3, 166, 255])
    return np.repeat(np.rint(grey).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def _curve(stretch, pixels):
    return stretches.make_curve(stretch, stretches.brightness_counts(pixels, 2))


def test_brightness_is_counted_where_it_is_not_gap():
    pixels = np.array([[[0, 2, 1], [3, 0, 0], [9, 9, 10], [255, 255, 255]]], np.uint8)
    counts = stretches.brightness_counts(pixels, 2)
    assert {i: n for i, n in enumerate(counts) if n} == {1: 1, 9: 1, 255: 1}
    assert stretches.brightness_counts(pixels, None).sum() == 4


@pytest.mark.parametrize("stretch, power", [("sqrt", 0.5), ("gamma:0.6", 0.6), ("gamma:2", 2)])
def test_powers_keep_black_and_white(stretch, power):
    levels = stretches.make_curve(stretch).levels
    expected = np.rint((np.linspace(0, 1, 256) ** power) * 255)
    np.testing.assert_array_equal(levels, expected)
    assert levels[0] == 0 and levels[255] == 255


def test_auto_leaves_pictures_like_the_training_and_brightens_linear_ones():
    sky = _sky()
    same = _curve("auto", sky)
    assert same.about == "left as it is"
    np.testing.assert_array_equal(same.levels, np.arange(256))
    # Undone, Worldview's curve is found again; each of its knots comes back.
    knots = [0, 110, 160, 210, 240, 255], [0, 30, 60, 120, 190, 255]
    linear = np.rint(np.interp(sky, *knots)).astype(np.uint8)
    found = _curve("auto", linear)
    assert found.about == "Worldview's curve"
    assert abs(found.levels[linear].astype(int) - sky).max() <= 2
    # A power that is far from that curve is measured.
    dark = np.rint(255 * (sky / 255) ** (1 / 0.35)).astype(np.uint8)
    fitted = stretches.make_curve("auto", stretches.brightness_counts(dark, None))
    assert fitted.about.startswith("gamma ") and abs(float(fitted.about[6:]) - 0.35) < 0.03


def test_auto_does_not_darken_clouds_and_copes_with_nothing():
    assert _curve("auto", np.full((9, 9, 3), 250, np.uint8)).about == "left as it is"
    assert _curve("auto", np.full((9, 9, 3), 255, np.uint8)).about == "left as it is"
    assert _curve("auto", np.zeros((9, 9, 3), np.uint8)).about == "left as it is"


@pytest.mark.parametrize("text", ["gamma", "gamma:", "gamma:x", "gamma:0", "gamma:nan", "root"])
def test_other_stretches_are_refused(text):
    with pytest.raises(ValueError, match=f"stretch: got '{text}'"):
        stretches.check(text)


def test_auto_is_refused_for_images_of_another_kind():
    other = Dataset(("a", "b"), (20, 30), (20, 30))
    with pytest.raises(ValueError, match="auto is for the brightness of the competition"):
        stretches.check("auto", other)
    stretches.check("sqrt", other)
    stretches.check("auto", CLOUDS)


def test_encoded_images_are_stretched_without_loss_and_keep_their_gap():
    sky = _sky()
    sky[:, :40] = [2, 1, 0]
    file = io.BytesIO()
    Image.fromarray(sky).save(file, "PNG")
    stretched, about = stretches.stretched_bytes("sqrt", 2, 10**6, file.getvalue())
    found = cv2.imdecode(np.frombuffer(stretched, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    table = np.rint(255 * np.sqrt(np.arange(256) / 255)).astype(np.uint8)
    np.testing.assert_array_equal(found[:, 40:], cv2.LUT(sky, table)[:, 40:])
    np.testing.assert_array_equal(found[:, :40], sky[:, :40])
    assert about == "gamma 0.5"
    for stretch in ("none", "auto"):
        assert stretches.stretched_bytes(stretch, 2, 10**6, file.getvalue())[0] == file.getvalue()
    for content in (b"GIF89a", file.getvalue()[:-100]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            stretches.stretched_bytes("sqrt", 2, 10**6, content)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most"):
        stretches.stretched_bytes("sqrt", 2, 10**4, file.getvalue())
