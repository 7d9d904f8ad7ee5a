"""Decodes images from untrusted requests, in bounded time and memory."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf.data.preprocessing import (
    DEEP,
    JPEG,
    PNG,
    TOO_DIM,
    decode_image,
    decode_png,
    encoded_size,
    image_size,
    is_png,
    numpy_kind,
    numpy_size,
)
from clouds_tf.data.source_images import other_format, why_not_numpy
from clouds_tf.dataset import is_photographic

MAX_IMAGE_PIXELS = 2**25  # eleven times the pixels of a competition image
LARGEST_IMAGES = 4  # all images of a request may have the pixels of so many largest ones

# Each scan of a progressive JPEG processes all pixels again, and may be only a few bytes long.
_SCAN, _MAX_SCANS = b"\xff\xda", 50
# libpng unpacks each of these chunks, to at most 8 MB, before it decodes the image.
_PACKED, _MAX_PACKED = (b"zTXt", b"iTXt", b"iCCP"), 20
_WINDOW = 1 << 20  # bytes to search at a time, to bound memory


def max_image_bytes(max_image_pixels: int, channels: int = 3) -> int:
    """Maximum bytes of an image file: those of the widest pixels, and 1 MB for the rest.

    >>> max_image_bytes(1000)
    1056576
    """
    return max(8, channels) * max_image_pixels + (1 << 20)  # PNG has up to 8 bytes a pixel


def decode_images(
    image_bytes: tf.Tensor,
    size: tuple[int, int],
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    channels: int = 3,
) -> tf.Tensor:
    """Decodes images, unless their headers show that they are too large.

    As in training, EXIF orientation is not applied.

    Args:
        image_bytes: string [N], JPEGs and PNGs of any sizes; NumPy files if `channels` is not 1 or
            3, see `decode_image`.
        size: (height, width) of the result.
        max_image_pixels: maximum number of pixels of an image; all images together may have four
            times as many, and `max_image_bytes` limits the bytes of each.
        channels: number of channels of the data set.

    Returns:
        uint8 [N, height, width, channels].

    Raises:
        tf.errors.InvalidArgumentError: bytes are not a complete image, the image is too large (then
            nothing is decoded), or no value of a 16-bit PNG reaches 16384.
    """

    pixels = tf.map_fn(
        lambda encoded: _count_pixels(encoded, max_image_pixels, channels),
        image_bytes,
        fn_output_signature=tf.int64,
    )
    total, limit = tf.reduce_sum(pixels), LARGEST_IMAGES * max_image_pixels
    message = ["expected at most", limit, "pixels in all images of a request, got", total]
    with tf.control_dependencies([tf.Assert(total <= limit, message)]):
        image_bytes = tf.identity(image_bytes)
    return tf.map_fn(
        lambda encoded: decode_image(encoded, size, channels),
        image_bytes,
        fn_output_signature=tf.TensorSpec([*size, channels], tf.uint8),
    )


def decode_whole(encoded: bytes, max_image_pixels: int = MAX_IMAGE_PIXELS) -> tf.Tensor:
    """Decodes a JPEG or PNG at its own size, RGB uint8, with the limits of `decode_images`."""
    _count_pixels(tf.constant(encoded), max_image_pixels)
    if encoded.startswith(PNG):
        return decode_png(tf.constant(encoded))
    return tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE")


def _count_pixels(encoded: tf.Tensor, max_image_pixels: int, channels: int = 3) -> tf.Tensor:
    """Number of pixels in the header of an image, int64; InvalidArgumentError if it is refused."""
    max_bytes = max_image_bytes(max_image_pixels, channels)
    if is_photographic(channels):
        expected = "a JPEG or a PNG"
        known = is_png(encoded) | (tf.strings.substr(encoded, 0, len(JPEG)) == JPEG)
    else:
        expected = numpy_kind(channels)
        known = numpy_size(encoded, channels)[0] > 0
    length = tf.strings.length(encoded)
    checks = [
        tf.Assert(known, [f"expected {expected}, got something else"]),
        tf.Assert(length <= max_bytes, [f"expected at most {max_bytes} bytes, got", length]),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)
    if is_photographic(channels):
        number = tf.cond(
            is_png(encoded),
            lambda: _at_most(_MAX_PACKED, "compressed texts", encoded, _PACKED),
            lambda: _at_most(_MAX_SCANS, "scans", encoded, [_SCAN]),
        )
        with tf.control_dependencies([number]):
            encoded = tf.identity(encoded)
    source_size = tf.cast(encoded_size(encoded, channels), tf.int64)
    height, width = tf.unstack(source_size, 2)
    allowed = (height > 0) & (width > 0) & (height * width <= max_image_pixels)
    message = ["expected an image of at most", max_image_pixels, "pixels, got (height, width)"]
    with tf.control_dependencies([tf.Assert(allowed, [*message, source_size])]):
        return height * width


def _at_most(limit: int, things: str, encoded: tf.Tensor, patterns: Sequence[bytes]) -> tf.Tensor:
    """Counts patterns of equal length, int32; InvalidArgumentError above the limit.

    It searches one window after the other, and stops at the limit. Splitting the string at the
    patterns would take 30 times its size in memory.
    """
    step = _WINDOW - len(patterns[0]) + 1  # a pattern across two windows is found in one of them

    def goes_on(start: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return (start < tf.strings.length(encoded)) & (number <= limit)

    def search(start: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        content = tf.io.decode_raw(tf.strings.substr(encoded, start, _WINDOW), tf.uint8)
        return start + step, number + tf.add_n([_count(content, p) for p in patterns])

    # tf.strings.substr refuses a start after the end, as in an empty string.
    _, number = tf.while_loop(goes_on, search, (tf.constant(0), tf.constant(0)))
    message = [f"expected at most {limit} {things}, got", number]
    with tf.control_dependencies([tf.Assert(number <= limit, message)]):
        return tf.identity(number)


def _count(content: tf.Tensor, pattern: bytes) -> tf.Tensor:
    """Counts a pattern in bytes, uint8 [N]: int32."""
    starts = tf.maximum(tf.size(content) - len(pattern) + 1, 0)
    matches = [content[i : i + starts] == byte for i, byte in enumerate(pattern)]
    # tf.math.count_nonzero would convert each byte to an int64.
    return tf.reduce_sum(tf.cast(functools.reduce(tf.logical_and, matches), tf.int32))


def why_too_dim(encoded: bytes, max_image_pixels: int = MAX_IMAGE_PIXELS) -> str:
    """Explains why `decode_images` refuses a 16-bit PNG with dark values; "" for other bytes."""
    if not encoded.startswith(PNG) or encoded[24:25] != DEEP:
        return ""
    height, width = image_size(encoded)
    if height * width > max_image_pixels:
        return ""
    try:
        decode_png(tf.constant(encoded))
    except tf.errors.InvalidArgumentError as error:
        return TOO_DIM if TOO_DIM in error.message else ""
    return ""


def why_unreadable(
    encoded: bytes, max_image_pixels: int = MAX_IMAGE_PIXELS, channels: int = 3
) -> str:
    """Explains why `decode_images` has refused bytes.

    >>> why_unreadable(b"GIF89a")
    'a GIF, expected a JPEG or a PNG'
    """
    if not encoded:
        return "an empty file"
    if not is_photographic(channels):
        return _why_not_numpy(encoded, max_image_pixels, channels)
    if not encoded.startswith((JPEG, PNG)):
        name = other_format(encoded)
        if name == "a TIFF":
            return f"{name}, which tools/predict_scenes.py reads"
        return f"{name}, expected a JPEG or a PNG" if name else "neither a JPEG nor a PNG"
    kind = "PNG" if encoded.startswith(PNG) else "JPEG"
    try:
        height, width = image_size(encoded)
    except tf.errors.InvalidArgumentError:
        return f"a damaged or truncated {kind}"
    if height * width > max_image_pixels:
        return f"{_too_large(height, width, max_image_pixels)}, or use tools/predict_scenes.py"
    limit = max_image_bytes(max_image_pixels)
    if len(encoded) > limit:
        return f"{len(encoded):,} bytes, expected at most {limit:,}"
    if encoded.count(_SCAN) > _MAX_SCANS and kind == "JPEG":
        return f"a JPEG of {encoded.count(_SCAN)} scans, expected at most {_MAX_SCANS}"
    return why_too_dim(encoded, max_image_pixels) or f"a damaged or truncated {kind}"


def _why_not_numpy(encoded: bytes, max_image_pixels: int, channels: int) -> str:
    height, width = image_size(encoded, channels)
    if not height:
        return why_not_numpy(encoded, channels)
    if height * width > max_image_pixels:
        return _too_large(height, width, max_image_pixels)
    return "a damaged or truncated NumPy file"


def _too_large(height: int, width: int, max_image_pixels: int) -> str:
    return (
        f"{height}x{width} (height x width) are more pixels than the SavedModel takes, "
        f"{max_image_pixels:,}; export it with a larger --max_image_pixels"
    )
