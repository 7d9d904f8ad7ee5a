"""Land and coastlines: Natural Earth 1:50m, which is in the public domain.

land.npz was made by tools/make_land.py of the npm package world-atlas 2.0.2 (Natural Earth 4.1),
with points rounded to 0.005 degrees. Islands smaller than about 100 km2 are missing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable

import numpy as np

from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid, turns

SOURCE = "Natural Earth 1:50m"
_ROWS_AT_ONCE = 256
STEP = 0.005  # degrees, to which points are rounded

# Rings of longitude and latitude, float64 [n, 2]: the outer one first, then those of lakes.
Polygon = list[np.ndarray]


@functools.lru_cache(maxsize=1)
def _polygons() -> tuple[Polygon, ...]:
    with np.load(os.path.join(os.path.dirname(__file__), "land.npz")) as file:
        steps, ends, owner = file["steps"].T, np.cumsum(file["lengths"]), file["polygons"]
    found: list[Polygon] = [[] for _ in range(owner[-1] + 1)]
    for number, ring in zip(owner, np.split(steps, ends[:-1])):
        found[number].append(np.cumsum(ring, axis=0) * STEP)
    return tuple(found)


def polygons(extent: Extent) -> list[Polygon]:
    """Whole polygons of land whose bounds meet an extent, shifted to its longitudes."""
    return _shifted(_polygons(), extent)


def _shifted(shapes: Iterable[Polygon], extent: Extent) -> list[Polygon]:
    found = []
    for polygon in shapes:
        west, south = polygon[0].min(axis=0)
        east, north = polygon[0].max(axis=0)
        if south <= extent.lat_max and north >= extent.lat_min:
            for turn in turns(west, east, extent.lon_min, extent.lon_max):
                found.append([ring + [turn, 0] for ring in polygon])
    return found


def coastlines(extent: Extent) -> list[np.ndarray]:
    """Coastlines to draw on a map of an extent: (longitude, latitude), float64 [n, 2] each.

    Points outside the extent are NaN, which breaks the lines, except for the one next to each end.
    """
    lines = []
    low, high = np.array(extent[:2]), np.array(extent[2:])
    for ring in (ring for polygon in polygons(extent) for ring in polygon):
        inside = ((ring >= low) & (ring <= high)).all(axis=1)
        cut = ring[:, 1] < -89  # where the polygon of Antarctica is closed
        near = inside | np.roll(inside, 1) | np.roll(inside, -1)
        if inside.any():
            lines.append(np.where((near & ~cut)[:, np.newaxis], ring, np.nan))
    return lines


def land_mask(grid: Grid) -> np.ndarray:
    """Whether the centre of each cell lies on land: bool [rows, columns]."""
    return rasterize(_polygons(), grid)


def rasterize(shapes: Iterable[Polygon], grid: Grid) -> np.ndarray:
    """Whether the centre of each cell lies in a polygon: bool [rows, columns].

    Args:
        shapes: polygons of any longitudes.
        grid: the cells.
    """
    mask = np.zeros(grid.shape, bool)
    for polygon in _shifted(shapes, grid.extent):
        edges = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in polygon])
        for first in range(0, len(mask), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            mask[rows] |= _inside(edges, grid.lon, grid.lat[rows])
    return mask


def _inside(edges: np.ndarray, lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Whether an odd number of edges [n, 2, 2] lies west of points: bool [rows, columns]."""
    low, high = edges[..., 1].min(axis=1), edges[..., 1].max(axis=1)
    (x0, y0), (x1, y1) = np.moveaxis(edges[(high > lat.min()) & (low <= lat.max())], 0, -1)
    row, edge = np.nonzero((y0 > lat[:, np.newaxis]) != (y1 > lat[:, np.newaxis]))
    x = x0[edge] + (lat[row] - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    counts = np.zeros((len(lat), len(lon) + 1), np.int32)
    np.add.at(counts, (row, np.searchsorted(lon, x)), 1)
    return counts.cumsum(axis=1)[:, :-1] % 2 == 1
