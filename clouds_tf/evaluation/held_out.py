"""Held-out predictions, reduced to what every search needs: counts of pixels per threshold."""

import collections

import numpy as np
import tensorflow as tf

from clouds_tf.data import input_pipeline
from clouds_tf.models.unet import segmentation
from clouds_tf.schema import NUM_CLASSES, SUBMISSION_SIZE
from clouds_tf.serving.ensemble import mean_probabilities
from clouds_tf.training import workdir as workdirs

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))

# Of N images, int64 in pixels: areas [N, C, T] above each threshold; intersections [N, C, T], those
# of them in the truth; truths [N, C], of the truth; and folds [N], where each was held out.
Counts = collections.namedtuple("Counts", "areas intersections truths folds")


def count_pixels(probabilities, masks, thresholds=THRESHOLDS):
    """Counts, for every threshold at once, what the metric needs.

    From these numbers follows the Dice of every pair of threshold and least area, so that no
    probabilities have to be kept.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        masks: truth [B, h, w, C] of {0, 1}.
        thresholds: T increasing numbers.

    Returns:
        areas, intersections int64 [B, C, T] and truths int64 [B, C], in pixels.
    """
    # The negation makes the comparison strict: p > t, as in post-processing.
    at_least = tf.raw_ops.Bucketize(
        input=-probabilities, boundaries=[-t for t in reversed(thresholds)]
    )
    num_bins = len(thresholds) + 1
    number_above = num_bins - 1 - at_least  # of thresholds
    batch, classes = tf.shape(masks)[0], masks.shape[3]
    row = tf.reshape(tf.range(batch * classes), [batch, 1, 1, classes])
    # Truth and its complement are counted apart, in one pass over the pixels.
    bins = (row * 2 + tf.cast(masks, tf.int32)) * num_bins + number_above
    length = batch * classes * 2 * num_bins
    histogram = tf.math.bincount(tf.reshape(bins, [-1]), minlength=length, maxlength=length)
    histogram = tf.cast(tf.reshape(histogram, [batch, classes, 2, num_bins]), tf.int64)
    above = tf.cumsum(histogram, axis=3, reverse=True)
    intersections = above[:, :, 1]
    areas = above[:, :, 0] + intersections
    return areas[..., 1:], intersections[..., 1:], intersections[..., 0]


def collect(records_dir, workdirs_, batch_size=16, test_time_augmentation="none", progress=iter):
    """Predicts every image that a workdir held out, with the models that did not see it.

    Args:
        records_dir: the folder of shards that the workdirs were trained on.
        workdirs_: folders of runs; those that hold out the same fold are averaged.
        batch_size: images in a batch.
        test_time_augmentation: "none" or "flips".
        progress: wraps the iterable of batches, such as tqdm.

    Returns:
        Counts over all N images.

    Raises:
        FileNotFoundError, ValueError: a workdir without a run, or of other records.
    """
    by_fold = collections.defaultdict(list)
    for folder in workdirs_:
        settings = workdirs.read_settings(folder)
        workdirs.check_records(folder, records_dir)
        by_fold[settings["fold"]].append((workdirs.load_model(folder), settings["image_size"]))

    def batches():
        for fold, members in sorted(by_fold.items()):
            models, sizes = zip(*members)
            yield from _count_fold(
                records_dir, fold, models, sizes, batch_size, test_time_augmentation
            )

    parts = [Counts(*(np.asarray(x) for x in part)) for part in progress(batches())]
    return Counts(*map(np.concatenate, zip(*parts)))


def _count_fold(records_dir, fold, models, sizes, batch_size, test_time_augmentation):
    """Yields Counts of every batch of one fold."""
    streams = tuple(
        input_pipeline.validation_batches(records_dir, [fold], size, batch_size) for size in sizes
    )
    models = [segmentation(model) for model in models]
    calls = [lambda image, m=model: m(image, training=False) for model in models]

    @tf.function(reduce_retracing=True)
    def step(images, mask):
        predicted = mean_probabilities(calls, images, test_time_augmentation)
        predicted = tf.ensure_shape(predicted, [None, *SUBMISSION_SIZE, NUM_CLASSES])
        return count_pixels(predicted, mask)

    for batch in tf.data.Dataset.zip(streams):
        images, (mask, *_) = zip(*batch)
        yield (*step(images, mask), np.full(len(mask), fold))
