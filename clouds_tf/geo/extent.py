"""Rectangles of longitudes and latitudes, which may cross 180 degrees."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple


class _Edges(NamedTuple):
    lon_min: float
    lat_min: float
    lon_max: float
    lat_max: float


class Extent(_Edges):
    """A rectangle of longitudes and latitudes in degrees (EPSG:4326).

    Longitudes may be from -360 to 540; if the eastern edge is not east of the western one, the
    extent crosses 180 degrees.

    >>> Extent(170, -10, -170, 10)  # 20 degrees across the date line
    Extent(lon_min=170.0, lat_min=-10.0, lon_max=190.0, lat_max=10.0)

    Attributes:
        lon_min: western edge, -180 to below 180.
        lat_min: southern edge, from -90.
        lon_max: eastern edge, above lon_min, at most 360 degrees east of it.
        lat_max: northern edge, to 90.

    Raises:
        ValueError: the edges are not within these limits.
    """

    __slots__ = ()

    def __new__(cls, lon_min: float, lat_min: float, lon_max: float, lat_max: float) -> Extent:
        """Checks the edges and shifts them, so that the western one is -180 to below 180."""
        edges = west, south, east, north = tuple(map(float, (lon_min, lat_min, lon_max, lat_max)))
        if not all(map(math.isfinite, edges)):
            raise ValueError(f"extent: got {edges}, expected four finite numbers of degrees")
        if not -90 <= south < north <= 90:
            raise ValueError(
                f"extent: got latitudes {south:g} to {north:g}, expected -90 to 90, south before "
                "north"
            )
        if not -360 <= west <= 360 or not -360 <= east <= 540:
            raise ValueError(f"extent: got longitudes {west:g} to {east:g}, expected degrees")
        if east <= west:
            east += 360
        if east - west > 360 * (1 + 1e-9):
            raise ValueError(f"extent: spans {east - west:g} degrees of longitude, more than 360")
        shift = 360 * math.floor((west + 180) / 360)
        return super().__new__(cls, west - shift, south, east - shift, north)

    @property
    def degrees(self) -> tuple[float, float]:
        """Size of the extent in degrees: (latitude, longitude)."""
        return self.lat_max - self.lat_min, self.lon_max - self.lon_min

    def __str__(self) -> str:
        return ",".join(f"{edge:g}" for edge in self)


GLOBE = Extent(-180, -90, 180, 90)
"""The whole Earth."""


def parse_extent(text: str) -> Extent:
    """Parses "lon_min,lat_min,lon_max,lat_max"; ValueError for anything else."""
    try:
        west, south, east, north = map(float, text.split(","))
    except ValueError:
        raise ValueError(
            f"extent: got {text!r}, expected lon_min,lat_min,lon_max,lat_max in degrees, such as "
            "-61,10,-40,24"
        ) from None
    return Extent(west, south, east, north)


def parse_regions(texts: Iterable[str]) -> dict[str, Extent]:
    """Parses regions "NAME:lon_min,lat_min,lon_max,lat_max"; ValueError for anything else."""
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
