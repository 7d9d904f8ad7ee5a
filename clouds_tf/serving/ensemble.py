"""What one or several models say of an image, with or without mirror images: one probability."""

import tensorflow as tf

from clouds_tf.models.metrics import probabilities
from clouds_tf.schema import SUBMISSION_SIZE

# Axes of [B, H, W, C] along which the images are mirrored, one prediction for each.
FLIPS = {"none": ([],), "flips": ([], [1], [2], [1, 2])}


def mean_probabilities(models, images, test_time_augmentation="none", size=SUBMISSION_SIZE):
    """The mean over models, and over mirror images if asked for.

    Args:
        models: functions from images [B, h, w, 3] in 0..255 to logits [B, h, w, C].
        images: for each model the same images, at the size that it was trained with.
        test_time_augmentation: "none", or "flips" for the four mirror images.
        size: (height, width) of the result.

    Returns:
        float32 [B, height, width, C] in [0, 1].
    """
    predictions = []
    for model, image in zip(models, images):
        for axes in FLIPS[test_time_augmentation]:
            flipped = probabilities(model(tf.reverse(image, axes)), size)
            predictions.append(tf.reverse(flipped, axes))
    return tf.add_n(predictions) / len(predictions)
