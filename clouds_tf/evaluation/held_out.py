"""Held-out predictions, reduced to what every search needs: counts of pixels per threshold."""

import collections

import numpy as np
import tensorflow as tf

from clouds_tf.data import input_pipeline
from clouds_tf.inference.ensemble import mean_prediction
from clouds_tf.inference.fusing import fuse
from clouds_tf.inference.postprocessing import Rule, refine
from clouds_tf.schema import CLOUDS, NUM_CLASSES, SUBMISSION_SIZE
from clouds_tf.training import workdir as workdirs

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))

# What every search needs of N images, in pixels, int64:
#   areas [N, C, T]: more probable than each threshold;
#   mask_areas [N, C, T, V]: of the masks that V refinements make of these;
#   intersections [N, C, T, V]: those of them in the truth;
#   truths [N, C]: of the truth;
# and presence, float32 [N, C], what the models say of it; folds [N], where each was held out.
Counts = collections.namedtuple("Counts", "areas mask_areas intersections truths presence folds")


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


def count_refined(probabilities, masks, images, refinement, thresholds=THRESHOLDS):
    """Counts, for every threshold, what is left of a mask and added to it by a refinement.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        masks: truth [B, h, w, C] of {0, 1}.
        images: uint8 [B, H, W, 3], as `refine` takes them.
        refinement: a Rule, as `refine` takes it.
        thresholds: T increasing numbers.

    Returns:
        areas, intersections int64 [B, C, T], in pixels.
    """
    truths = tf.unstack(tf.cast(masks, tf.bool), axis=3)

    def count(threshold):
        cuts = tf.unstack(probabilities > threshold, axis=3)
        refined = [refine(cut, images, refinement, CLOUDS.gap_brightness) for cut in cuts]
        pairs = zip(refined, truths)
        areas = tf.math.count_nonzero(tf.stack(refined), axis=[2, 3])
        return areas, tf.math.count_nonzero(tf.stack([r & t for r, t in pairs]), axis=[2, 3])

    # One threshold after the other, for the sake of memory.
    found = tf.map_fn(count, tf.constant(thresholds), fn_output_signature=(tf.int64, tf.int64))
    return [tf.transpose(counts, [2, 1, 0]) for counts in found]


def load_members(records_dir, folders):
    """Loads the models of workdirs, by the fold that they held out.

    Args:
        records_dir: the folder of shards that the workdirs were trained on.
        folders: workdirs of runs.

    Returns:
        A dict of fold -> pairs of a Keras model from images to logits, its batch norm folded as in
        serving, and its image size; in the order of the folds.

    Raises:
        FileNotFoundError, ValueError: a workdir without a run, or of other records.
    """
    by_fold = collections.defaultdict(list)
    for folder in folders:
        run = workdirs.read_run(folder)
        workdirs.check_records(folder, records_dir)
        model = fuse(workdirs.load_model(folder))
        by_fold[run.fold].append((model, list(run.recipe.image_size)))
    return dict(sorted(by_fold.items()))


def collect(
    records_dir,
    members_by_fold,
    batch_size=16,
    test_time_augmentation="none",
    refinements=(Rule(),),
    progress=iter,
):
    """Predicts every image of the folds, with the models that held it out, and counts pixels.

    A batch is counted and forgotten, so that the memory does not grow with the images.

    Args:
        records_dir: the folder of shards that the workdirs were trained on.
        members_by_fold: as `load_members` gives it.
        batch_size: images in a batch.
        test_time_augmentation: "none" or "flips".
        refinements: V Rules, as `refine` takes them; the first refines nothing.
        progress: wraps the iterable of batches, such as tqdm.

    Returns:
        Counts over all N images, those of the first fold first.
    """

    def batches():
        for fold, members in members_by_fold.items():
            for images, mask, *predicted in predict_fold(
                records_dir, fold, members, batch_size, test_time_augmentation
            ):
                counted = _count(images[0], mask, *predicted, refinements)
                yield Counts(*(np.asarray(x) for x in counted), np.full(len(mask), fold))

    return Counts(*map(np.concatenate, zip(*progress(batches()))))


@tf.function(reduce_retracing=True)
def _count(images, mask, probabilities, presence, refinements):
    areas, intersections, truths = count_pixels(probabilities, mask)
    refined = [count_refined(probabilities, mask, images, r) for r in refinements[1:]]
    by_variant = zip((areas, intersections), *refined)
    return areas, *(tf.stack(variants, axis=3) for variants in by_variant), truths, presence


def predict_fold(
    records_dir, fold, members, batch_size=16, test_time_augmentation="none", places=None
):
    """Predicts the images of one fold, in the order of the shards.

    Args:
        records_dir: a folder of shards.
        fold: which one to predict.
        members: pairs of a Keras model from images to logits and its image size, to be averaged.
        batch_size: images in a batch.
        test_time_augmentation: "none" or "flips".
        places: which images of the fold to predict, counted from 0; all by default.

    Yields:
        For every batch: a list of images uint8 [B, h, w, 3], one for each member; the truth uint8
        [B, 350, 525, C]; and what `mean_prediction` gives for them.
    """
    models, sizes = zip(*members)
    streams = tuple(
        input_pipeline.validation_batches(records_dir, [fold], size, batch_size) for size in sizes
    )
    calls = [lambda image, m=model: m(image, training=False) for model in models]

    @tf.function(reduce_retracing=True)
    def predict(images):
        probabilities, presence = mean_prediction(
            calls, images, SUBMISSION_SIZE, test_time_augmentation
        )
        shape = [None, *SUBMISSION_SIZE, NUM_CLASSES]
        return tf.ensure_shape(probabilities, shape), tf.ensure_shape(presence, shape[::3])

    batches = tf.data.Dataset.zip(streams)
    if places is not None:
        wanted = batches.unbatch().enumerate().filter(lambda i, _: tf.reduce_any(i == places))
        batches = wanted.map(lambda _, example: example).batch(batch_size)
    for batch in batches:
        images, (mask, *_) = zip(*batch)
        yield list(images), mask, *predict(list(images))
