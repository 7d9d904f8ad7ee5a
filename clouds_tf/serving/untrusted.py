"""Bytes that anybody may have sent -> images, in bounded time and memory."""

import tensorflow as tf

from clouds_tf.data.preprocessing import decode_image, resize_image

MAX_IMAGE_PIXELS = 2**25  # eleven times those of an image of the competition

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# Each scan of a progressive JPEG goes over all pixels again, and may be a few bytes long.
_SCAN, _MAX_SCANS = b"\xff\xda", 50
# libpng unpacks each of these chunks, to at most 8 MB, on its way to the image.
_PACKED, _MAX_PACKED = (b"zTXt", b"iTXt", b"iCCP"), 20


def decode_images(image_bytes, size, max_image_pixels=MAX_IMAGE_PIXELS):
    """Decodes JPEGs and PNGs whose headers say that they are not too large.

    Args:
        image_bytes: string [N], JPEGs and PNGs of any sizes.
        size: (height, width) of the result.
        max_image_pixels: the most pixels that an image may have.

    Returns:
        RGB uint8 [N, height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: bytes are neither, are not whole, or are of a larger image;
            its pixels have not been looked at then.
    """

    def decode(encoded):
        is_png = tf.strings.substr(encoded, 0, len(_PNG)) == _PNG
        known = is_png | (tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG)
        checks = [tf.Assert(known, ["expected a JPEG or a PNG, got something else"])]
        with tf.control_dependencies(checks):
            source_size = tf.cond(is_png, lambda: _png_size(encoded), lambda: _jpeg_size(encoded))
        height, width = tf.unstack(source_size, 2)
        allowed = (height > 0) & (width > 0) & (height * width <= max_image_pixels)
        message = ["expected an image of at most", max_image_pixels, "pixels, got (height, width)"]
        with tf.control_dependencies([tf.Assert(allowed, [*message, source_size])]):
            return tf.cond(
                is_png,
                lambda: resize_image(tf.io.decode_png(encoded, 3), size),
                lambda: decode_image(encoded, size),
            )

    return tf.map_fn(decode, image_bytes, fn_output_signature=tf.TensorSpec([*size, 3], tf.uint8))


def _jpeg_size(encoded):
    """The size of a JPEG, int64 [2], by its header; InvalidArgumentError for too many scans."""
    with tf.control_dependencies([_at_most(_MAX_SCANS, "scans", _count(encoded, _SCAN))]):
        return tf.cast(tf.io.extract_jpeg_shape(encoded)[:2], tf.int64)


def _png_size(encoded):
    """The size of a PNG, int64 [2], by its header, which stands first."""
    packed = tf.add_n([_count(encoded, kind) for kind in _PACKED])
    with tf.control_dependencies([_at_most(_MAX_PACKED, "compressed texts", packed)]):
        header = tf.strings.join([tf.strings.substr(encoded, 0, 24), b"\0" * 24])
    sides = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)
    return tf.cast(tf.reverse(sides, [0]), tf.int64)


def _count(encoded, pattern):
    return tf.size(tf.strings.split(encoded, pattern)) - 1


def _at_most(limit, things, number):
    return tf.Assert(number <= limit, [f"expected at most {limit} {things}, got", number])
