"""Pixel counts of held-out predictions, from which all scores and rules are computed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Optional

import numpy as np
import tensorflow as tf

from clouds_tf.messages import counted
from clouds_tf.prediction.postprocessing import top_means

HUNDREDTHS = tuple(round(0.01 * i, 2) for i in range(1, 100))
TWENTIETHS = slice(4, None, 5)  # those of HUNDREDTHS: 0.05, 0.1, ...
# Finer near 0 and 1, where most pixels are.
_TAIL = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075)
EDGES = (*_TAIL, *HUNDREDTHS, *(1 - x for x in reversed(_TAIL)))

_SPLITS = 10  # number of random splits of a single fold
_PLACES = slice(len(_TAIL) + 1, len(_TAIL) + 1 + len(HUNDREDTHS))  # in the result of `above`


@dataclasses.dataclass(frozen=True)
class Counts:
    """Pixel counts of N held-out images of C classes, at the submission size.

    Attributes:
        histograms: int32 [N, C, 2, B], pixels outside and inside the true mask, by probability. The
            B bins lie between 0, EDGES and 1; a probability on an edge belongs to the lower bin.
        presence: float32 [N, C], predicted presence.
        top_means: float32 [N, C], see `postprocessing.top_means`.
        folds: int [N], the fold that held the image out.
        of_all: for exclusive classes, see `of_probabilities`; otherwise None.
    """

    histograms: np.ndarray
    presence: np.ndarray
    top_means: np.ndarray
    folds: np.ndarray
    of_all: Optional[np.ndarray] = None

    @property
    def of_probabilities(self) -> np.ndarray:
        """Histograms of all probabilities, not only those of each pixel's most probable class."""
        return self.histograms if self.of_all is None else self.of_all

    @functools.cached_property
    def truths(self) -> np.ndarray:
        """Areas of the true masks, int64 [N, C]."""
        return self.histograms[:, :, 1].sum(axis=-1)

    @property  # not cached: 2 kB an image of four classes
    def areas(self) -> np.ndarray:
        """Numbers of pixels with a probability above each of HUNDREDTHS, int32 [N, C, 99]."""
        both = self.histograms.sum(axis=2, dtype=self.histograms.dtype)
        return above(both)[..., _PLACES]

    @property
    def intersections(self) -> np.ndarray:
        """Numbers of those pixels in the true mask, int32 [N, C, 99]."""
        return above(self.histograms[:, :, 1])[..., _PLACES]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.histograms.shape[1]

    def of_class(self, c: int) -> Counts:
        """The Counts of one class, which share the memory of these."""
        presence, means = (x[:, c : c + 1] for x in (self.presence, self.top_means))
        of_all = None if self.of_all is None else self.of_all[:, c : c + 1]
        return Counts(self.histograms[:, c : c + 1], presence, means, self.folds, of_all)

    def cross_fitting_groups(self, seed: int = 0) -> list[np.ndarray]:
        """Divides the images into groups for cross-fitting.

        Returns:
            A list of int [N], the group 0..K-1 of each image: the folds or, if there is only one
            fold, ten random splits into halves, drawn from the seed.

        Raises:
            ValueError: there is only one image.
        """
        if len(self.folds) < 2:
            raise ValueError(
                f"got {counted(len(self.folds), 'held-out image')}, expected at least 2: rules are "
                "fitted on some and measured on others"
            )
        names, groups = np.unique(self.folds, return_inverse=True)
        if len(names) > 1:
            return [groups.reshape(-1)]
        rng = np.random.default_rng(seed)
        return [rng.permutation(len(self.folds)) % 2 for _ in range(_SPLITS)]


def above(numbers: np.ndarray) -> np.ndarray:
    """Counts the pixels with a probability above 0, each of EDGES, and 1.

    Args:
        numbers: [..., B], pixels by probability, see `Counts`.

    Returns:
        [..., B + 1], of the same dtype.
    """
    sums = np.flip(numbers, axis=-1).cumsum(axis=-1, dtype=numbers.dtype)
    counts = np.flip(sums, axis=-1)
    return np.concatenate([counts, np.zeros_like(counts[..., :1])], axis=-1)


def levels(probabilities: tf.Tensor, edges: Sequence[float]) -> tf.Tensor:
    """Counts the ascending edges below each probability: int32 of the same shape."""
    # The negation makes the comparison strict: p > t, as in post-processing.
    boundaries = [-edge for edge in reversed(edges)]
    return len(edges) - tf.raw_ops.Bucketize(input=-probabilities, boundaries=boundaries)


def _histogram(probabilities: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Counts the pixels of each image and class by truth and probability, in one pass.

    float32 [B, h, w, C] in [0, 1] and masks of {0, 1} -> int32 [B, C, 2, len(EDGES) + 1].
    """
    num_bins = len(EDGES) + 1
    batch, classes = tf.shape(masks)[0], masks.shape[3]
    row = tf.reshape(tf.range(batch * classes), [batch, 1, 1, classes])
    bins = (row * 2 + tf.cast(masks, tf.int32)) * num_bins + levels(probabilities, EDGES)
    length = batch * classes * 2 * num_bins
    counts = tf.math.bincount(tf.reshape(bins, [-1]), minlength=length, maxlength=length)
    return tf.reshape(counts, [batch, classes, 2, num_bins])


def count_pixels(probabilities: tf.Tensor, masks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Histograms (see `Counts`) and top means of a batch of probabilities and true masks."""
    return _histogram(probabilities, masks), top_means(probabilities)
