"""Objects of a mask on a grid: their areas, positions and rectangles."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy

from clouds_tf.geo import earth
from clouds_tf.geo.grid import Grid


@dataclasses.dataclass(frozen=True)
class Object:
    """An 8-connected component of a mask.

    Attributes:
        area_km2: area on the sphere.
        mean_probability: mean over its cells, weighted by area.
        centroid: (longitude, latitude) in degrees.
        bounds: (west, south, east, north) in degrees; west is above east across 180 degrees.
        rows: int [n], rows of its cells.
        columns: int [n], their columns; negative west of the seam of a periodic grid.
    """

    area_km2: float
    mean_probability: float
    centroid: tuple[float, float]
    bounds: tuple[float, float, float, float]
    rows: np.ndarray = dataclasses.field(repr=False)
    columns: np.ndarray = dataclasses.field(repr=False)


def find_objects(
    mask: np.ndarray, probability: np.ndarray, grid: Grid
) -> tuple[list[Object], np.ndarray]:
    """Finds the objects of a mask; an object across the seam of a periodic grid is not split.

    Args:
        mask: bool [rows, columns].
        probability: float [rows, columns], of the class.
        grid: the cells.

    Returns:
        Objects in the order of their first cells, column by column; and int32 [rows, columns],
        their numbers from 1, 0 outside.
    """
    labels = _labels(mask, grid.periodic)
    rows, columns = np.nonzero(labels)
    order = np.argsort(labels[rows, columns], kind="stable")
    counts = np.bincount(labels[rows, columns])[1:]
    parts = np.split(order, np.cumsum(counts)[:-1]) if len(rows) else []
    areas, lat, width = grid.row_areas, grid.lat, grid.shape[1]
    lat_edges = grid.lat_edges
    objects = []
    for members in parts:
        y, x = rows[members], columns[members]
        if grid.periodic:
            x = _unwrapped(x, width)
        weight = areas[y]
        west, east = (grid.extent.lon_min + grid.cell[1] * i for i in (x.min(), x.max() + 1))
        edges = lat_edges[[y.min(), y.max() + 1]]
        centre = grid.extent.lon_min + grid.cell[1] * (np.average(x, weights=weight) + 0.5)
        if east - west >= 360 - 1e-9:
            west, east = -180.0, 180.0
        objects.append(
            Object(
                area_km2=float(weight.sum()),
                mean_probability=float(np.average(probability[y, x % width], weights=weight)),
                centroid=(_wrapped(centre), float(np.average(lat[y], weights=weight))),
                bounds=(_wrapped(west), edges.min(), _wrapped(east, end=True), edges.max()),
                rows=y,
                columns=x,
            )
        )
    return objects, labels


def _labels(mask: np.ndarray, periodic: bool) -> np.ndarray:
    """Numbers of connected components in the order of their first cells, column by column."""
    labels, count = scipy.ndimage.label(mask.T, np.ones((3, 3)))
    if periodic and count:
        # In a copy that is shifted by half a turn, the seam is inside.
        seam = np.concatenate([labels[-1:], labels[:1]])
        joined, _ = scipy.ndimage.label(seam > 0, np.ones((3, 3)))
        owner = np.arange(count + 1)
        for number in range(1, joined.max() + 1):
            roots = np.unique(owner[seam[joined == number]])
            owner[np.isin(owner, roots)] = roots[0]
        labels = np.unique(owner, return_inverse=True)[1].reshape(-1)[labels]
    return np.ascontiguousarray(labels.T, np.int32)


def _unwrapped(columns: np.ndarray, width: int) -> np.ndarray:
    """Columns of an object, negative where it continues west of the seam."""
    used = np.unique(columns)
    widest = int(np.diff(used, append=used[0] + width).argmax())  # gap on the circle
    if len(used) == width or widest == len(used) - 1:
        return columns
    return np.where(columns > used[widest], columns - width, columns)


def _wrapped(longitude: float, end: bool = False) -> float:
    """A longitude in -180 to below 180; or, for an eastern edge, above -180 to 180."""
    wrapped = (longitude + 180) % 360 - 180
    return 180.0 if end and wrapped == -180 else float(wrapped)


@dataclasses.dataclass(frozen=True)
class Rectangle:
    """The minimum-area rectangle around points.

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
    """The minimum-area rectangle around points [n, 2] that are not all on one line.

    One of its sides is on an edge of the convex hull (Freeman and Shapira, "Determining the
    minimum-area encasing rectangle for an arbitrary closed curve", 1975).
    """
    hull = points[scipy.spatial.ConvexHull(points).vertices]
    edges = np.roll(hull, -1, axis=0) - hull
    angles = np.arctan2(edges[:, 1], edges[:, 0])
    along = np.outer(np.cos(angles), hull[:, 0]) + np.outer(np.sin(angles), hull[:, 1])
    across = np.outer(np.cos(angles), hull[:, 1]) - np.outer(np.sin(angles), hull[:, 0])
    sides = np.stack([np.ptp(along, axis=1), np.ptp(across, axis=1)])
    best = int(np.argmin(sides.prod(axis=0)))
    length, width = sides[:, best]
    orientation = (np.degrees(angles[best]) + 90 * (width > length)) % 180
    return Rectangle(max(length, width), min(length, width), float(orientation))


def rectangle_in_km(item: Object, grid: Grid) -> Rectangle:
    """The minimum-area rectangle around an object, in the tangent plane at its latitude."""
    latitude = item.centroid[1]
    lat_edges, rows = grid.lat_edges, np.unique(item.rows)
    west = item.columns.min()
    # The hull needs only the corners of the first and the last cell of each row.
    firsts = scipy.ndimage.minimum(item.columns, item.rows, rows)
    lasts = scipy.ndimage.maximum(item.columns, item.rows, rows) + 1
    corners = np.concatenate(
        [
            np.stack([(side - west) * grid.cell[1], lat_edges[rows + i] - latitude], axis=1)
            for side in (firsts, lasts)
            for i in (0, 1)
        ]
    )
    to_km = earth.KM_PER_DEGREE * np.array([np.cos(np.radians(latitude)), 1])
    return minimal_rectangle(corners * to_km)
