"""Brightness curves that make images from other sources look like the training images.

NASA Worldview's true colour is contrast-stretched: dark values of reflectance take half of the
range. A linear image, such as a band of GOES, is much darker.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from clouds_tf.dataset import CLOUDS, Dataset, is_photographic
from clouds_tf.messages import counted
from clouds_tf.prediction.untrusted import decode_whole

MODES = "none, sqrt, gamma:G, worldview or auto"
# Medians over 4,946 training images of quantiles of their brightness (the mean of red, green and
# blue) outside the black gap.
_QUANTILES = (0.1, 0.5, 0.9)
_TRAINING = (25.7, 62.3, 166.0)
# Range of the powers that bring the quantiles of 99.8 % of the training images to these medians.
_DARKEST, _BRIGHTEST = 0.75, 1.66
# Of 255: the contrast stretch of corrected reflectance in MODIS Rapid Response and Worldview.
_WORLDVIEW = (0, 30, 60, 120, 190, 255), (0, 110, 160, 210, 240, 255)
LEVELS = np.arange(256, dtype=np.uint8)
_LISTED = 3  # curves in a summary


@dataclasses.dataclass(frozen=True)
class Curve:
    """A brightness curve.

    Attributes:
        levels: uint8 [256], the new value of each of 0 to 255; 0 stays 0.
        about: the curve in words, such as "gamma 0.53"; "" for none.
    """

    levels: np.ndarray = dataclasses.field(default_factory=LEVELS.copy, repr=False)
    about: str = ""


def check(stretch: str, dataset: Dataset = CLOUDS) -> None:
    """Checks that a stretch exists and fits a data set.

    Raises:
        ValueError: it is not one of MODES, or "auto" for a data set other than the competition's,
            or any but "none" for images in NumPy files.
    """
    power = _power(stretch)
    if stretch not in ("none", "worldview", "auto") and not (power and 0.1 <= power <= 10):
        raise ValueError(
            f"stretch: got {stretch!r}, expected {MODES}, with G from 0.1 to 10, such as gamma:0.6"
        )
    if stretch != "none" and not is_photographic(dataset.channels):
        raise ValueError(
            f"stretch: got {stretch}, expected none for images of {dataset.channels} channels"
        )
    # Records of the same images may have masks of another size.
    kind = "class_names", "degrees", "gap_brightness", "channels"
    if stretch == "auto" and any(getattr(dataset, k) != getattr(CLOUDS, k) for k in kind):
        raise ValueError(
            "stretch: auto is for the brightness of the competition's images, but this SavedModel "
            "was trained on other images; use sqrt or gamma:G"
        )


def _power(stretch: str) -> float | None:
    if stretch == "sqrt":
        return 0.5
    name, _, number = stretch.partition(":")
    try:
        return float(number) if name == "gamma" else None
    except ValueError:
        return None


def brightness_counts(pixels: np.ndarray, gap_brightness: int | None) -> np.ndarray:
    """Counts pixels by brightness, the mean of red, green and blue: int64 [256].

    Args:
        pixels: uint8 [..., 3].
        gap_brightness: pixels whose channels are all at most this are left out; None for none.
    """
    brightness = (pixels.sum(axis=-1, dtype=np.uint16) + 1) // 3
    if gap_brightness is not None:
        brightness = brightness[pixels.max(axis=-1) > gap_brightness]
    return np.bincount(brightness.ravel(), minlength=256)


def make_curve(stretch: str, counts: np.ndarray | None = None) -> Curve:
    """Makes the curve of a stretch.

    `auto` compares three quantiles of the brightness with those of the training, by the power that
    brings them nearest (least squares of logarithms). A picture that is darker than nearly all
    training images gets Worldview's curve, or, if that leaves it too dark or too bright, the power.
    Others stay as they are, since an image that is too bright may be full of clouds.

    Args:
        stretch: one that `check` accepts.
        counts: of `brightness_counts`, for "auto".
    """
    power = _power(stretch)
    levels = np.rint(np.interp(LEVELS, *_WORLDVIEW)).astype(np.uint8)
    worldview = Curve(levels, "Worldview's curve")
    if stretch == "worldview":
        return worldview
    if stretch == "auto":
        assert counts is not None
        fitted = _fit(LEVELS, counts)
        if not fitted < _DARKEST:
            return Curve(about="left as it is")
        if _DARKEST <= _fit(worldview.levels, counts) <= _BRIGHTEST:
            return worldview
        power = max(round(fitted, 2), 0.1)
    if power is None:
        return Curve()
    return Curve(np.rint(255 * (LEVELS / 255) ** power).astype(np.uint8), f"gamma {power:g}")


def _fit(levels: np.ndarray, counts: np.ndarray) -> float:
    """Power that brings curved quantiles nearest to those of training; NaN if none does."""
    total = np.cumsum(counts)
    found = levels[[np.searchsorted(total, q * total[-1]) for q in _QUANTILES]].astype(float)
    if not total[-1] or found.min() >= 255:
        return np.nan
    wanted, got = (np.log(np.maximum(values, 0.5) / 255) for values in (_TRAINING, found))
    return float(wanted @ got / (got @ got))


def stretched_bytes(
    stretch: str, gap_brightness: int | None, max_image_pixels: int, encoded: bytes
) -> tuple[bytes, str]:
    """Stretches an encoded image at its own size.

    Args:
        stretch: one that `check` accepts.
        gap_brightness: pixels whose channels are all at most this stay as they are.
        max_image_pixels: larger images are refused.
        encoded: a JPEG or PNG.

    Returns:
        The image as a lossless PNG, or the same bytes if no value changes; and a description of the
        curve.

    Raises:
        tf.errors.InvalidArgumentError: `untrusted.decode_images` would refuse the bytes.
    """
    if stretch == "none":
        return encoded, ""
    pixels = decode_whole(encoded, max_image_pixels).numpy()
    counts = brightness_counts(pixels, gap_brightness) if stretch == "auto" else None
    curve = make_curve(stretch, counts)
    if np.array_equal(curve.levels, LEVELS):
        return encoded, curve.about
    result = curve.levels[pixels]
    if gap_brightness is not None:
        gap = pixels.max(axis=-1) <= gap_brightness
        result[gap] = pixels[gap]
    return tf.io.encode_png(result, compression=1).numpy(), curve.about


def summary(stretch: str, abouts: Iterable[str], noun: str) -> str:
    """Lists the curves of several images in one line; "" if there are none.

    >>> summary("auto", ["gamma 0.5", "left as it is", "gamma 0.5", ""], "scene")
    'stretch auto: gamma 0.5 (2 scenes), left as it is (1 scene)'
    """
    found = collections.Counter(about for about in abouts if about).most_common()
    if not found:
        return ""
    listed = [f"{about} ({counted(n, noun)})" for about, n in found[:_LISTED]]
    if len(found) > _LISTED:
        listed.append(f"other curves ({counted(sum(n for _, n in found[_LISTED:]), noun)})")
    return f"stretch {stretch}: {', '.join(listed)}"
