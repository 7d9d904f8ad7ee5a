"""(example, seed) -> example: random changes that move image and mask together."""

import tensorflow as tf


def flips(example, seed):
    """Mirrors left-right and top-bottom, each with probability 1/2.

    Args:
        example: a dict with image [h, w, C] and mask [h, w, classes].
        seed: int [2]; the same seed makes the same choice.

    Returns:
        A new dict with both flipped alike.
    """
    down, across = tf.unstack(tf.random.stateless_uniform([2], seed) < 0.5)

    def flip(x):
        x = tf.cond(down, lambda: tf.reverse(x, [0]), lambda: x)
        return tf.cond(across, lambda: tf.reverse(x, [1]), lambda: x)

    return {**example, "image": flip(example["image"]), "mask": flip(example["mask"])}
