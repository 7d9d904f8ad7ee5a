"""Random augmentations, (example, seed) -> example, that transform image and mask together.

An example is a dict with image uint8 [h, w, channels] and mask uint8 [h, w, C] of {0, 1}. A seed
is an int [2]. All functions are stateless: the result follows from the example and the seed.

XLA compiles the per-pixel work of `baseline` and `strong` into one loop, which takes less than half
the time of separate ops, or of the resampler of addons.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from clouds_tf.data.degradation import degrade, photometric
from clouds_tf.data.mask_words import from_words, to_words
from clouds_tf.data.mixing import Example, Seed


def unchanged(example: Example, seed: Seed) -> Example:
    """Leaves an example as it is."""
    return example


def flips(example: Example, seed: Seed) -> Example:
    """Mirrors image and mask left-right and top-bottom, each with probability 1/2."""
    axes = tf.boolean_mask([0, 1], _draw_flips(seed))
    mask, image = example["mask"], tf.reverse(example["image"], axes)
    words = [tf.reverse(word, axes) for word in to_words(mask)]
    return {**example, "image": image, "mask": from_words(words, mask.shape[-1])}


def _draw_flips(seed: Seed) -> tf.Tensor:
    """Whether to flip top-bottom and left-right, bool [2]."""
    return tf.random.stateless_uniform([2], seed) < 0.5


def baseline(example: Example, seed: Seed) -> Example:
    """Flips; with probability 1/2, also shifts, scales and rotates, in one affine warp.

    Shifts by up to 15 % of each side, scales by 0.85 to 1.15, and rotates by up to 45 degrees. The
    image is sampled bilinearly, the mask by nearest neighbour. Pixels from outside the image are
    black and without a class, like the gap between orbits.
    """
    seeds = tf.random.experimental.stateless_split(seed, 3)
    pair = {name: example[name] for name in ("image", "mask")}
    pair = tf.cond(
        tf.random.stateless_uniform([], seeds[1]) < 0.5,
        lambda: _baseline_warp(pair, seeds),
        lambda: flips(pair, seeds[0]),
    )
    return {**example, **pair}


@tf.function(jit_compile=True)
def _baseline_warp(pair: Example, seeds: tf.Tensor) -> Example:
    places = affine_places(pair["image"].shape[:2], seeds[2])
    return warp(pair, _flip_places(places, _draw_flips(seeds[0])))


def strong(example: Example, seed: Seed) -> Example:
    """Flips, then `affine_places`, `bend` and `cutout` in one warp, then `photometric`.

    Each part of the warp is applied with probability 1/2, to image and mask alike; colours change
    in the image alone.
    """
    pair = {name: example[name] for name in ("image", "mask")}
    return {**example, **_strong(pair, seed)}


@tf.function(jit_compile=True)
def _strong(pair: Example, seed: tf.Tensor) -> Example:
    seeds = tf.random.experimental.stateless_split(seed, 6)
    use = tf.random.stateless_uniform([3], seeds[0]) < 0.5
    strength = tf.cast(use, tf.float32)
    places = affine_places(pair["image"].shape[:2], seeds[2], strength[0])
    # `bend` takes a third of the time, so it runs only for images that it changes.
    places = tf.cond(use[1], lambda: bend(places, seeds[3]), lambda: places)
    places = cutout(places, seeds[4], strength[2])
    pair = warp(pair, _flip_places(places, _draw_flips(seeds[1])))
    return {**pair, "image": photometric(pair["image"], seeds[5])}


def robust(example: Example, seed: Seed) -> Example:
    """Flips, then `degradation.degrade`: for images that were processed differently."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    return degrade(flips(example, seeds[0]), seeds[1])


