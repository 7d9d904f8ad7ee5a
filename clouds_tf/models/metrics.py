"""The competition's Dice, as a function and as a Keras metric."""

import tensorflow as tf

from clouds_tf.schema import CLASS_NAMES


def probabilities(logits, size):
    """Probabilities at another size: the sigmoid, then bilinear.

    Args:
        logits: [B, h, w, C].
        size: (height, width) of the result.

    Returns:
        float32 [B, height, width, C] in [0, 1].
    """
    return tf.image.resize(tf.sigmoid(tf.cast(logits, tf.float32)), size)


def competition_dice(mask, predicted):
    """2|X and Y| / (|X| + |Y|) of each image and class; 1 where both are empty.

    Args:
        mask: truth [B, h, w, C], zero or not.
        predicted: [B, h, w, C], zero or not.

    Returns:
        float32 [B, C] in [0, 1].
    """
    mask, predicted = tf.cast(mask, tf.bool), tf.cast(predicted, tf.bool)

    def area(x):
        return tf.math.count_nonzero(x, axis=[1, 2], dtype=tf.int32)

    intersection, total = area(mask & predicted), area(mask) + area(predicted)
    return tf.where(total == 0, 1.0, tf.cast(2 * intersection / total, tf.float32))


@tf.keras.utils.register_keras_serializable("clouds_tf")
class CompetitionDice(tf.keras.metrics.Metric):
    """The competition's score of logits cut at probability 1/2, at the size of the masks.

    Its state is two sums, so the value does not depend on batches or replicas. The result is a
    dict: `dice`, the mean over images and classes, and `dice_<class>` for every class. These names
    stay when Keras puts the name of an output before that of the metric.
    """

    def __init__(self, name="dice", class_names=CLASS_NAMES, **kwargs):
        super().__init__(name=name, **kwargs)
        self.class_names = class_names
        self.total = self.add_weight("total", [len(class_names)], initializer="zeros")
        self.count = self.add_weight("count", [], initializer="zeros")

    def update_state(self, mask, logits, sample_weight=None):
        del sample_weight  # an image counts once, as in the competition
        predicted = probabilities(logits, tf.shape(mask)[1:3]) > 0.5
        scores = competition_dice(mask, predicted)
        self.total.assign_add(tf.reduce_sum(scores, axis=0))
        self.count.assign_add(tf.cast(tf.shape(scores)[0], tf.float32))

    def result(self):
        scores = tf.math.divide_no_nan(self.total, self.count)
        named = {f"dice_{c}": scores[i] for i, c in enumerate(self.class_names)}
        return {"dice": tf.reduce_mean(scores), **named}

    def reset_state(self):
        for sums in self.variables:  # Keras' own assigns a scalar 0, which a vector does not take
            sums.assign(tf.zeros_like(sums))

    def get_config(self):
        return {**super().get_config(), "class_names": self.class_names}
