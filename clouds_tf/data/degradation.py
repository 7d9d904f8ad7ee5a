"""Random changes of pixel values that keep the labels valid.

They imitate images of the same clouds from other sources, which were reduced differently
(subsampled, averaged, several times), show linear instead of contrast-stretched reflectance, are
grey or hazy, have other black gaps, or were compressed more. All draws follow from a seed, int [2].
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from clouds_tf.data.mixing import Example, Seed
from clouds_tf.data.preprocessing import BLACK

_LUMA = (0.299, 0.587, 0.114)  # of ITU-R BT.601, as in JPEG
_HAZE = (190.0, 200.0, 210.0)


def degrade(example: Example, seed: Seed) -> Example:
    """Resamples, recolours, blackens a strip, adds noise and compresses, each at random.

    The probability is 1/2 for resampling and for recolouring, and 1/4 for the others. The mask
    changes only in the black strip.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    image, mask = _degrade_pixels(example["image"], example["mask"], seeds[0])
    draw = tf.random.stateless_uniform([2], seeds[1])
    quality = tf.cast(40 + 55 * draw[1], tf.int32)
    shape = image.shape
    image = tf.cond(
        draw[0] < 0.25, lambda: tf.image.adjust_jpeg_quality(image, quality), lambda: image
    )
    return {**example, "image": tf.ensure_shape(image, shape), "mask": mask}


@tf.function(jit_compile=True)
def _degrade_pixels(
    image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """All changes but the compression, compiled by XLA; those that are not used take no time."""
    seeds = tf.random.experimental.stateless_split(seed, 5)
    use = tf.random.stateless_uniform([4], seeds[0]) < [0.5, 0.5, 0.25, 0.25]
    pixels = tf.cast(image, tf.float32)
    pixels = tf.cond(use[0], lambda: resample(pixels, seeds[1]), lambda: pixels)
    observed = tf.reduce_max(pixels, axis=-1, keepdims=True) > BLACK
    recoloured = tf.cond(use[1], lambda: recolour(pixels, seeds[2]), lambda: pixels)
    pixels = tf.where(observed, recoloured, pixels)
    noisy = tf.cond(use[3], lambda: add_noise(pixels, seeds[3]), lambda: pixels)
    pixels = tf.where(observed, noisy, pixels)
    hidden = use[2] & strip(pixels.shape[:2], seeds[4])[..., tf.newaxis]
    pixels = tf.where(hidden, 0.0, tf.clip_by_value(pixels, 0, 255))
    return tf.cast(tf.round(pixels), tf.uint8), tf.where(hidden, tf.zeros_like(mask), mask)


def resample(pixels: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Shrinks float32 [h, w, C] by 1 to 2 and enlarges it again, by averaging or subsampling.

    A subsampled image is not smooth, as each pixel differs from the mean around it by the fine
    structure of the original. This is imitated by sharpening and by noise proportional to the local
    contrast; their strengths reproduce the roughness, at four scales, of MODIS scenes of which
    every fourth to seventh pixel was taken.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    u = tf.random.stateless_uniform([6], seeds[0])
    scale, average = 2 ** u[0], u[1] < 0.5
    sharpness = tf.where(average, tf.maximum(0.0, u[2] - 0.5), 0.3 + 0.4 * u[2])
    contrast = tf.where(average, 0.0, 1 + 1.5 * u[3])
    blurred = _along_axes(pixels, [_blur(length) for length in pixels.shape[:2]])
    noise = tf.random.stateless_normal(pixels.shape[:2] + [1], seeds[1])
    pixels += (sharpness + contrast * noise) * (pixels - blurred)
    rows, columns = (
        resampling_matrix(length, scale, average, phase)
        for length, phase in zip(pixels.shape, tf.unstack(u[4:]))
    )
    return _along_axes(pixels, [rows, columns])


def _along_axes(pixels: tf.Tensor, matrices: Sequence[tf.Tensor]) -> tf.Tensor:
    """Multiplies [h, w, C] by a matrix [h, h] along the rows, and by [w, w] along the columns."""
    return tf.einsum("hi,wj,ijc->hwc", *matrices, pixels)


def _blur(length: int) -> tf.Tensor:
    """Mean of three neighbours with weights 1, 2 and 1, as a matrix [length, length]."""
    place = tf.range(length, dtype=tf.float32)
    return _normalised(tf.nn.relu(1 - tf.abs(place[:, tf.newaxis] - place) / 2))


def resampling_matrix(
    length: int, scale: tf.Tensor, average: tf.Tensor, phase: tf.Tensor
) -> tf.Tensor:
    """Shrinking and enlarging one axis, as a matrix to multiply its pixels by.

    Args:
        length: length of the axis in pixels.
        scale: float32 [], how many times larger the coarse pixels are, at least 1.
        average: bool [], whether a coarse pixel is the mean over its width; otherwise it is the
            nearest fine pixel. Enlarging is linear.
        phase: float32 [], centre of the first coarse pixel, in coarse pixels.

    Returns:
        float32 [length, length], whose rows sum to 1.
    """
    place = tf.range(length, dtype=tf.float32)
    # Coarse pixel k has its centre at (k + phase) * scale, in fine pixels.
    centers = (place + phase) * scale
    distance = tf.abs(place - centers[:, tf.newaxis])
    shares = tf.clip_by_value((scale + 1) / 2 - distance, 0, 1)
    nearest = tf.cast(tf.round(centers)[:, tf.newaxis] == place, tf.float32)
    down = tf.where(average, shares, nearest)
    up = tf.nn.relu(1 - tf.abs(place[:, tf.newaxis] / scale - phase - place))
    # Coarse pixels outside the image have no weight.
    inside = tf.cast(tf.reduce_sum(down, axis=1) > 0, tf.float32)
    return _normalised(up * inside) @ _normalised(down)


def _normalised(weights: tf.Tensor) -> tf.Tensor:
    """Divides each row by its sum, if that is not 0."""
    return tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))


