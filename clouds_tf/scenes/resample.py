"""Resamples scenes: by area averaging to shrink, bilinearly to enlarge."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse

from clouds_tf.geo.grid import Grid
from clouds_tf.prediction.stretch import LEVELS, brightness_counts
from clouds_tf.scenes.scene import Scene

_PIXELS_AT_ONCE = 2**22  # of the source
_TARGETS_AT_ONCE = 32
LEAST_SEEN = 0.5  # minimum observed share of a pixel or cell that counts as observed
_NEGLIGIBLE = 1e-6  # weight of a sample; rounded coordinates cause such weights


@dataclasses.dataclass(frozen=True)
class Taps:
    """Each of n target samples as a weighted sum of t source samples.

    Attributes:
        index: int64 [n, t], positions of source samples.
        weight: float32 [n, t]; sums to 1, or less if the target extends beyond the source.
    """

    index: np.ndarray
    weight: np.ndarray

    def part(self, start: int, stop: int) -> Taps:
        """The taps of the targets from start to below stop."""
        return Taps(self.index[start:stop], self.weight[start:stop])

    @property
    def sources(self) -> tuple[int, int]:
        """The first source sample that is used, and the one after the last."""
        used = self.index[self.weight > 0]
        if not used.size:
            used = self.index[:1, :1]
        return int(used.min()), int(used.max()) + 1

    def as_matrix(self) -> scipy.sparse.csr_matrix:
        """The weights as a sparse matrix, float32 [n, sources]."""
        first, last = self.sources
        count, reach = self.index.shape
        # Outside are only samples whose weight is 0.
        index = np.clip(self.index - first, 0, last - first - 1).ravel()
        starts = reach * np.arange(count + 1)
        return scipy.sparse.csr_matrix((self.weight.ravel(), index, starts), (count, last - first))


def taps(
    num_sources: int, first: float, step: float, num_targets: int, periodic: bool = False
) -> Taps:
    """Computes the weights of resampling along one axis.

    Args:
        num_sources: number of source samples; sample i covers i to i + 1.
        first: start of the first target, in source samples.
        step: width of a target, in source samples.
        num_targets: number of target samples.
        periodic: whether the last source sample borders on the first one.

    Returns:
        Taps: the mean over the width of a target if step is above 1, otherwise linear interpolation
        at its centre.
    """
    begin = first + step * np.arange(num_targets)[:, np.newaxis]
    if step > 1:
        index = np.floor(begin + _NEGLIGIBLE).astype(np.int64)
        index = index + np.arange(int(np.ceil(step)) + 1)
        overlap = np.minimum(begin + step, index + 1) - np.maximum(begin, index)
        weight = np.maximum(overlap, 0) / step
        outside = (index < 0) | (index >= num_sources)
    else:
        centre = begin + step / 2
        index = np.floor(centre - 0.5).astype(np.int64) + np.arange(2)
        weight = 1 - abs(centre - 0.5 - index)
        outside = (centre < -_NEGLIGIBLE) | (centre > num_sources + _NEGLIGIBLE)
    if not periodic:
        weight = np.where(outside, 0, weight)
    weight[weight < _NEGLIGIBLE] = 0
    used = (weight > 0).any(axis=0)
    used[0] |= not used.any()
    index = index % num_sources if periodic else np.clip(index, 0, num_sources - 1)
    return Taps(index[:, used], weight[:, used].astype(np.float32))


def apply(taps: Taps, values: np.ndarray, axis: int, first: int = 0) -> np.ndarray:
    """Resamples an array along an axis.

    Args:
        taps: Taps of n targets.
        values: of any type; position 0 along the axis is the source sample `first`.
        axis: the axis.
        first: index of the first source sample in the array.

    Returns:
        float32, of length n along the axis.
    """
    sources, parts = np.moveaxis(values, axis, 0), []
    # Sparse products take a third of the time of sums of samples; small ones stay in the cache.
    for start in range(0, len(taps.index), _TARGETS_AT_ONCE):
        some = taps.part(start, start + _TARGETS_AT_ONCE)
        low, high = (i - first for i in some.sources)
        rows = sources[low:high].reshape(high - low, -1).astype(np.float32)
        parts.append(some.as_matrix() @ rows)
    result = np.concatenate(parts).reshape(len(taps.index), *sources.shape[1:])
    return np.moveaxis(result, 0, axis)


def axis_taps(scene: Scene, grid: Grid) -> tuple[Taps, Taps]:
    """The taps of rows and of columns for resampling a scene to a grid."""
    (height, width), (dlat, dlon) = scene.size, scene.pixel
    north = (scene.extent.lat_max - grid.extent.lat_max) / dlat
    west = (grid.extent.lon_min - scene.extent.lon_min) / dlon
    rows = taps(height, north, grid.cell[0] / dlat, grid.shape[0])
    return rows, taps(width, west, grid.cell[1] / dlon, grid.shape[1], grid.periodic)


def read_rows(
    scene: Scene,
    axes: tuple[Taps, Taps],
    start: int,
    stop: int,
    gap_brightness: int | None,
    levels: np.ndarray = LEVELS,
) -> np.ndarray:
    """Reads rows of a grid from a scene, in strips of bounded size.

    Args:
        scene: an open Scene.
        axes: the result of `axis_taps`.
        start: first row of the grid.
        stop: row after the last.
        gap_brightness: pixels whose channels are all at most this are not observed; with None, all
            pixels with data are observed.
        levels: uint8 [256], a brightness curve through 0 for observed pixels, applied before
            resampling, since the training images were stretched before they were reduced.

    Returns:
        uint8 [stop - start, columns, 4]: red, green and blue, averaged over observed pixels; and
        the observed share times 255. Black where less than half was observed.
    """
    rows, columns = axes
    reach = max(1, round(float(rows.index.shape[1])))
    at_once = max(1, _PIXELS_AT_ONCE // (scene.size[1] * reach))
    result = np.empty((4, stop - start, len(columns.index)), np.uint8)
    for begin in range(start, stop, at_once):
        end = min(begin + at_once, stop)
        some = rows.part(begin, end)
        first, last = some.sources
        source = np.ascontiguousarray(np.moveaxis(scene.read(first, last), -1, 0))
        if gap_brightness is not None:
            seen = source[:3].max(axis=0) > gap_brightness
            if not seen.all():
                source *= seen.view(np.uint8)
        if not np.array_equal(levels, LEVELS):
            source[:3] = levels[source[:3]]
        values = apply(columns, apply(some, source, 1, first), 2)
        # Unobserved pixels are black in the source, so the sums are over observed pixels.
        share = values[3] / 255 + _NEGLIGIBLE
        values[:3] /= np.where(share >= LEAST_SEEN, share, np.inf)
        result[:, begin - start : end - start] = np.rint(np.minimum(values, 255))
    return np.moveaxis(result, 0, -1)


def count_brightness(scene: Scene, gap_brightness: int | None) -> np.ndarray:
    """Counts the observed pixels of a scene by brightness: int64 [256]."""
    counts = np.zeros(256, np.int64)
    height, width = scene.size
    at_once = max(scene.rows_at_a_time, _PIXELS_AT_ONCE // width)
    for start in range(0, height, at_once):
        rows = scene.read(start, min(start + at_once, height))
        counts += brightness_counts(rows[rows[..., 3] > 0][:, :3], gap_brightness)
    return counts


def mean_of_seen(values: np.ndarray, seen: np.ndarray, axes: tuple[Taps, Taps]) -> np.ndarray:
    """Resamples planes to the mean of the observed sources of each target.

    Args:
        values: [..., height, width], planes.
        seen: bool [height, width].
        axes: taps of rows and of columns.

    Returns:
        float32 [..., rows, columns]; the mean of all sources where none was observed.
    """

    def resampled(planes: np.ndarray) -> np.ndarray:
        return apply(axes[1], apply(axes[0], planes, planes.ndim - 2), planes.ndim - 1)

    share = resampled(seen.astype(np.float32))
    means = resampled(values * seen) / np.maximum(share, _NEGLIGIBLE)
    return np.where(share > 0, means, resampled(values))
