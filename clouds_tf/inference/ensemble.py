"""What one or several models say of an image, with or without mirror images: their mean."""

import tensorflow as tf

from clouds_tf.models.metrics import probabilities
from clouds_tf.schema import SUBMISSION_SIZE

# Axes of [B, H, W, C] along which the images are mirrored, one prediction for each.
FLIPS = {"none": ([],), "flips": ([], [1], [2], [1, 2])}


def mean_prediction(models, images, test_time_augmentation="none", size=SUBMISSION_SIZE):
    """The mean over models, and over mirror images if asked for.

    Args:
        models: functions from images [B, h, w, 3] in 0..255 to a dict of "logits" [B, h, w, C]
            and, with a classification head, "presence_logits" [B, C].
        images: for each model the same images, at the size that it was trained with.
        test_time_augmentation: "none", or "flips" for the four mirror images.
        size: (height, width) of the result.

    Returns:
        Probabilities, float32 [B, height, width, C] in [0, 1]; and presence, float32 [B, C] in
        [0, 1]: what the classification heads say, or, where no model has one, the highest
        probability of the class in the image.
    """
    pixels, presences = [], []
    for model, image in zip(models, images):
        for axes in FLIPS[test_time_augmentation]:
            outputs = model(tf.reverse(image, axes))
            if "presence_logits" in outputs:
                logits = tf.cast(outputs["presence_logits"], tf.float32)
                presences.append(tf.sigmoid(logits))
            pixels.append(tf.reverse(probabilities(outputs["logits"], size), axes))
    mean = tf.add_n(pixels) / len(pixels)
    if presences:
        return mean, tf.add_n(presences) / len(presences)
    return mean, tf.reduce_max(mean, axis=[1, 2])
