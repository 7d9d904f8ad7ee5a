"""Reads lines and polygons from GeoJSON files (RFC 7946)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from clouds_tf import files
from clouds_tf.geo.land import Polygon

_DEPTHS = {"LineString": 0, "MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}


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
        raise ValueError(f"{path}: is no GeoJSON of polygons") from None
    if not found:
        raise ValueError(f"{path}: holds no polygons")
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
