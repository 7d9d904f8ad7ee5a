"""Regular grids of longitude and latitude, with exact areas and overlaps on the sphere."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from clouds_tf.geo import earth
from clouds_tf.geo.extent import GLOBE, Extent

_TOLERANCE = 1e-6  # for rounded coordinates, as a share of a cell
UNEVEN = 0.02  # tolerated difference of steps between regular centres, as a share of a step


@dataclasses.dataclass(frozen=True)
class Grid:
    """A regular grid of cells in longitude and latitude; columns run from west to east.

    >>> grid = Grid()
    >>> grid.shape, grid.lat[:2].tolist(), grid.lon[:2].tolist()
    ((180, 360), [-89.5, -88.5], [-179.5, -178.5])

    Attributes:
        cell: size of a cell in degrees, (latitude, longitude) or one number for both.
        extent: outer edges, a whole number of cells wide and high.
        north_first: whether rows run from north to south.

    Raises:
        ValueError: the extent is invalid, or not a whole number of cells.
    """

    cell: Any = 1.0
    extent: Extent = GLOBE
    north_first: bool = False

    def __post_init__(self) -> None:
        cell = self.cell if isinstance(self.cell, (tuple, list)) else (self.cell, self.cell)
        cell = tuple(map(float, cell))
        if len(cell) != 2 or not all(math.isfinite(side) and side > 0 for side in cell):
            raise ValueError(f"cell: got {self.cell}, expected a positive number of degrees")
        object.__setattr__(self, "cell", cell)
        object.__setattr__(self, "extent", Extent(*self.extent))
        for side, span in zip(cell, self.extent.degrees):
            if abs(span / side - round(span / side)) > _TOLERANCE:
                raise ValueError(
                    f"cell: got {side:g}, which does not divide the {span:g} degrees of the extent "
                    f"{self.extent} into whole cells"
                )

    def __str__(self) -> str:
        return f"{self.cell[0]:g} degrees in {self.extent}"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        height, width = self.extent.degrees
        return round(height / self.cell[0]), round(width / self.cell[1])

    @property
    def periodic(self) -> bool:
        """Whether the grid spans the globe, so that its last column adjoins its first."""
        return abs(self.extent.degrees[1] - 360) <= _TOLERANCE * self.cell[1]

    @property
    def lat_edges(self) -> np.ndarray:
        """Edges of the rows in degrees, in the order of the rows: float64 [rows + 1]."""
        edges = np.linspace(self.extent.lat_min, self.extent.lat_max, self.shape[0] + 1)
        return edges[::-1] if self.north_first else edges

    @property
    def lon_edges(self) -> np.ndarray:
        """Edges of the columns in degrees, from west to east: float64 [columns + 1]."""
        return np.linspace(self.extent.lon_min, self.extent.lon_max, self.shape[1] + 1)

    @property
    def lat(self) -> np.ndarray:
        """Latitudes of the centres: float64 [rows]."""
        return (self.lat_edges[:-1] + self.lat_edges[1:]) / 2

    @property
    def lon(self) -> np.ndarray:
        """Longitudes of the centres: float64 [columns]."""
        return (self.lon_edges[:-1] + self.lon_edges[1:]) / 2

    @property
    def row_areas(self) -> np.ndarray:
        """Area of a cell of each row in km2: float64 [rows]."""
        return abs(np.diff(earth.heights(self.lat_edges))) * self.cell[1]

    @property
    def areas(self) -> np.ndarray:
        """Areas of all cells in km2: float64 [rows, columns], read-only."""
        return np.broadcast_to(self.row_areas[:, np.newaxis], self.shape)

    def shared(self, other: Grid) -> tuple[np.ndarray, np.ndarray]:
        """Computes the intersection areas of the cells of two grids.

        Returns:
            float64 [rows, rows of the other], differences of `earth.heights`, and float64
            [columns, columns of the other], degrees of longitude. The product of two is the
            intersection area of two cells in km2.
        """
        down = overlaps(*(earth.heights(np.sort(grid.lat_edges)) for grid in (self, other)))
        down = down[::-1] if self.north_first else down
        down = down[:, ::-1] if other.north_first else down
        return down, overlaps_around(self.lon_edges, other.lon_edges)

    def area_in(self, extent: Extent) -> np.ndarray:
        """Intersection areas of an extent and the cells in km2: float64 [rows, columns].

        Raises:
            ValueError: the extent is invalid, or lies outside the grid.
        """
        extent = Extent(*extent)
        height, width = extent.degrees
        down, across = self.shared(Grid((height, width), extent))
        if not down.any() or not across.any():
            raise ValueError(f"extent: {extent} lies outside the grid, which has {self.extent}")
        return down * across[:, 0]


def cover(extent: Extent, cell: tuple[float, float]) -> Grid:
    """Makes a grid, north first, that starts at the north-western corner of an extent.

    If the extent is not a whole number of cells, the last row and column extend beyond it, except
    beyond a pole or around the whole globe.

    Args:
        extent: the area to cover.
        cell: size of a cell in degrees, (latitude, longitude).
    """
    rows, columns = (
        max(1, math.ceil(span / side - 1e-3)) for span, side in zip(extent.degrees, cell)
    )
    if extent.lat_max - rows * cell[0] < -90 - _TOLERANCE * cell[0]:
        rows -= 1
    columns = min(columns, math.floor(360 / cell[1] + _TOLERANCE))
    south, east = extent.lat_max - rows * cell[0], extent.lon_min + columns * cell[1]
    edges = (extent.lon_min, max(south, -90.0), min(east, extent.lon_min + 360), extent.lat_max)
    return Grid(cell, Extent(*edges), north_first=True)


def outer_edges(name: str, centres: np.ndarray) -> tuple[float, float]:
    """The outer edges (first, last) of cells with regular centres; ValueError for others."""
    centres = np.asarray(centres, np.float64)
    if len(centres) < 2 or not np.isfinite(centres).all():
        raise ValueError(f"{name}: expected two or more finite coordinates")
    steps = np.diff(centres)
    step = (centres[-1] - centres[0]) / len(steps)
    if step == 0 or (abs(steps - step) > UNEVEN * abs(step)).any():
        raise ValueError(
            f"{name}: has uneven steps, expected a regular grid; interpolate it, such as with cdo "
            "remapbil,GRID"
        )
    return centres[0] - step / 2, centres[-1] + step / 2


def rows_within_poles(north: float, south: float, rows: int) -> tuple[int, int, float, float]:
    """The rows of a raster within the poles, without rows centred at 90 degrees.

    Args:
        north: northern edge of the first row, in degrees.
        south: southern edge of the last row.
        rows: number of rows.

    Returns:
        The first row, the one after the last, and their northern and southern edges.

    Raises:
        ValueError: more than one row is beyond, so that the coordinates are not latitudes.
    """
    step = (north - south) / rows
    if north > 90 + step or south < -90 - step or not step > 0:
        raise ValueError(
            f"has latitudes {south:g} to {north:g}, expected -90 to 90; is its coordinate "
            "reference system correct?"
        )
    first, last = 0, rows
    rounding = _TOLERANCE * step
    if north > 90 + rounding:
        first, north = 1, north - step
    if south < -90 - rounding:
        last, south = rows - 1, south + step
    return first, last, min(north, 90.0), max(south, -90.0)


def overlaps(edges: np.ndarray, source_edges: np.ndarray) -> np.ndarray:
    """Lengths of the intersections of intervals.

    Args:
        edges: increasing, [n + 1].
        source_edges: increasing, [m + 1].

    Returns:
        float64 [n, m]: length of the intersection of interval i of edges and j of source_edges.
    """
    upper = np.minimum(edges[1:, np.newaxis], source_edges[np.newaxis, 1:])
    lower = np.maximum(edges[:-1, np.newaxis], source_edges[np.newaxis, :-1])
    return np.maximum(upper - lower, 0.0)


def overlaps_around(edges: np.ndarray, source_edges: np.ndarray) -> np.ndarray:
    """Lengths of the intersections of intervals of longitude on the circle; see `overlaps`."""
    return sum(
        overlaps(edges, source_edges + turn)
        for turn in turns(source_edges[0], source_edges[-1], edges[0], edges[-1])
    ) + np.zeros((len(edges) - 1, len(source_edges) - 1))


def turns(west: float, east: float, grid_west: float, grid_east: float) -> list[float]:
    """Multiples of 360 degrees that shift [west, east] to overlap [grid_west, grid_east]."""
    first = int(np.ceil((grid_west - east) / 360))
    last = int(np.floor((grid_east - west) / 360))
    return [360.0 * turn for turn in range(first, last + 1)]
