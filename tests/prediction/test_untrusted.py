import io
import re
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from clouds_tf.prediction.untrusted import decode_images, image_size, why_unreadable

SIZE = (60, 80)


def _picture(height=60, width=80):
    """A smooth picture, so that compression and scaling hardly change it: uint8."""
    y, x = np.mgrid[:height, :width]
    channels = 200 * y / height + 20, 200 * x / width + 20, 100 * (y + x) / (height + width) + 50
    return np.stack(channels, axis=-1).astype(np.uint8)


def _encode(file_format, mode="RGB", size=SIZE, **options):
    file = io.BytesIO()
    Image.fromarray(_picture(*size)).convert(mode).save(file, file_format, **options)
    return file.getvalue()


def _jpeg_of(height, width):
    """A small progressive JPEG whose header says that it is large."""
    content = bytearray(_encode("JPEG", progressive=True))
    header = content.index(b"\xff\xc2")
    content[header + 5 : header + 9] = struct.pack(">HH", height, width)
    return bytes(content)


def _chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _png_of(height, width, chunks=b""):
    """A PNG of zeros whose data are those of 4x4 pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(4 * (1 + 3 * 4)))
    parts = _chunk(b"IHDR", header), chunks, _chunk(b"IDAT", data), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _deep_png(factor):
    """The picture times a factor in a PNG of 16 bits a value."""
    return cv2.imencode(".png", factor * _picture()[..., ::-1].astype(np.uint16))[1].tobytes()


READABLE = {
    "baseline": _encode("JPEG", quality=95),
    "progressive": _encode("JPEG", quality=95, progressive=True),
    "png": _encode("PNG"),
    "png with transparency": _encode("PNG", "RGBA"),
    "png of 16 bits": _deep_png(257),
    "another size": _encode("PNG", size=(120, 160)),
    "reduced": _encode("JPEG", quality=95, size=(240, 320)),
}
TEXT = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(7_900_000)))
HOSTILE = {
    "nothing": (b"", "expected a JPEG or a PNG"),
    "html": (b"<!DOCTYPE html><html></html>", "expected a JPEG or a PNG"),
    "gif": (_encode("GIF"), "expected a JPEG or a PNG"),
    "gif bomb": (b"GIF89a" + b"\xff" * 4 + bytes(100), "expected a JPEG or a PNG"),
    "first bytes of a jpeg": (b"\xff\xd8\xff", "[Ii]nvalid (JPEG|PNG) data"),
    "truncated jpeg": (READABLE["baseline"][:-300], "[Ii]nvalid (JPEG|PNG) data"),
    "truncated header": (READABLE["baseline"][:100], "[Ii]nvalid (JPEG|PNG) data"),
    "first bytes of a png": (b"\x89PNG\r\n\x1a\n", "at most"),
    "truncated png": (READABLE["png"][:-100], "[Ii]nvalid (JPEG|PNG) data"),
    "png of no pixels": (_png_of(0, 4), "at most"),
    "png of less than no pixels": (_png_of(2**32 - 4, 2**32 - 4), "at most"),
    "large jpeg": (_jpeg_of(60000, 60000), r"at most\] \[33554432\].*60000 60000"),
    "large png": (_png_of(60000, 50000), r"at most\] \[33554432\].*60000 50000"),
    "png that lacks pixels": (_png_of(5000, 5000), "[Ii]nvalid (JPEG|PNG) data"),
    "scans": (READABLE["progressive"][:-2] + b"\xff\xda\0\x08" * 60, "at most 50 scans, got"),
    "scans without end": (b"\xff\xd8\xff" + b"\xff\xda" * 10_000_000, "at most 50 scans, got"),
    "scan across windows": (
        b"\xff\xd8\xff" + b"\0" * (2**20 - 4) + b"\xff\xda" * 51,
        "at most 50 scans, got",
    ),
    "12 bits in 16": (_deep_png(16), "16 bits a value, all below 16384"),
    "packed texts": (_png_of(4, 4, TEXT * 100), "at most 20 compressed texts, got"),
}


@pytest.mark.parametrize("name", READABLE)
def test_images_of_all_kinds_are_decoded(name):
    image = decode_images(tf.constant([READABLE[name]]), SIZE)
    assert image.dtype == tf.uint8 and image.shape == (1, *SIZE, 3)
    assert abs(image[0].numpy().astype(int) - _picture()).mean() < 1.5


def test_a_png_of_the_size_asked_for_is_exact_and_images_keep_their_order():
    contents = READABLE["png"], READABLE["another size"], _encode("PNG", "L")
    images = decode_images(tf.constant(contents), SIZE)
    np.testing.assert_array_equal(images[0], _picture())
    grey = np.asarray(Image.fromarray(_picture()).convert("L"))
    np.testing.assert_array_equal(images[2], np.repeat(grey[:, :, np.newaxis], 3, axis=2))


def test_cmyk_becomes_rgb():
    image = decode_images(tf.constant([_encode("JPEG", "CMYK", quality=95)]), SIZE)
    assert abs(image[0].numpy().astype(int) - _picture()).mean() < 3


@pytest.fixture(scope="module")
def decode():
    function = tf.function(lambda image_bytes: decode_images(image_bytes, SIZE))
    function(tf.constant([READABLE["baseline"], READABLE["png"]]))
    return function


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_is_an_error_and_takes_no_memory(name, decode):
    content, message = HOSTILE[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(tf.constant([READABLE["png"], content]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 * 1024


@pytest.mark.parametrize("start", [2**20 - 4, 2**20 - 3, 2**20 - 2, 2**20 - 1, 2**20, 5])
def test_every_pattern_is_counted_once_wherever_windows_end(start, decode):
    content = READABLE["baseline"][:-2].ljust(start, b"\0")[:start]
    scans = content.count(b"\xff\xda")
    few, many = (content + b"\xff\xda\0" * (n - scans) + bytes(2000) for n in (50, 51))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 50 scans, got.*51"):
        decode(tf.constant([many]))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode(tf.constant([few]))
    assert "scans" not in str(error.value)


def test_the_pixels_of_a_request_are_limited_together():
    """Five headers of 90x100 pixels; each is allowed alone, and nothing of theirs is decoded."""
    decode = tf.function(lambda image_bytes: decode_images(image_bytes, SIZE, 10_000))
    whole = _encode("PNG", size=(90, 100))
    truncated = whole[:40]
    for others, message in ((4, "at most. .40000. .pixels.* .45000"), (3, "Invalid PNG")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            decode(tf.constant([whole, *[truncated] * others]))
    assert decode(tf.constant([whole] * 4)).shape[0] == 4


def test_bytes_are_limited_by_the_pixels_that_are_allowed():
    content = READABLE["png"] + bytes(2**20 + 8 * 5000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1088576 bytes"):
        decode_images(tf.constant([content]), SIZE, max_image_pixels=5000)
    assert re.search(r"bytes, expected at most 1,088,576", why_unreadable(content, 5000))
    assert decode_images(tf.constant([content]), SIZE, max_image_pixels=9000).shape[0] == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_size_is_in_the_header(kind):
    assert image_size(_encode(kind, size=(30, 70))) == (30, 70)


def test_the_orientation_of_exif_is_not_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = decode_images(tf.constant([_encode("JPEG", quality=95, exif=exif)]), SIZE)
    np.testing.assert_array_equal(turned, decode_images(tf.constant([READABLE["baseline"]]), SIZE))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "an empty file"),
        (_encode("TIFF"), "a TIFF, which tools/predict_scenes.py reads"),
        (_encode("GIF"), "a GIF, expected"),
        (_encode("BMP"), "a BMP, expected"),
        (_encode("WEBP"), "a WebP, expected"),
        (b"<!DOCTYPE html>", "HTML or XML, expected"),
        (b"some text", "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff", "a damaged or truncated JPEG"),
        (READABLE["baseline"][:-300], "a damaged or truncated JPEG"),
        (READABLE["png"][:-100], "a damaged or truncated PNG"),
        (_jpeg_of(60000, 60000), "60000x60000 .* are more pixels than .*33,554,432; export it"),
        (_png_of(60000, 50000), "60000x50000 .* are more pixels"),
        (HOSTILE["12 bits in 16"][0], "a PNG of 16 bits a value, all below 16384"),
        (_deep_png(257)[:-100], "a damaged or truncated PNG"),
        (HOSTILE["scans"][0], "a JPEG of .. scans, expected at most 50"),
    ],
)
def test_the_reason_is_said(content, reason):
    assert re.match(reason, why_unreadable(content))


def test_the_limit_is_on_pixels():
    content = tf.constant([READABLE["png"]])
    assert decode_images(content, SIZE, max_image_pixels=60 * 80).shape[0] == 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most[^0-9]*4799"):
        decode_images(content, SIZE, max_image_pixels=60 * 80 - 1)
