"""JPEG bytes -> image: the one step that training and serving share."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_REDUCTIONS = (1, 2, 4, 8)  # libjpeg decodes at these fractions, in the frequency domain


def decode_image(encoded: Any, size: Any) -> tf.Tensor:
    """Decodes a JPEG at the size asked for.

    The JPEG is decoded at the smallest of libjpeg's scales that is not below `size`, which skips
    most of the work. The rest of the way is an area average where it shrinks, and bilinear where it
    grows.

    Args:
        encoded: the bytes of a JPEG, string []; grey and CMYK become RGB.
        size: (height, width) of the result.

    Returns:
        RGB uint8 [height, width, 3].

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not a whole JPEG.
    """
    source_size = tf.io.extract_jpeg_shape(encoded)[:2]
    enough = [tf.reduce_all(-(-source_size // r) >= size) for r in _REDUCTIONS[1:]]
    image = tf.switch_case(
        tf.reduce_sum(tf.cast(enough, tf.int32)),
        # TensorFlow's default is the fast transform, which is darker by 0.7 of 255 on real images.
        [
            lambda r=r: tf.io.decode_jpeg(encoded, 3, ratio=r, dct_method="INTEGER_ACCURATE")
            for r in _REDUCTIONS
        ],
    )
    image = tf.cond(
        tf.reduce_all(tf.shape(image)[:2] == size), lambda: image, lambda: resize_image(image, size)
    )
    return tf.reshape(image, [*tf.unstack(tf.convert_to_tensor(size)), 3])


def resize_image(image: Any, size: Any) -> tf.Tensor:
    """Resizes as `decode_image` does: by area where it shrinks, bilinearly where it grows.

    Args:
        image: uint8 [H, W, 3] or [N, H, W, 3].
        size: (height, width) of the result.

    Returns:
        uint8 [height, width, 3] or [N, height, width, 3].
    """
    # Not antialias=True: that kernel takes four times as long, and most of the decoder's own time.
    smaller = tf.minimum(tf.shape(image)[-3:-1], size)
    image = tf.image.resize(image, smaller, "area")
    image = tf.cond(
        tf.reduce_all(smaller == size), lambda: image, lambda: tf.image.resize(image, size)
    )
    return tf.cast(tf.round(image), tf.uint8)
