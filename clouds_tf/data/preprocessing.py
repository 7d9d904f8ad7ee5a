"""Decodes and resizes images, in the same way for training and serving."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from clouds_tf.dataset import is_photographic

_Size = Union["tf.Tensor", Sequence[int]]  # (height, width)

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"  # first bytes
NUMPY = b"\x93NUMPY\x01\x00"  # version 1 of its format, which np.save writes
DEEP = b"\x10"  # byte 24 of a PNG with 16 bits per value
# Of 255. Values of a 14-, 12- or 10-bit sensor stay below it if they are stored in 16 bits.
_DIMMEST_WHITE = 64
TOO_DIM = "a PNG of 16 bits a value, all below 16384; scale them up to 65535"

_SIDE = r"([1-9]\d{0,4})"

# Of 255. A pixel of a resized image was observed if one of its colours is above it; JPEG noise and
# neighbours in the black gap between two orbits are below it.
BLACK = 10

_DCT = "INTEGER_ACCURATE"
_REDUCTIONS = (1, 2, 4, 8)  # libjpeg decodes at these fractions, in the frequency domain
# Maximum displacement of a pixel, in pixels of the result. libjpeg rounds reduced sizes up: an
# eighth of 2100 columns is 263, which represent 2104.
_MISPLACEMENT = 0.05


def decode_image(encoded: tf.Tensor | bytes, size: _Size, channels: int = 3) -> tf.Tensor:
    """Decodes an image at a given size.

    Args:
        encoded: the bytes of a JPEG or a PNG for 1 or 3 channels, otherwise of a NumPy file;
            string []. Grey and CMYK become RGB, or colours become grey; 16-bit values keep their
            upper 8 bits; transparency and EXIF orientation are ignored.
        size: (height, width) of the result.
        channels: 3 for RGB, 1 for grey, or the channels of the NumPy file.

    Returns:
        uint8 [height, width, channels].

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not a whole image of this kind, or no value of
            a 16-bit PNG reaches 16384.
    """
    if is_photographic(channels):
        image = tf.cond(
            is_png(encoded),
            lambda: resize_image(decode_png(encoded, channels), size),
            lambda: _decode_jpeg(encoded, size, channels),
        )
    else:
        image = resize_image(decode_numpy(encoded, channels), size)
    return tf.reshape(image, [*tf.unstack(tf.convert_to_tensor(size)), channels])


def is_png(encoded: tf.Tensor | bytes) -> tf.Tensor:
    """Whether bytes, string [], begin like a PNG."""
    return tf.strings.substr(encoded, 0, len(PNG)) == PNG


def decode_png(encoded: tf.Tensor | bytes, channels: int = 3) -> tf.Tensor:
    """uint8 [height, width, 1 or 3]; InvalidArgumentError if its 16-bit values are too dark."""
    pixels = tf.io.decode_png(encoded, channels)
    is_dim = (tf.strings.substr(encoded, 24, 1) == DEEP) & (tf.reduce_max(pixels) < _DIMMEST_WHITE)
    with tf.control_dependencies([tf.Assert(~is_dim, [f"got {TOO_DIM}"])]):
        return tf.identity(pixels)


def numpy_kind(channels: int) -> str:
    """Describes NumPy files that are images of a number of channels.

    >>> numpy_kind(4)
    'a NumPy file of uint8 [height, width, 4]'
    """
    return f"a NumPy file of uint8 [height, width, {channels}]"


def decode_numpy(encoded: tf.Tensor | bytes, channels: int) -> tf.Tensor:
    """Decodes a NumPy file of uint8 [height, width, channels]; InvalidArgumentError for others."""
    size = numpy_size(encoded, channels)
    message = f"expected {numpy_kind(channels)}, got something else"
    with tf.control_dependencies([tf.Assert(tf.reduce_all(size > 0), [message])]):
        content = tf.strings.substr(encoded, len(NUMPY) + 2 + _header_length(encoded), -1)
    values = tf.io.decode_raw(content, tf.uint8)
    count = channels * tf.reduce_prod(tf.cast(size, tf.int64))
    whole = tf.size(values, tf.int64) == count
    with tf.control_dependencies([tf.Assert(whole, ["got", tf.size(values), "bytes of", count])]):
        return tf.reshape(values, [size[0], size[1], channels])


def _header_length(encoded: tf.Tensor | bytes) -> tf.Tensor:
    start = tf.strings.substr(tf.strings.join([encoded, b"\0" * 10]), len(NUMPY), 2)
    return tf.cast(tf.io.decode_raw(start, tf.uint16, little_endian=True)[0], tf.int32)


def numpy_size(encoded: tf.Tensor | bytes, channels: int) -> tf.Tensor:
    """(height, width) in the header of a NumPy file, int32 [2]; zeros if it is another file."""
    start, length = len(NUMPY), tf.strings.length(encoded)
    header = tf.strings.substr(encoded, 0, tf.minimum(length, start + 2 + _header_length(encoded)))
    text = tf.strings.substr(tf.strings.join([header, b" " * (start + 2)]), start + 2, -1)
    pattern = (
        r"\{'descr': '\|u1', 'fortran_order': False, "
        rf"'shape': \({_SIDE}, {_SIDE}, {channels}\), \}}\s*"
    )
    known = tf.strings.substr(encoded, 0, start) == NUMPY
    return tf.cond(
        known & tf.strings.regex_full_match(text, pattern),
        lambda: tf.strings.to_number(
            [tf.strings.regex_replace(text, pattern, part) for part in (r"\1", r"\2")], tf.int32
        ),
        lambda: tf.zeros([2], tf.int32),
    )


def encode_image(pixels: np.ndarray, jpeg_quality: int = 95) -> bytes:
    """Encodes uint8 [height, width, channels]: 1 or 3 as a JPEG, others as a NumPy file."""
    if is_photographic(pixels.shape[2]):
        return tf.io.encode_jpeg(pixels, quality=jpeg_quality).numpy()
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(pixels))
    return file.getvalue()


def encoded_size(encoded: tf.Tensor | bytes, channels: int = 3) -> tf.Tensor:
    """The (height, width) in the header of an image, int32 [2]; `image_size` for graphs."""
    if not is_photographic(channels):
        return numpy_size(encoded, channels)
    return tf.cond(
        is_png(encoded),
        lambda: _png_size(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
    )


def image_size(encoded: bytes, channels: int = 3) -> tuple[int, int]:
    """Reads the (height, width) of an image from its header.

    Raises:
        tf.errors.InvalidArgumentError: it is neither JPEG nor PNG, or its header is truncated.
    """
    if not is_photographic(channels):
        height, width = numpy_size(encoded, channels).numpy().tolist()
    elif encoded.startswith(PNG):
        width, height = struct.unpack(">II", encoded[16:24].ljust(8, b"\0"))
    else:
        height, width = tf.io.extract_jpeg_shape(encoded).numpy()[:2].tolist()
    return height, width


def _png_size(encoded: tf.Tensor | bytes) -> tf.Tensor:
    """The (height, width) in the header of a PNG, int32 [2]; zeros if it is truncated."""
    header = tf.strings.join([tf.strings.substr(encoded, 0, 24), b"\0" * 24])
    sides = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(sides, [0])


def _decode_jpeg(encoded: tf.Tensor | bytes, size: _Size, channels: int) -> tf.Tensor:
    """Decodes a JPEG at the smallest of libjpeg's scales that is fine enough, then resizes it.

    That scale is not below `size`, displaces no pixel by more than 0.05, and saves most of the
    work. The remaining step is area averaging to shrink, or bilinear interpolation to enlarge.
    """
    image = tf.switch_case(
        _choose_reduction(tf.io.extract_jpeg_shape(encoded)[:2], size),
        # TensorFlow's default, the fast transform, makes real images darker by 0.7 of 255.
        [
            functools.partial(tf.io.decode_jpeg, encoded, channels, ratio, dct_method=_DCT)
            for ratio in _REDUCTIONS
        ],
    )
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == size),
        lambda: image,
        lambda: _resample(tf.cast(image, tf.float32), size),
    )


def resize_image(image: tf.Tensor | np.ndarray, size: _Size) -> tf.Tensor:
    """Resizes pixels like `decode_image` resizes a JPEG.

    Where that would decode at a fraction of the size, blocks of pixels are averaged first. On
    images of the competition, the two then differ by less than 0.3 of 255 on average, and by at
    most 4; a single area average would differ by 5 and 68.

    Args:
        image: uint8 [H, W, C] or [N, H, W, C].
        size: (height, width) of the result.

    Returns:
        uint8 [height, width, C] or [N, height, width, C].
    """
    image = tf.convert_to_tensor(image)
    pixels = tf.cast(image if image.shape.rank == 4 else image[tf.newaxis], tf.float32)
    reduction = _choose_reduction(tf.shape(pixels)[1:3], size)
    pixels = tf.switch_case(reduction, [lambda r=r: _average(pixels, r) for r in _REDUCTIONS])
    resized = _resample(pixels, size)
    return resized if image.shape.rank == 4 else resized[0]


def _choose_reduction(source_size: tf.Tensor, size: _Size) -> tf.Tensor:
    """Index of the strongest of _REDUCTIONS that is fine and exact enough, int32 []."""
    usable = []
    for reduction in _REDUCTIONS[1:]:
        reduced = -(-source_size // reduction)
        surplus = tf.cast((reduced * reduction - source_size) * size, tf.float32)
        exact = surplus <= _MISPLACEMENT * tf.cast(source_size, tf.float32)
        usable.append(tf.reduce_all((reduced >= size) & exact))
    # The strongest one, even if a weaker one is not usable.
    return tf.reduce_max(tf.cast(usable, tf.int32) * tf.range(1, len(_REDUCTIONS)))


def _average(pixels: tf.Tensor, reduction: int) -> tf.Tensor:
    """Averages blocks of float32 [N, H, W, C]; the last ones repeat the border, as in libjpeg."""
    if reduction == 1:
        return pixels
    height, width = -tf.shape(pixels)[1] % reduction, -tf.shape(pixels)[2] % reduction
    pixels = tf.pad(pixels, [[0, 0], [0, height], [0, width], [0, 0]], "SYMMETRIC")
    return tf.nn.avg_pool2d(pixels, reduction, reduction, "VALID")


def _resample(image: tf.Tensor, size: _Size) -> tf.Tensor:
    """float32 [..., H, W, 3] -> uint8: by area to shrink, bilinearly to enlarge."""
    # Not antialias=True: that kernel takes four times as long.
    smaller = tf.minimum(tf.shape(image)[-3:-1], size)
    image = tf.image.resize(image, smaller, "area")
    image = tf.cond(
        tf.reduce_all(smaller == size), lambda: image, lambda: tf.image.resize(image, size)
    )
    return tf.cast(tf.round(image), tf.uint8)
