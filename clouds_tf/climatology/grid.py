"""Regular grids of longitude and latitude, with exact areas and overlaps on the sphere.

Heights are measured in y = sin(latitude): then a rectangle of longitudes and latitudes is a
rectangle of the same area, up to a constant, in the plane (Lambert's cylindrical projection).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

Extent = tuple[float, float, float, float]  # lon_min, lat_min, lon_max, lat_max
GLOBE: Extent = (-180.0, -90.0, 180.0, 90.0)
_TOLERANCE = 1e-6  # of a cell


@dataclasses.dataclass(frozen=True)
class Grid:
    """A regular grid of cells in longitude and latitude.

    >>> grid = Grid(cell=1.0)
    >>> grid.shape
    (180, 360)
    >>> grid.lat[:2].tolist(), grid.lon[:2].tolist()
    ([-89.5, -88.5], [-179.5, -178.5])

    Attributes:
        cell: width and height of a cell in degrees.
        extent: (lon_min, lat_min, lon_max, lat_max) in degrees, whole cells wide and high. lon_max
            may exceed 180: (170, -10, 200, 10) lies across the date line.
    """

    cell: float = 1.0
    extent: Extent = GLOBE

    def __post_init__(self) -> None:
        object.__setattr__(self, "extent", tuple(float(number) for number in self.extent))
        numbers = (self.cell, *self.extent)
        if len(self.extent) != 4 or not np.all(np.isfinite(numbers)) or self.cell <= 0:
            raise ValueError(
                f"grid: got cell {self.cell} and extent {self.extent}, expected a positive cell "
                "and lon_min, lat_min, lon_max, lat_max in degrees"
            )
        west, south, east, north = self.extent
        if not (-90 <= south < north <= 90 and -360 <= west < east <= 360 and east - west <= 360):
            raise ValueError(
                f"extent: got {self.extent}, expected lon_min, lat_min, lon_max, lat_max with "
                "lon_min < lon_max (at most 360 degrees) and -90 <= lat_min < lat_max <= 90"
            )
        for side in (east - west, north - south):
            if abs(side / self.cell - round(side / self.cell)) > _TOLERANCE:
                raise ValueError(
                    f"cell: got {self.cell:g}, which does not divide the {side:g} degrees of the "
                    f"extent {self.extent} into whole cells"
                )

    @property
    def shape(self) -> tuple[int, int]:
        """(number of latitudes, number of longitudes)."""
        west, south, east, north = self.extent
        return round((north - south) / self.cell), round((east - west) / self.cell)

    @property
    def is_global(self) -> bool:
        """Whether the grid goes around the globe, so that its last column touches its first."""
        return self.extent[2] - self.extent[0] == 360

    @property
    def lat_edges(self) -> np.ndarray:
        """Edges of the rows in degrees, from south to north: float64 [h + 1]."""
        return np.linspace(self.extent[1], self.extent[3], self.shape[0] + 1)

    @property
    def lon_edges(self) -> np.ndarray:
        """Edges of the columns in degrees, from west to east: float64 [w + 1]."""
        return np.linspace(self.extent[0], self.extent[2], self.shape[1] + 1)

    @property
    def lat(self) -> np.ndarray:
        """Latitudes of the cells' centres: float64 [h]."""
        return (self.lat_edges[:-1] + self.lat_edges[1:]) / 2

    @property
    def lon(self) -> np.ndarray:
        """Longitudes of the cells' centres: float64 [w]."""
        return (self.lon_edges[:-1] + self.lon_edges[1:]) / 2

    @property
    def areas(self) -> np.ndarray:
        """Areas of the cells: float64 [h, w], in degrees of longitude times sine of latitude.

        Multiply by the squared radius of the Earth and by pi / 180 for square kilometres.
        """
        return np.outer(np.diff(sine(self.lat_edges)), np.diff(self.lon_edges))

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `Grid(**fields)` reads."""
        return {"cell": self.cell, "extent": list(self.extent)}


def parse_extent(text: str) -> Extent:
    """Reads "lon_min,lat_min,lon_max,lat_max"; ValueError with what was got."""
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"got {text!r}, expected lon_min,lat_min,lon_max,lat_max such as -61,10,-40,24"
        ) from None
    return west, south, east, north


def parse_regions(texts: Iterable[str]) -> dict[str, Extent]:
    """Reads regions "NAME:lon_min,lat_min,lon_max,lat_max"; ValueError with what was got."""
    regions: dict[str, Extent] = {}
    for text in texts:
        name, colon, extent = text.partition(":")
        if not colon or not name or name in regions:
            raise ValueError(
                f"region: got {text!r}, expected NAME:lon_min,lat_min,lon_max,lat_max, and each "
                "name once"
            )
        regions[name] = parse_extent(extent)
    return regions


def sine(lat: Any) -> np.ndarray:
    """Sine of latitudes in degrees, exactly -1 and 1 at the poles."""
    return np.sin(np.radians(lat))


def overlaps(edges: np.ndarray, source_edges: np.ndarray) -> np.ndarray:
    """Lengths that intervals share.

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
    """Lengths that intervals of longitude share, on the circle; arguments as for `overlaps`."""
    return sum(
        overlaps(edges, source_edges + turn)
        for turn in turns(source_edges[0], source_edges[-1], edges[0], edges[-1])
    ) + np.zeros((len(edges) - 1, len(source_edges) - 1))


def turns(west: float, east: float, grid_west: float, grid_east: float) -> list[float]:
    """Multiples of 360 degrees by which [west, east] is shifted to meet [grid_west, grid_east]."""
    first = int(np.ceil((grid_west - east) / 360))
    last = int(np.floor((grid_east - west) / 360))
    return [360.0 * turn for turn in range(first, last + 1)]


def extent_weights(grid: Grid, extent: Extent) -> np.ndarray:
    """Areas that an extent shares with the cells of a grid.

    Args:
        grid: a Grid of [h, w] cells.
        extent: (lon_min, lat_min, lon_max, lat_max) in degrees; lon_min > lon_max lies across the
            date line.

    Returns:
        float64 [h, w], in the unit of `Grid.areas`: weights of a regional mean.

    Raises:
        ValueError: the latitudes are none, or the extent misses the grid.
    """
    west, south, east, north = extent
    east += 360 if east <= west else 0
    if not (-90 <= south < north <= 90 and east - west <= 360):
        raise ValueError(
            f"extent: got {extent}, expected lon_min, lat_min, lon_max, lat_max in degrees"
        )
    rows = overlaps(sine(grid.lat_edges), sine([south, north]))
    columns = overlaps_around(grid.lon_edges, np.array([west, east]))
    weights = rows * columns[:, 0]
    if not weights.any():
        raise ValueError(f"extent: {extent} lies outside the grid, which has {grid.extent}")
    return weights
