"""Reads, checks and reduces the image files of a data folder."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from clouds_tf import gfile
from clouds_tf.data.preprocessing import (
    JPEG,
    NUMPY,
    PNG,
    TOO_DIM,
    decode_image,
    decode_numpy,
    decode_png,
    encode_image,
    image_size,
    numpy_kind,
    resize_image,
)
from clouds_tf.dataset import is_photographic
from clouds_tf.messages import Fault, native_lines

TIFF_ENDINGS = (".tif", ".tiff")
# First bytes of other formats that are often found among images.
_OTHER_FORMATS = {
    "a TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "a GIF": (b"GIF8",),
    "a WebP": (b"RIFF",),
    "a BMP": (b"BM",),
    "HTML or XML": (b"<",),
    "a NumPy file": (NUMPY[:6],),
}
_SKEW = 0.02  # tolerated relative difference of the aspect ratios of an image and its masks


def read_image(
    path: str,
    mask_size: tuple[int, int],
    image_size: tuple[int, int] | None = None,
    jpeg_quality: int = 95,
    channels: int = 3,
) -> tuple[bytes, tuple[int, int]]:
    """Reads an image file and checks that all of it can be decoded.

    EXIF orientation is not applied, because the masks belong to the stored pixels.

    Args:
        path: the file.
        mask_size: (height, width) of its masks; the image must have about the same aspect ratio.
        image_size: (height, width) to reduce the image to; None keeps the bytes of the file.
        jpeg_quality: quality of a reduced JPEG, 1 to 100; a reduced PNG is a PNG, without loss.
        channels: number of channels of the data set, which determines the format.

    Returns:
        The bytes of a JPEG, PNG or NumPy file, and its (height, width).

    Raises:
        ValueError: there is no such file, it is not a complete image of that format, its 16-bit
            values are all dark, or its aspect ratio differs; the message does not have the path.
    """
    with native_lines() as lines:
        found = _read(path, mask_size, image_size, jpeg_quality, channels)
    for line in dict.fromkeys(lines):  # such as libjpeg's about bytes that it skips
        print(f"{path}: {line}", file=sys.stderr)
    return found


def _read(
    path: str,
    mask_size: tuple[int, int],
    new_size: tuple[int, int] | None,
    jpeg_quality: int,
    channels: int,
) -> tuple[bytes, tuple[int, int]]:
    """Reads and checks like `read_image`; libjpeg's own messages go to stderr."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"a link to {os.readlink(path)}, which is not there")
    try:
        encoded = tf.io.read_file(path).numpy()
        if not is_photographic(channels):
            return _read_numpy(path, encoded, mask_size, new_size, channels)
        if not encoded.startswith((JPEG, PNG)):
            raise ValueError(_why_not_an_image(path, encoded))
        size = image_size(encoded)
        _check_shape(size, mask_size)
        # The header is not enough: only decoding detects a truncated file.
        if encoded.startswith(PNG):
            pixels = decode_png(encoded, channels)
            if new_size:
                encoded = tf.io.encode_png(resize_image(pixels, new_size)).numpy()
        else:
            tf.io.decode_jpeg(encoded, channels=channels, ratio=1 if new_size else 8)
            if new_size:
                pixels = decode_image(encoded, new_size, channels)
                encoded = tf.io.encode_jpeg(pixels, quality=jpeg_quality, chroma_downsampling=False)
                encoded = encoded.numpy()
        return encoded, new_size or size
    except tf.errors.NotFoundError:
        raise ValueError("no such image, but it is annotated") from None
    except tf.errors.InvalidArgumentError as error:
        if TOO_DIM in error.message:
            raise ValueError(TOO_DIM) from None
        kind = "PNG" if encoded.startswith(PNG) else "JPEG"
        raise ValueError(f"not a whole, readable {kind}") from None
    except tf.errors.OpError as error:
        if gfile.isdir(path):
            raise ValueError("a folder, expected an image file") from None
        raise ValueError(f"cannot be read: {error.message}") from None


def _read_numpy(
    path: str,
    encoded: bytes,
    mask_size: tuple[int, int],
    new_size: tuple[int, int] | None,
    channels: int,
) -> tuple[bytes, tuple[int, int]]:
    """Checks and reduces a NumPy file like `read_image`."""
    height, width = image_size(encoded, channels)
    if not height:
        raise ValueError(why_not_numpy(encoded, channels))
    _check_shape((height, width), mask_size)
    try:
        pixels = decode_numpy(encoded, channels)
    except tf.errors.InvalidArgumentError:
        raise ValueError("not a whole, readable NumPy file") from None
    if new_size:
        encoded = encode_image(resize_image(pixels, new_size).numpy())
    return encoded, new_size or (height, width)


def why_not_numpy(encoded: bytes, channels: int) -> str:
    """Explains why bytes are not a NumPy file of uint8 [height, width, channels].

    >>> why_not_numpy(b"GIF89a", 4)
    'a GIF, expected a NumPy file of uint8 [height, width, 4]; see docs/own_data_set.md, Channels'
    """
    name = other_format(encoded) or ("a PNG" if encoded.startswith(PNG) else "")
    if encoded.startswith(NUMPY[:6]):
        try:
            array = np.load(io.BytesIO(encoded), allow_pickle=False)
        except (ValueError, EOFError):
            return "not a whole, readable NumPy file"
        order = "" if array.flags.c_contiguous else " in Fortran's order"
        name = f"{array.dtype} {list(array.shape)}{order}"
    return f"{name or 'something else'}, {_expected_numpy(channels)}"


def _expected_numpy(channels: int) -> str:
    return f"expected {numpy_kind(channels)}; see docs/own_data_set.md, Channels"


def other_format(encoded: bytes) -> str:
    """The format of a file that is neither a JPEG nor a PNG, such as "a GIF"; "" if unknown."""
    names = (name for name, first in _OTHER_FORMATS.items() if encoded.startswith(first))
    return next(names, "")


def _why_not_an_image(path: str, encoded: bytes) -> str:
    name = other_format(encoded)
    if name == "a TIFF":
        return how_to_convert(path)
    found = f"{name}," if name else f"not a JPEG or PNG, its first bytes are {encoded[:8]!r};"
    return f"{found} expected a JPEG or a PNG"


def how_to_convert(path: str, channels: int = 3) -> str:
    """Explains that a file is a TIFF, and how to convert it."""
    if not is_photographic(channels):
        return f"a TIFF, {_expected_numpy(channels)}"
    png = os.path.splitext(path)[0] + ".png"
    code = f"from PIL import Image; Image.open({path!r}).save({png!r})"
    return f"a TIFF, expected a JPEG or a PNG; convert it: python -c {code!r}"


def _check_shape(size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """Raises ValueError unless an image has about the aspect ratio of its masks."""
    (height, width), (rows, columns) = size, mask_size
    if abs(height * columns - width * rows) > _SKEW * width * rows + max(rows, columns):
        raise ValueError(
            f"{height}x{width} (height x width) is another shape than the masks' {rows}x{columns}; "
            "is it rotated or cropped?"
        )


def check_images(images: Iterable[tuple[str, tuple[int, int]]], channels: int = 3) -> list[Fault]:
    """Reads image files, each with the size of its masks, and returns their faults."""
    faults = []
    for path, mask_size in images:
        try:
            read_image(path, mask_size, channels=channels)
        except ValueError as error:
            faults.append(Fault(path, 0, str(error)))
    return faults
