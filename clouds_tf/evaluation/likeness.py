"""The distribution of held-out images, to which new ones are compared."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from clouds_tf.data.records import Records
from clouds_tf.evaluation.held_out import Member
from clouds_tf.prediction.likeness import Likeness, statistics


def fit_likeness(
    records: Records, by_fold: dict[int, list[Member]], batch_size: int
) -> Likeness | None:
    """Fits how the images of the folds look, at the size of the first network; None for one image.

    Args:
        records: the records of the images.
        by_fold: Members by fold.
        batch_size: images in a batch.
    """
    folds, size = list(by_fold), next(iter(by_fold.values()))[0].image_size
    if records.info.count(folds) < 2:
        return None
    measure = tf.function(statistics, autograph=False, reduce_retracing=True)
    batches = records.held_out_batches(folds, size, batch_size)
    return Likeness.fit(np.concatenate([measure(images) for images, _ in batches]), size)
