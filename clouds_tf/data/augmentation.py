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
    axes = tf.boolean_mask([0, 1], tf.random.stateless_uniform([2], seed) < 0.5)
    words = tf.reverse(tf.bitcast(example["mask"], tf.int32), axes)
    return {
        **example,
        "image": tf.reverse(example["image"], axes),
        "mask": tf.bitcast(words, tf.uint8),
    }
