"""Random mixes of the examples of a batch: (images, masks, seed) -> images and masks.

All of them are stateless, and mix an example only with the previous one of the batch, so that
workers that share a batch can mix their parts like a single worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

import tensorflow as tf

from clouds_tf import own

Example = dict[str, "tf.Tensor"]  # image uint8 [h, w, 3] and mask uint8 [h, w, C]
Seed = Union["tf.Tensor", Sequence[int]]  # int [2]
Mix = Callable[..., "tuple[tf.Tensor, tf.Tensor]"]


def mixup(
    images: tf.Tensor,
    masks: tf.Tensor,
    seed: Seed,
    places: tf.Tensor | None = None,
    batch_size: tf.Tensor | int | None = None,
    alpha: float = 0.2,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Blends each example of a batch with the previous one, and the first with the last.

    Arguments are those of `cutmix`; alpha is the parameter of the Beta distribution of the share.
    Images, 0..255, and masks, 0..1, become float32.
    """
    batch_size = tf.shape(images)[0] if batch_size is None else batch_size
    share = _beta([batch_size], alpha, seed)
    share = tf.reshape(share if places is None else tf.gather(share, places), [-1, 1, 1, 1])

    def blend(x: tf.Tensor) -> tf.Tensor:
        x = tf.cast(x, tf.float32)
        other = tf.roll(x, 1, axis=0)
        return other + share * (x - other)  # in this form, exactly 1 where both are 1

    return blend(images), blend(masks)


def cutmix(
    images: tf.Tensor,
    masks: tf.Tensor,
    seed: Seed,
    places: tf.Tensor | None = None,
    batch_size: tf.Tensor | int | None = None,
    alpha: float = 1.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pastes a rectangle of each example of a batch into the next one, with its mask.

    Args:
        images: uint8 [B, h, w, 3].
        masks: uint8 [B, h, w, C] of {0, 1}.
        seed: int [2].
        places: int [B], the position of each example in the whole batch, if these are a part of it;
            None for the whole batch.
        batch_size: number of examples in the whole batch.
        alpha: parameter of the Beta distribution of the rectangle's share, drawn for each example.

    Returns:
        Images and masks of the same shapes and dtypes.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    height, width = tf.unstack(tf.shape(images)[1:3])
    batch_size = tf.shape(images)[0] if batch_size is None else batch_size
    side = tf.sqrt(1 - _beta([batch_size], alpha, seeds[0]))[:, tf.newaxis]
    center = tf.random.stateless_uniform([2, batch_size, 1], seeds[1])
    if places is not None:
        side, center = tf.gather(side, places), tf.gather(center, places, axis=1)

    def inside(length: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        pixels = (tf.range(length, dtype=tf.float32) + 0.5) / tf.cast(length, tf.float32)
        return tf.abs(pixels - place) < side / 2

    pasted = inside(height, center[0])[:, :, tf.newaxis] & inside(width, center[1])[:, tf.newaxis]
    pasted = pasted[..., tf.newaxis]
    mixed_images, mixed_masks = (
        tf.where(pasted, tf.roll(x, 1, axis=0), x) for x in (images, masks)
    )
    return mixed_images, mixed_masks


def _beta(shape: Sequence[Any], alpha: float, seed: Seed) -> tf.Tensor:
    """Beta(alpha, alpha), float32 of that shape."""
    one, other = tf.unstack(tf.random.stateless_gamma([2, *shape], seed, alpha))
    # With a small alpha, both are occasionally 0.
    return (one + 1e-30) / (one + other + 2e-30)


MIXES: dict[str, Mix] = {
    "none": lambda images, masks, *_: (images, masks),
    "mixup": mixup,
    "cutmix": cutmix,
}


def check_mix(name: str, sample_weights: object = None) -> None:
    """Checks the name of a mix.

    Raises:
        ValueError: it is neither a key of MIXES nor "module:function", or a mix is used together
            with sample weights.
    """
    if sample_weights and name != "none":
        raise ValueError(f"sample_weights: got mix={name} as well, expected mix=none")
    if name not in MIXES and not own.is_own(name):
        expected = f"one of {', '.join(MIXES)}, or module:function"
        raise ValueError(f"mix: got {name!r}, expected {expected}")


def find_mix(name: str) -> Mix:
    """Finds a function with the arguments and results of `cutmix`.

    Raises:
        ValueError: the name is unknown. A user's mix raises it when called if it changes a shape.
    """
    check_mix(name)
    if not own.is_own(name):
        return MIXES[name]
    own.find("mix", name)

    def mix(images: tf.Tensor, masks: tf.Tensor, *args: object) -> tuple[tf.Tensor, tf.Tensor]:
        mixed_images, mixed_masks = own.call("mix", name, images, masks, *args)
        for before, after in ((images, mixed_images), (masks, mixed_masks)):
            if not before.shape.is_compatible_with(after.shape):
                raise ValueError(
                    f"mix: {name} made {after.shape} of {before.shape}, expected the same shape"
                )
        return mixed_images, mixed_masks

    return mix
