"""Held-out predictions, reduced to pixel counts from which every score and every rule follows."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from clouds_tf.data import input_pipeline
from clouds_tf.dataset import Dataset
from clouds_tf.evaluation.members import Member, records_dataset
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.prediction.postprocessing import Rule, refine

THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(1, 20))
# Finer near 0 and 1, where most pixels are.
_TAIL = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075)
EDGES = (*_TAIL, *(round(0.01 * i, 2) for i in range(1, 100)), *(1 - x for x in reversed(_TAIL)))

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixel counts of N held-out images of C classes, at the submission size.

    Attributes:
        histograms: int64 [N, C, 2, B]: pixels outside and inside the truth, by probability; the B
            bins lie between 0, EDGES and 1, and a probability on an edge belongs below it.
        mask_areas: int64 [N, C, T, V]: areas of the masks of T thresholds and V refinements.
        intersections: int64 [N, C, T, V]: areas that these masks share with the truth.
        presence: float32 [N, C]: presence that was predicted.
        folds: int [N]: the fold that held the image out.
    """

    histograms: np.ndarray
    mask_areas: np.ndarray
    intersections: np.ndarray
    presence: np.ndarray
    folds: np.ndarray

    @functools.cached_property
    def truths(self) -> np.ndarray:
        """Areas of the truth, int64 [N, C]."""
        return self.histograms[:, :, 1].sum(axis=-1)

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """Pixels that are more probable than each of THRESHOLDS, int64 [N, C, T]."""
        return more_probable(self.histograms.sum(axis=2), THRESHOLDS)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.histograms.shape[1]

    def refined_by(self, index: Sequence[int]) -> Counts:
        """The same images with some of the refinements only."""
        index = list(index)
        return dataclasses.replace(
            self,
            mask_areas=self.mask_areas[..., index],
            intersections=self.intersections[..., index],
        )

    def cross_fitting_groups(self, seed: int = 0, num_splits: int = 10) -> list[np.ndarray]:
        """Divides the images into groups, of which one is measured and the others are fitted on.

        Args:
            seed: seed of the halves.
            num_splits: number of ways to halve a single fold.

        Returns:
            A list of int [N], the group 0..K-1 of each image: the folds or, where there is one fold
            only, several ways to divide it into random halves.

        Raises:
            ValueError: there is one image only.
        """
        if len(self.folds) < 2:
            raise ValueError(
                f"got {len(self.folds)} held-out images, expected at least 2: rules are fitted on "
                "some and measured on others"
            )
        names, groups = np.unique(self.folds, return_inverse=True)
        if len(names) > 1:
            return [groups.reshape(-1)]
        rng = np.random.default_rng(seed)
        return [rng.permutation(len(self.folds)) % 2 for _ in range(num_splits)]


def more_probable(histograms: np.ndarray, thresholds: Iterable[float]) -> np.ndarray:
    """Counts the pixels above thresholds that are among EDGES.

    Args:
        histograms: int64 [..., B], as Counts has them.
        thresholds: T members of EDGES.

    Returns:
        int64 [..., T].
    """
    above = np.flip(np.flip(histograms, axis=-1).cumsum(axis=-1), axis=-1)
    return above[..., [EDGES.index(threshold) + 1 for threshold in thresholds]]