def recolour(pixels: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Changes gamma, brightness, saturation and haze of float32 [h, w, 3] in 0..255.

    Gamma is 0.6 to 2 (linear reflectance has about 2 relative to true colour), gain 0.8 to 1.2,
    saturation 0 to 1.3, grey in one image of three, and haze up to 30 %, in one image of three.
    """
    u = tf.random.stateless_uniform([6], seed)
    gamma = tf.exp(tf.math.log(0.6) + u[0] * math.log(2 / 0.6))
    pixels = 255 * (tf.clip_by_value(pixels, 0, 255) / 255) ** gamma * (0.8 + 0.4 * u[1])
    grey = tf.reduce_sum(pixels * _LUMA, axis=-1, keepdims=True)
    saturation = tf.where(u[2] < 1 / 3, 0.0, 0.7 + 0.6 * u[3])
    pixels = grey + saturation * (pixels - grey)
    haze = tf.where(u[4] < 1 / 3, 0.3 * u[5], 0.0)
    return pixels + haze * (tf.constant(_HAZE) - pixels)


def photometric(image: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Changes brightness, contrast and colour of uint8 [h, w, C]: x becomes x (a + b (1 - x)).

    The image is multiplied by 0.8 to 1.2, each colour by 0.95 to 1.05, and dark parts by up to 30 %
    more or less than bright ones. Black stays black, like the gap between two orbits.
    """
    u = tf.random.stateless_uniform([2 + image.shape[-1]], seed, -1, 1)
    bright, bent = (1 + 0.2 * u[0]) * (1 + 0.05 * u[1:-1]), 0.3 * u[-1]
    image = tf.cast(image, tf.float32)
    image = tf.minimum(image * (bright + bent - bent / 255 * image), 255)
    return tf.cast(tf.round(image), tf.uint8)


def add_noise(pixels: tf.Tensor, seed: Seed) -> tf.Tensor:
    """Adds the same normal noise, of a standard deviation of 0 to 8, to all channels."""
    sigma = tf.random.stateless_uniform([], seed, 0, 8)
    return pixels + sigma * tf.random.stateless_normal([*pixels.shape[:2], 1], seed)


def strip(size: tf.TensorShape, seed: Seed) -> tf.Tensor:
    """A straight strip in a random direction, up to a quarter of the image wide: bool [h, w]."""
    height, width = size
    u = tf.random.stateless_uniform([4], seed)
    y = tf.range(height, dtype=tf.float32)[:, tf.newaxis] - u[0] * height
    x = tf.range(width, dtype=tf.float32) - u[1] * width
    distance = tf.cos(math.pi * u[2]) * x + tf.sin(math.pi * u[2]) * y
    return tf.abs(distance) < (0.01 + 0.115 * u[3]) * width
