"""A table of the objects of scenes, and per scene how its clouds are organised."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import files, rle
from clouds_tf.climatology import netcdf, organization, scenes
from clouds_tf.climatology.grid import sine

EARTH_RADIUS = 6371.0072  # km, of the sphere with the area of the Earth
COLUMNS = {
    "scene": str,
    "date": str,
    "class": str,
    "area_km2": float,
    "longitude": float,
    "latitude": float,
    "length_km": float,
    "width_km": float,
    "orientation": float,
    "mean_probability": float,
}


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """The rectangle of least area around points.

    Attributes:
        length: longer side.
        width: shorter side.
        orientation: direction of the longer side, degrees counter-clockwise from the x axis (east),
            0 to 180.
    """

    length: float
    width: float
    orientation: float


def minimal_rectangle(points: np.ndarray) -> Rectangle:
    """The rectangle of least area around points [n, 2].

    One of its sides lies on an edge of the convex hull (Freeman and Shapira, "Determining the
    minimum-area encasing rectangle for an arbitrary closed curve", 1975).
    """
    hull = convex_hull(points)
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    along = np.outer(np.cos(angles), hull[:, 0]) + np.outer(np.sin(angles), hull[:, 1])
    across = np.outer(np.cos(angles), hull[:, 1]) - np.outer(np.sin(angles), hull[:, 0])
    sides = np.stack([np.ptp(along, axis=1), np.ptp(across, axis=1)])
    best = int(np.argmin(sides.prod(axis=0)))
    length, width = sides[:, best]
    turn = 90 * (width > length)
    orientation = (np.degrees(angles[best]) + turn) % 180
    return Rectangle(max(length, width), min(length, width), float(orientation))


def convex_hull(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull of points [n, 2], counter-clockwise (Andrew, 1979)."""
    ordered = np.unique(points, axis=0)
    hull: list[np.ndarray] = []
    for part in (ordered, ordered[::-1]):
        start = len(hull)
        for point in part:
            while len(hull) - start >= 2 and _turns_right(hull[-2], hull[-1], point):
                hull.pop()
            hull.append(point)
        hull.pop()
    return np.array(hull if hull else ordered)


def _turns_right(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> bool:
    """Whether a -> b -> c turns right, or goes straight on."""
    return bool((b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0]))


def find(
    mask: np.ndarray, probability: np.ndarray, lat_edges: np.ndarray, lon_edges: np.ndarray
) -> Iterator[dict[str, float]]:
    """Yields the objects of a mask: its connected components, corners count.

    Lengths are measured in a plane that touches the sphere at the object's latitude.

    Args:
        mask: bool [h, w].
        probability: float [h, w], of the class.
        lat_edges: edges of the rows in degrees, [h + 1], in either direction.
        lon_edges: edges of the columns, [w + 1].

    Yields:
        Numbers of COLUMNS, in the order of the objects' first cells, column by column.
    """
    labels = rle.components(mask).numpy()
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    counts = np.bincount(labels[rows, columns])[1:] if len(rows) else np.empty(0, np.int64)
    ends = np.cumsum(counts)
    heights = np.abs(np.diff(sine(lat_edges)))
    widths = np.radians(np.diff(lon_edges))
    lat, lon = ((edges[:-1] + edges[1:]) / 2 for edges in (lat_edges, lon_edges))
    for members in np.split(np.arange(len(rows)), ends[:-1]) if len(rows) else []:
        y, x = rows[members], columns[members]
        area = heights[y] * widths[x] * EARTH_RADIUS**2
        latitude, longitude = (np.average(values, weights=area) for values in (lat[y], lon[x]))
        to_km = np.radians(EARTH_RADIUS) * np.array([np.cos(np.radians(latitude)), 1])
        corners = np.concatenate(
            [np.stack([lon_edges[x + i], lat_edges[y + j]], 1) for i in (0, 1) for j in (0, 1)]
        )
        rectangle = minimal_rectangle((corners - [longitude, latitude]) * to_km)
        yield {
            "area_km2": float(area.sum()),
            "longitude": float((longitude + 180) % 360 - 180),
            "latitude": float(latitude),
            "length_km": rectangle.length,
            "width_km": rectangle.width,
            "orientation": rectangle.orientation,
            "mean_probability": float(np.average(probability[y, x], weights=area)),
        }


def of_scene(scene: scenes.Scene) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The objects of a scene, a row each; and its cloud fraction and organisation.

    Cloudy is what `brightness` of the file is above 100 of 255, where it has one; otherwise what
    belongs to any pattern.
    """
    whole = slice(None)
    with netcdf.opened(scene.path) as file:
        mask = scenes.plane(file["mask"], whole)
        observed = scenes.plane(file["observed"], whole) > 0
        probabilities = [
            scenes.plane(file["probability"], whole, c) if "probability" in file else None
            for c in range(len(scene.class_names))
        ]
        scale = 1.0
        if "probability" in file:
            scale = float(np.ravel(file["probability"].attrs.get("scale_factor", 1.0))[0])
        brightness = scenes.plane(file["brightness"], whole) if "brightness" in file else None
    rows = []
    for c, (name, probability) in enumerate(zip(scene.class_names, probabilities)):
        of_class = (mask >> c & 1).astype(bool) & observed
        values = np.full(mask.shape, np.nan) if probability is None else probability * scale
        found = find(of_class, values, scene.lat_edges, scene.lon_edges)
        rows += [{"scene": scene.name, "date": scene.date, "class": name, **row} for row in found]
    cloudy = observed & ((mask > 0) if brightness is None else (brightness > 100))
    summary = {
        "scene": scene.name,
        "date": scene.date,
        "num_objects": len(rows),
        "cloudy": "patterns" if brightness is None else "brightness",
        **organization.measures(cloudy, observed, scene.lat_edges, scene.lon_edges),
    }
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), summary


def write(pattern: str, path: str, on_error: str = "fail") -> int:
    """Writes the objects of all scenes as Parquet, and a row per scene as CSV beside it.

    Args:
        pattern: a folder of scenes, or a pattern.
        path: the Parquet file; the CSV is at `scenes_path(path)`.
        on_error: "fail", or "skip" to leave damaged scenes out.

    Returns:
        The number of objects.
    """
    files.require("pyarrow", "parquet", "objects")
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    summaries, number = [], 0
    with files.written_whole(path) as temporary:
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for scene_path in scenes.find(pattern):
                try:
                    table, summary = of_scene(scenes.read(scene_path))
                except ValueError:
                    if on_error == "fail":
                        raise
                    continue
                rows = pyarrow.Table.from_pandas(table, schema, preserve_index=False)
                writer.write_table(rows)
                summaries.append(summary)
                number += len(table)
    text = pd.DataFrame(summaries).to_csv(index=False, float_format="%.6g")
    files.write_text(scenes_path(path), text)
    return number


def scenes_path(path: str) -> str:
    """Where the rows of the scenes are: beside O.parquet, O_scenes.csv."""
    return os.path.splitext(path)[0] + "_scenes.csv"
