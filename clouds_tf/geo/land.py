"""Land and coastlines, from Natural Earth 1:50m or from GeoJSON files (RFC 7946).

Natural Earth is in the public domain. land.npz was made by tools/make_land.py of the npm package
world-atlas 2.0.2 (Natural Earth 4.1), with points rounded to 0.005 degrees. Islands smaller than
about 100 km2 are missing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from clouds_tf import files
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import turns

SOURCE = "Natural Earth 1:50m"
STEP = 0.005  # degrees, to which points are rounded

_DEPTHS = {"LineString": 0, "MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}

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
    """Polygons of land whose bounds overlap an extent, shifted to its longitudes; not clipped."""
    return shifted(_polygons(), extent)


def shifted(shapes: Iterable[Polygon], extent: Extent) -> list[Polygon]:
    """Selects polygons whose bounds overlap an extent, shifted to its longitudes."""
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


def read_lines(path: str) -> list[np.ndarray]:
    """Reads lines and outlines of polygons, such as coastlines.

    Returns:
        Lines of points (longitude, latitude): a list of float64 [n, 2].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not GeoJSON with lines or polygons.
    """
    lines: list[np.ndarray] = []
    try:
        for kind, coordinates in _geometries(files.parse_json(files.read_text(path))):
            parts = [coordinates] if kind in _DEPTHS else []
            for _ in range(_DEPTHS.get(kind, 0)):
                parts = [inner for part in parts for inner in part]
            lines.extend(np.array([point[:2] for point in part], float) for part in parts)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        lines.clear()
    if not lines:
        raise ValueError(f"{path}: expected GeoJSON with lines or polygons, such as coastlines")
    return lines


def read_polygons(path: str) -> list[Polygon]:
    """Reads polygons, and leaves out all other geometries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not GeoJSON with polygons in degrees.
    """
    found: list[Polygon] = []
    try:
        for kind, coordinates in _geometries(files.parse_json(files.read_text(path))):
            if kind in ("Polygon", "MultiPolygon"):
                shapes = coordinates if kind == "MultiPolygon" else [coordinates]
                found.extend([np.array(ring, float)[:, :2] for ring in shape] for shape in shapes)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ValueError(f"{path}: is not GeoJSON with polygons") from None
    if not found:
        raise ValueError(f"{path}: has no polygons")
    fewest = min(len(ring) for shape in found for ring in shape or [np.empty(0)])
    if fewest < 4:
        raise ValueError(f"{path}: a ring of {fewest} points, expected at least 4")
    if any(abs(ring[:, 1]).max() > 90 for shape in found for ring in shape):
        raise ValueError(
            f"{path}: has latitudes beyond 90, expected degrees of longitude and latitude"
        )
    return found


def _geometries(item: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the type and the coordinates of each geometry in a GeoJSON object."""
    kind = item["type"]
    if kind == "Feature":
        if item["geometry"] is not None:
            yield from _geometries(item["geometry"])
    elif kind in ("FeatureCollection", "GeometryCollection"):
        for part in item.get("features", item.get("geometries", ())):
            yield from _geometries(part)
    else:
        yield kind, item["coordinates"]
