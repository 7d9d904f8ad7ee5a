"""The competition's Dice, and a Keras metric with it and related scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import own
from clouds_tf.keras import keras
from clouds_tf.models.losses import OwnScore
from clouds_tf.models.probabilities import probabilities

_NUM_SUMS = 9  # number of sums per class in the state of `Scores`


def competition_dice(mask: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """Dice of each image and class, 2 |X and Y| / (|X| + |Y|); 1 where both are empty.

    Args:
        mask: truth [B, h, w, C]; nonzero pixels belong to the mask.
        predicted: prediction [B, h, w, C]; nonzero pixels belong to the mask.

    Returns:
        float32 [B, C] in [0, 1].
    """
    mask, predicted = tf.cast(mask, tf.bool), tf.cast(predicted, tf.bool)

    def area(x: tf.Tensor) -> tf.Tensor:
        return tf.math.count_nonzero(x, axis=[1, 2], dtype=tf.int32)

    intersection, total = area(mask & predicted), area(mask) + area(predicted)
    return tf.where(total == 0, 1.0, tf.cast(2 * intersection / total, tf.float32))


@keras.utils.register_keras_serializable("clouds_tf")
class Scores(keras.metrics.Metric):
    """Scores of logits at the size of the masks; a class is found where its probability > 0.5.

    | name                 | over the images, for each class                                       |
    |----------------------|-----------------------------------------------------------------------|
    | `dice`               | the competition's: the mean of `competition_dice`                     |
    | `soft_dice`          | 2 sum(pq) / (sum p + sum q), over all pixels, with probabilities q    |
    | `iou`                | intersection / union of all pixels                                    |
    | `presence_precision` | share of images with the class, of those where it was found           |
    | `presence_recall`    | share of images where it was found, of those with the class           |

    The result is a dict of each name, the mean over classes, and each `<name>_<class>`; quotients
    with the denominator 0 are 0. Keras' prefix for the name of an output is not added. The state
    consists of sums, so the values do not depend on how images are divided into batches or over
    replicas.
    """

    def __init__(self, class_names: Sequence[str], name: str = "scores", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.class_names = tuple(class_names)
        # In float64, as float32 cannot count beyond 2^24 pixels, which 91 masks have.
        self.sums = self.add_weight(
            "sums", [_NUM_SUMS, len(class_names)], dtype=tf.float64, initializer="zeros"
        )

    def update_state(
        self, mask: tf.Tensor, logits: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Adds a batch: mask [B, h, w, C] in 0..1, logits [B, h', w', C]."""
        del sample_weight  # an image counts once, as in the competition
        q = probabilities(logits, tf.shape(mask)[1:3])
        p = tf.cast(mask, tf.float32)
        truth, found = p > 0.5, q > 0.5  # masks may be blended
        pixels = [p * q, p + q, truth & found, truth | found]
        per_image = [tf.reduce_sum(tf.cast(x, tf.float32), axis=[1, 2]) for x in pixels]
        per_image += [competition_dice(truth, found)]
        truth, found = (tf.reduce_any(x, axis=[1, 2]) for x in (truth, found))
        per_image += [truth & found, truth, found]
        per_image += [tf.ones_like(truth)]
        self.sums.assign_add(
            tf.stack([tf.reduce_sum(tf.cast(x, tf.float64), axis=0) for x in per_image])
        )

    def result(self) -> dict[str, tf.Tensor]:
        overlap, total, both, either, dice, hit, truth, found, images = tf.unstack(self.sums)
        ratios = {
            "dice": (dice, images),
            "soft_dice": (2 * overlap, total),
            "iou": (both, either),
            "presence_precision": (hit, found),
            "presence_recall": (hit, truth),
        }
        result = {}
        for name, (sums, counts) in ratios.items():
            scores = tf.cast(tf.math.divide_no_nan(sums, counts), tf.float32)
            result[name] = tf.reduce_mean(scores)
            result |= {f"{name}_{c}": scores[i] for i, c in enumerate(self.class_names)}
        return result

    def blank_dice(self) -> tf.Tensor:
        """Dice of blank masks, float32 [C]: the share of images without the class."""
        *_, truth, _, images = tf.unstack(self.sums)
        return tf.cast(1 - tf.math.divide_no_nan(truth, images), tf.float32)

    def reset_state(self) -> None:
        self.sums.assign(tf.zeros_like(self.sums))  # Keras' own assigns 0, which it does not take

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_names": list(self.class_names)}


def own_metric(spec: str) -> Any:
    """A Keras metric: mean over images of a user's function of (mask, logits), see `OwnScore`."""
    return keras.metrics.MeanMetricWrapper(OwnScore("metrics", spec), name=own.title(spec))
