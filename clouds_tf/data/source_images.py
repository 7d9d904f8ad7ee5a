"""The JPEG files of a data folder: read, checked and reduced."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import tensorflow as tf

from clouds_tf.data.preprocessing import decode_image
from clouds_tf.messages import Fault, native_lines

_SKEW = 0.02  # of the ratio of the sides, between an image and its masks


def read_image(
    path: str,
    mask_size: tuple[int, int],
    image_size: tuple[int, int] | None = None,
    jpeg_quality: int = 95,
) -> tuple[bytes, tuple[int, int]]:
    """Reads a JPEG file and makes sure that all of it can be decoded.

    The orientation that EXIF may ask for is not applied: the masks are those of the stored pixels.

    Args:
        path: the file.
        mask_size: (height, width) of its masks; the image must have about the same shape.
        image_size: (height, width) to reduce the image to; None keeps the bytes of the file.
        jpeg_quality: quality of a reduced image, 1 to 100.

    Returns:
        The bytes of a JPEG, and its (height, width).

    Raises:
        ValueError: there is no such file, it is no whole JPEG, or it is of another shape; the
            message does not repeat the path.
    """
    with native_lines() as lines:
        found = _read(path, mask_size, image_size, jpeg_quality)
    for line in dict.fromkeys(lines):  # such as libjpeg's about bytes that it passes over
        print(f"{path}: {line}", file=sys.stderr)
    return found


def _read(
    path: str, mask_size: tuple[int, int], image_size: tuple[int, int] | None, jpeg_quality: int
) -> tuple[bytes, tuple[int, int]]:
    """Does what `read_image` says."""
    if os.path.islink(path) and not os.path.exists(path):
        raise ValueError(f"a link to {os.readlink(path)}, which is not there")
    try:
        encoded = tf.io.read_file(path).numpy()
        if not encoded.startswith(b"\xff\xd8"):  # tf.io.decode_jpeg reads PNG and GIF too
            raise ValueError(f"not a JPEG, its first bytes are {encoded[:8]}")
        _check_shape(tuple(tf.io.extract_jpeg_shape(encoded)[:2].numpy().tolist()), mask_size)
        # A look at the header is not enough: a truncated file shows only when it is decoded.
        tf.io.decode_jpeg(encoded, channels=3, ratio=1 if image_size else 8)
        if image_size:
            image = decode_image(encoded, image_size)
            encoded = tf.io.encode_jpeg(image, quality=jpeg_quality, chroma_downsampling=False)
            encoded = encoded.numpy()
        return encoded, tuple(tf.io.extract_jpeg_shape(encoded)[:2].numpy().tolist())
    except tf.errors.NotFoundError:
        raise ValueError("no such image, but the CSV has rows for it") from None
    except tf.errors.InvalidArgumentError:
        raise ValueError("not a whole, readable JPEG") from None
    except tf.errors.OpError as error:
        if tf.io.gfile.isdir(path):
            raise ValueError("a folder, expected a JPEG file") from None
        raise ValueError(f"cannot be read: {error.message}") from None


def _check_shape(size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """Raises ValueError unless an image has about the aspect ratio of its masks."""
    (height, width), (rows, columns) = size, mask_size
    if abs(height * columns - width * rows) > _SKEW * width * rows + max(rows, columns):
        raise ValueError(
            f"{height}x{width} (height x width) is another shape than the masks' {rows}x{columns}; "
            "is it rotated, or cut?"
        )


def check_images(paths: Iterable[str], mask_size: tuple[int, int]) -> list[Fault]:
    """Reads JPEG files whose masks have this size, and returns their faults."""
    faults = []
    for path in paths:
        try:
            read_image(path, mask_size)
        except ValueError as error:
            faults.append(Fault(path, 0, str(error)))
    return faults
