"""Computes fractions of grid cells from scenes of one day, hour or moment, by exact overlaps.

Where scenes overlap, their weighted mean counts. A network is less reliable near the edge of a
scene, so the weight is the distance to that edge, times the likeness to the training images if all
scenes have one. A place in only one scene has full weight.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from clouds_tf.climatology.days import Areas, DayFields
from clouds_tf.climatology.scenes import Scene, plane
from clouds_tf.geo import netcdf
from clouds_tf.geo.grid import Grid

MEASURES = ("mask", "expected")
_CELLS_AT_ONCE = 2**23  # of a scene, or of the sums of weights
_LEAST_LIKENESS = 1e-3  # above 0, so that an unlike scene still counts where it is alone


def fields_of(key: str, scenes: Sequence[Scene], measure: str, grid: Grid) -> DayFields:
    """Class fractions of the scenes of one day, hour or moment.

    Args:
        key: the day, hour or moment, see `days.key_of`.
        scenes: all its scenes, in any order and of one resolution.
        measure: "mask" for the share that masks cover; "expected" for the mean of calibrated
            probabilities, an unbiased area, with which areas without any class or of two classes
            are unknown (0).
        grid: a Grid of [h, w] cells.

    Raises:
        ValueError: a file is damaged, or has no calibrated probabilities.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure: got {measure!r}, expected one of {', '.join(MEASURES)}")
    scenes = sorted(scenes, key=lambda scene: (scene.name, scene.seconds, scene.grid.extent))
    sums = Areas.zeros(len(scenes[0].class_names), grid)
    for scene, rows, share in _shares(scenes):
        _add(sums, scene, rows, share, measure, grid)
    return sums.fields(key, sums.seen / grid.areas)


def _shares(scenes: Sequence[Scene]) -> Iterator[tuple[Scene, slice, np.ndarray]]:
    """Yields a scene, some of its rows, and the weight of each cell in them.

    The weights of all scenes at a place add up to 1. They are normalised on the cells of the first
    scene, from which the cells of other scenes differ by less than half a cell, and for a band of
    latitudes at a time, so that memory does not grow with the number of scenes.
    """
    if len(scenes) == 1:
        for rows in _pieces(scenes[0], 0, scenes[0].grid.shape[0]):
            yield scenes[0], rows, _observed(scenes[0], rows).astype(float)
        return
    cell = scenes[0].grid.cell
    width = max(round(360 / cell[1]), *(scene.grid.shape[1] for scene in scenes))
    places = [_place(scene, scenes[0].grid, width) for scene in scenes]
    factors = np.array([scene.likeness for scene in scenes], np.float32)
    if not np.isfinite(factors).all():
        factors[:] = 1
    factors = np.maximum(factors, _LEAST_LIKENESS)
    first = min(rows.min() for rows, _ in places)
    last = max(rows.max() for rows, _ in places)
    height = max(1, _CELLS_AT_ONCE // width)
    for top in range(first, last + 1, height):
        total = np.zeros((min(height, last + 1 - top), width), np.float32)
        parts = []
        for scene, factor, (y, x) in zip(scenes, factors, places):
            here = np.flatnonzero((y >= top) & (y < top + len(total)))
            for rows in _pieces(scene, here[0], here[-1] + 1) if len(here) else ():
                index = np.ix_(y[rows] - top, x)
                total[index] += factor * _weights(scene, rows)
                parts.append((scene, factor, rows, index))
        for scene, factor, rows, index in parts:
            weights = (factor * _weights(scene, rows)).astype(float)
            yield scene, rows, np.divide(weights, total[index], out=weights, where=weights > 0)


def _pieces(scene: Scene, start: int, stop: int) -> list[slice]:
    number = max(1, _CELLS_AT_ONCE // scene.grid.shape[1])
    return [slice(i, min(i + number, stop)) for i in range(start, stop, number)]


def _place(scene: Scene, frame: Grid, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (southward) and columns (around the globe) of a scene, relative to those of a frame."""
    height, columns = scene.grid.shape
    down = (frame.lat.max() - scene.grid.lat.max()) / frame.cell[0]
    across = ((scene.grid.lon[0] - frame.lon[0] + 180) % 360 - 180) / frame.cell[1]
    rows = int(np.floor(down + 0.5)) + np.arange(height)
    return (
        rows if scene.grid.north_first else rows[::-1],
        (int(np.floor(across + 0.5)) + np.arange(columns)) % width,
    )


def _observed(scene: Scene, rows: slice) -> np.ndarray:
    with netcdf.opened(scene.path) as file:
        return plane(file["observed"], rows) > 0


def _weights(scene: Scene, rows: slice) -> np.ndarray:
    """Distance in cells to the nearest edge of a scene, 0 if unobserved: float32 [n, columns]."""
    height, width = (np.arange(length, dtype=np.float32) + 0.5 for length in scene.grid.shape)
    down, across = np.minimum(height, height[::-1]), np.minimum(width, width[::-1])
    if scene.grid.periodic:  # without eastern and western edge
        across[:] = np.inf
    return np.minimum(down[rows, np.newaxis], across) * _observed(scene, rows)


@functools.lru_cache(maxsize=4)
def _shared(grid: Grid, other: Grid) -> tuple[np.ndarray, np.ndarray]:
    return grid.shared(other)


def _add(
    sums: Areas, scene: Scene, rows: slice, share: np.ndarray, measure: str, grid: Grid
) -> None:
    """Adds the areas of some rows of a scene, each cell weighted by its share."""
    number = len(scene.class_names)
    from_rows, from_columns = _shared(grid, scene.grid)
    down, across = from_rows[:, rows], from_columns.T
    sums.seen += down @ (share @ across)
    with netcdf.opened(scene.path) as file:
        if measure == "expected":
            if "calibrated_probability" not in file:
                raise ValueError(
                    f"{scene.path}: has no calibrated_probability, which --measure=expected needs: "
                    "export with a calibration, or choose --measure=mask"
                )
            for c in range(number):
                found = plane(file["calibrated_probability"], rows, c) * share
                sums.covered[c] += down @ (found @ across)
            return
        mask = plane(file["mask"], rows)
    sums.nothing += down @ (((mask == 0) * share) @ across)
    masks = [mask >> c & 1 for c in range(number)]
    for c in range(number):
        sums.covered[c] += down @ ((masks[c] * share) @ across)
    for i, j in np.ndindex(number, number):
        both = (masks[i] * masks[j] * share) @ across.sum(axis=1)
        sums.shared[i, j] += down.sum(axis=0) @ both