def affine_places(size: Sequence[int], seed: Seed, strength: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Draws a shift, a scale and a rotation.

    Args:
        size: (height, width), ints.
        seed: int [2].
        strength: 1 for up to 0.15 of each side, 0.85 to 1.15 and 45 degrees; 0 for none.

    Returns:
        float32 [2, h, w]: the x and y of the source that each pixel of the result shows.
    """
    height, width = size
    u = strength * tf.random.stateless_uniform([4], seed, -1, 1)
    radians, zoom = u[0] * math.pi / 4, 1 / (1 + 0.15 * u[1])
    cos, sin = zoom * tf.cos(radians), zoom * tf.sin(radians)
    center_x, center_y = (width - 1) / 2, (height - 1) / 2
    # The inverse map, from the result to the source, about the centre.
    x = tf.range(width, dtype=tf.float32) - center_x - 0.15 * width * u[2]
    y = tf.range(height, dtype=tf.float32)[:, tf.newaxis] - center_y - 0.15 * height * u[3]
    return tf.stack([cos * x + sin * y + center_x, cos * y - sin * x + center_y])


def _flip_places(places: tf.Tensor, flipped: tf.Tensor) -> tf.Tensor:
    """Flips places, as `affine_places` gives them; flipped is bool [2]: top-bottom, left-right."""
    height, width = places.shape[1:]
    x, y = tf.unstack(places)
    x, y = tf.where(flipped[1], width - 1 - x, x), tf.where(flipped[0], height - 1 - y, y)
    return tf.stack([x, y])


def bend(
    places: tf.Tensor,
    seed: Seed,
    grid: tuple[int, int] = (5, 7),
    max_shift: float = 0.25,
) -> tf.Tensor:
    """Elastic deformation: random shifts of a coarse grid of knots, with cubic interpolation.

    Args:
        places: float32 [2, h, w], as `affine_places` returns them; the result is like them.
        seed: int [2].
        grid: rows and columns of knots; those on the border stay.
        max_shift: maximum shift of a knot, as a fraction of the distance between knots. Shifts that
            would fold the image are reduced until they do not.
    """
    height, width = places.shape[1:]
    steps = [width / (grid[1] - 1), height / (grid[0] - 1)]
    inner = [grid[0] - 2, grid[1] - 2, 2]
    knots = tf.random.stateless_uniform(inner, seed, -max_shift, max_shift) * steps
    knots = tf.pad(knots, [[1, 1], [1, 1], [0, 0]])
    rows, columns = _bicubic(grid[0], height), _bicubic(grid[1], width)
    moves = tf.einsum("hi,ijk,wj->khw", rows, knots, columns)
    return places + moves * tf.minimum(1.0, 0.9 * _folding_strength(places, moves))


def _folding_strength(places: tf.Tensor, moves: tf.Tensor) -> tf.Tensor:
    """The least t above 0 at which places + t * moves, float32 [2, h, w] each, folds; at most 1e6.

    Each cell of four neighbouring places has two triangles. A triangle turns over where the
    determinant of two of its sides is 0. As a share of its value at t = 0, the determinant is
    1 + total t + product t^2.
    """
    largest = tf.constant(1e-6)
    for part in (slice(None, -1), slice(1, None)):
        (a, b, c, d), (e, f, g, h) = _sides(places, part), _sides(moves, part)
        area = a * d - b * c
        total, product = (a * h + d * e - b * g - c * f) / area, (e * h - f * g) / area
        inside = total**2 - 4 * product
        inverse = tf.where(inside >= 0, (tf.sqrt(tf.maximum(inside, 0.0)) - total) / 2, 0.0)
        largest = tf.maximum(largest, tf.reduce_max(inverse))
    return 1 / largest


def _sides(places: tf.Tensor, part: slice) -> list[tf.Tensor]:
    """x and y of the steps to the right, then of those down, in one triangle of each cell."""
    right, down = places[:, :, 1:] - places[:, :, :-1], places[:, 1:] - places[:, :-1]
    return tf.unstack(tf.concat([right[:, part], down[:, :, part]], 0))


@functools.lru_cache(maxsize=None)
def _bicubic(knots: int, length: int) -> np.ndarray:
    """Bicubic resize as a matrix [length, knots]; XLA has no kernel for tf.image.resize."""
    with tf.init_scope():
        return tf.image.resize(tf.eye(knots)[..., tf.newaxis], [length, knots], "bicubic")[
            ..., 0
        ].numpy()


def cutout(places: tf.Tensor, seed: Seed, strength: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Erases a rectangle of image and mask by mapping its pixels outside the image.

    Its sides are up to 35 % of the image's. Places and result are those of `affine_places`, and
    strength is 1, or 0 for none.
    """
    u = tf.random.stateless_uniform([2, 2], seed)

    def inside(length: float, center: tf.Tensor, side: tf.Tensor) -> tf.Tensor:
        distance = tf.abs(tf.range(length) + 0.5 - center * length)
        return tf.cast(distance < strength * side * 0.35 / 2 * length, tf.float32)

    height, width = map(float, places.shape[1:])
    rows, columns = inside(height, u[0, 0], u[0, 1]), inside(width, u[1, 0], u[1, 1])
    far = 10 * (height + width)
    return places - far * rows[:, tf.newaxis] * columns


def warp(example: Example, places: tf.Tensor) -> Example:
    """Samples an image and its mask at given places.

    Args:
        example: a dict with image and mask.
        places: float32 [2, h, w], as `affine_places` returns them.

    Returns:
        A dict: image uint8 [h, w, channels], sampled bilinearly at places rounded to 1/256 pixel,
        and mask uint8 [h, w, C], by nearest neighbour. Both are 0 where a place is outside.
    """
    height, width = example["image"].shape[:2]
    # Zero padding, to which all places outside are moved, so that no place needs a test.
    colors, classes = (
        [tf.reshape(tf.pad(words, [[1, 2], [1, 2]]), [-1]) for words in to_words(example[name])]
        for name in ("image", "mask")
    )
    stride = width + 3
    x, y = (
        tf.cast(tf.clip_by_value(places[i] + 1, 0, side + 1) * 256 + 0.5, tf.int32)
        for i, side in enumerate((width, height))
    )
    shift_right, bits = tf.bitwise.right_shift, tf.bitwise.bitwise_and
    upper_left = shift_right(y, 8) * stride + shift_right(x, 8)
    right, lower = bits(x, 255), bits(y, 255)
    both = shift_right(right * lower, 8)
    weights = [256 - right - lower + both, right - both, lower - both, both]

    def every_second_byte(corners: Sequence[tf.Tensor], first: int) -> tf.Tensor:
        """Sums two of the four bytes of a word at once; 16 bits are enough for each."""
        sums = 0x00800080  # one half, to round
        for corner, weight in zip(corners, weights):
            sums += bits(shift_right(corner, 8 * first), 0x00FF00FF) * weight
        return bits(shift_right(sums, 8), 0x00FF00FF)

    def bilinear(words: tf.Tensor) -> tf.Tensor:
        corners = [tf.gather(words, upper_left + i) for i in (0, 1, stride, stride + 1)]
        return every_second_byte(corners, 0) + 256 * every_second_byte(corners, 1)

    nearest = shift_right(y + 128, 8) * stride + shift_right(x + 128, 8)
    image = from_words([bilinear(words) for words in colors], example["image"].shape[-1])
    classes = [tf.gather(words, nearest) for words in classes]
    mask = from_words(classes, example["mask"].shape[-1])
    return {**example, "image": image, "mask": mask}