def histogram(probabilities: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Counts the pixels of each image and class by truth and probability, in one pass.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        masks: truth [B, h, w, C] of {0, 1}.

    Returns:
        int64 [B, C, 2, len(EDGES) + 1], as Counts has them.
    """
    # The negation makes the comparison strict: p > t, as in post-processing.
    at_least = tf.raw_ops.Bucketize(
        input=-probabilities, boundaries=[-edge for edge in reversed(EDGES)]
    )
    num_bins = len(EDGES) + 1
    batch, classes = tf.shape(masks)[0], masks.shape[3]
    row = tf.reshape(tf.range(batch * classes), [batch, 1, 1, classes])
    bins = (row * 2 + tf.cast(masks, tf.int32)) * num_bins + (num_bins - 1 - at_least)
    length = batch * classes * 2 * num_bins
    counts = tf.math.bincount(tf.reshape(bins, [-1]), minlength=length, maxlength=length)
    return tf.cast(tf.reshape(counts, [batch, classes, 2, num_bins]), tf.int64)


def count_refined(
    probabilities: tf.Tensor,
    masks: tf.Tensor,
    images: tf.Tensor,
    refinement: Rule,
    thresholds: Sequence[float] = THRESHOLDS,
    gap_brightness: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Counts the pixels of refined masks for every threshold.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        masks: truth [B, h, w, C] of {0, 1}.
        images: uint8 [B, H, W, 3], as `refine` takes them.
        refinement: a Rule, as `refine` takes it.
        thresholds: T increasing numbers.
        gap_brightness: see `Dataset`.

    Returns:
        Areas and intersections with the truth, int64 [B, C, T], in pixels.
    """
    num_classes = masks.shape[3]

    def by_class(values: tf.Tensor) -> tf.Tensor:  # [B, h, w, C] as [C * B, h, w]
        return tf.concat(tf.unstack(values, num=num_classes, axis=3), axis=0)

    # All classes at once, because tracing the refinement for each class takes twice as long.
    probabilities, truths = by_class(probabilities), by_class(tf.cast(masks, tf.bool))
    images = tf.tile(images, [num_classes, 1, 1, 1])

    def count(threshold: tf.Tensor) -> tuple[tf.Tensor, ...]:
        refined = refine(probabilities > threshold, images, refinement, gap_brightness)
        areas = (tf.math.count_nonzero(x, axis=[1, 2]) for x in (refined, refined & truths))
        return tuple(tf.reshape(x, [num_classes, -1]) for x in areas)

    # One threshold after the other, for the sake of memory.
    found = tf.map_fn(count, tf.constant(thresholds), fn_output_signature=(tf.int64, tf.int64))
    areas, intersections = (tf.transpose(counts, [2, 1, 0]) for counts in found)
    return areas, intersections


def collect(
    records_dir: str,
    members_by_fold: dict[int, list[Member]],
    batch_size: int = 16,
    test_time_augmentation: str = "none",
    refinements: Sequence[Rule] = (Rule(),),
    progress: Progress = lambda done, total: None,
) -> Counts:
    """Predicts every image of the folds with the models that held it out, and counts pixels.

    A batch is counted and forgotten: an image costs 2 kB a class, whatever its size.

    Args:
        records_dir: the folder of shards that the models were trained on.
        members_by_fold: as `load_members` gives it.
        batch_size: images in a batch.
        test_time_augmentation: "none" or "flips".
        refinements: V Rules, as `refine` takes them; the first refines nothing.
        progress: called with (done, total) images.

    Returns:
        Counts over all N images, those of the first fold first.

    Raises:
        ValueError: the folds hold no image.
    """
    total = input_pipeline.count_examples(records_dir, list(members_by_fold))
    if not total:
        raise ValueError(f"{records_dir}: no images in the folds {list(members_by_fold)}")
    dataset = records_dataset(records_dir)
    found: list[list[np.ndarray]] = []
    done = 0
    for fold, members in members_by_fold.items():
        count = _counter(refinements, members[0].image_size, dataset)
        for images, mask, probabilities, presence in predict_fold(
            records_dir, fold, members, batch_size, test_time_augmentation
        ):
            counted = count(images[0], mask, probabilities)
            folds = np.full(len(mask), fold)
            found.append([np.asarray(x) for x in (*counted, presence, folds)])
            done += len(mask)
            progress(done, total)
    return Counts(*map(np.concatenate, zip(*found)))


def _counter(refinements: Sequence[Rule], image_size: tuple[int, int], dataset: Dataset) -> Any:
    """A function of (images, mask, probabilities) that gives the first three fields of Counts."""

    def count(images: tf.Tensor, mask: tf.Tensor, probabilities: tf.Tensor) -> tuple:
        histograms = histogram(probabilities, mask)
        above = tf.cumsum(histograms, axis=3, reverse=True)
        places = [EDGES.index(threshold) + 1 for threshold in THRESHOLDS]
        by_truth = tf.gather(above, places, axis=3)
        plain = tf.reduce_sum(by_truth, axis=2), by_truth[:, :, 1]
        refined = [
            count_refined(probabilities, mask, images, rule, THRESHOLDS, dataset.gap_brightness)
            for rule in refinements[1:]
        ]
        return histograms, *(tf.stack(variants, axis=3) for variants in zip(plain, *refined))

    masks = [None, *dataset.submission_size, dataset.num_classes]
    # Concrete: a tf.function that is made anew for each fold would be called a retracing one.
    return tf.function(count).get_concrete_function(
        tf.TensorSpec([None, *image_size, 3], tf.uint8),
        tf.TensorSpec(masks, tf.uint8),
        tf.TensorSpec(masks, tf.float32),
    )


def predict_fold(
    records_dir: str,
    fold: int,
    members: Sequence[Member],
    batch_size: int = 16,
    test_time_augmentation: str = "none",
    places: Optional[Sequence[int]] = None,
) -> Iterator[tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Predicts the images of one fold, in the order of the shards.

    Args:
        records_dir: a folder of shards.
        fold: the fold to predict.
        members: M Members, to be averaged.
        batch_size: images in a batch.
        test_time_augmentation: "none" or "flips".
        places: which images of the fold to predict, counted from 0; all by default.

    Yields:
        For every batch: a list of M batches of images uint8 [B, h, w, 3], one for each member; the
        truth uint8 [B, height, width, C] at the submission size; and the probabilities and
        presence that `mean_prediction` gives for them.
    """
    size = records_dataset(records_dir).submission_size
    sizes = [member.image_size for member in members]
    networks = [member.network for member in members]
    streams = tuple(
        input_pipeline.validation_batches(records_dir, [fold], s, batch_size) for s in sizes
    )

    batches = tf.data.Dataset.zip(streams)
    if places is not None:
        wanted = batches.unbatch().enumerate().filter(lambda i, _: tf.reduce_any(i == places))
        batches = wanted.map(lambda _, example: example).batch(batch_size)
    for batch in batches:
        images, (mask, *_) = zip(*batch)
        yield list(images), mask, *mean_prediction(networks, images, size, test_time_augmentation)
