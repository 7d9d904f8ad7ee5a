"""Where and when a scene is: extents, grids of cells, and what file names say.

Longitudes and latitudes are in degrees (EPSG:4326). Rows run from north to south, columns from west
to east.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re

import numpy as np

EARTH_RADIUS = 6371.0088  # km, the mean radius of the IUGG
_TOLERANCE = 1e-6  # of a cell or of a pixel: the rounding of coordinates


@dataclasses.dataclass(frozen=True)
class Extent:
    """A rectangle of longitudes and latitudes, in degrees.

    Attributes:
        lon_min: western edge, -180 to below 180.
        lat_min: southern edge, from -90.
        lon_max: eastern edge, above lon_min; above 180 beyond the date line.
        lat_max: northern edge, to 90.
    """

    lon_min: float
    lat_min: float
    lon_max: float
    lat_max: float

    def __post_init__(self) -> None:
        edges = dataclasses.astuple(self)
        if not all(map(math.isfinite, edges)):
            raise ValueError(f"extent: got {edges}, expected four finite numbers of degrees")
        if not -90 <= self.lat_min < self.lat_max <= 90:
            raise ValueError(
                f"extent: got latitudes {self.lat_min:g} to {self.lat_max:g}, expected -90 to 90, "
                "south before north"
            )
        if not -360 <= self.lon_min <= 360 or not -360 <= self.lon_max <= 540:
            raise ValueError(
                f"extent: got longitudes {self.lon_min:g} to {self.lon_max:g}, expected degrees"
            )
        # An eastern edge that is not east of the western one is beyond the date line.
        west, east = self.lon_min, self.lon_max
        if east <= west:
            east += 360
        shift = 360 * math.floor((west + 180) / 360)
        object.__setattr__(self, "lon_min", west - shift)
        object.__setattr__(self, "lon_max", east - shift)
        if east - west > 360 * (1 + 1e-9):
            raise ValueError(f"extent: spans {east - west:g} degrees of longitude, more than 360")

    @property
    def degrees(self) -> tuple[float, float]:
        """(latitude, longitude) that the extent spans, in degrees."""
        return self.lat_max - self.lat_min, self.lon_max - self.lon_min

    def __str__(self) -> str:
        return f"{self.lon_min:g},{self.lat_min:g},{self.lon_max:g},{self.lat_max:g}"


def parse_extent(text: str) -> Extent:
    """Reads "lon_min,lat_min,lon_max,lat_max"; ValueError for anything else.

    >>> parse_extent("170,-10,-170,10")  # 20 degrees across the date line
    Extent(lon_min=170.0, lat_min=-10.0, lon_max=190.0, lat_max=10.0)
    """
    parts = text.split(",")
    try:
        west, south, east, north = map(float, parts)
    except ValueError:
        raise ValueError(
            f"extent: got {text!r}, expected lon_min,lat_min,lon_max,lat_max in degrees, such as "
            "-61,10,-40,24"
        ) from None
    return Extent(west, south, east, north)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A regular grid of cells on longitude and latitude.

    Attributes:
        lon_min: western edge of the first column, in degrees.
        lat_max: northern edge of the first row, in degrees.
        cell: (latitude, longitude) that a cell spans, in degrees, positive.
        size: (rows, columns).
        periodic: whether the last column borders on the first one.
    """

    lon_min: float
    lat_max: float
    cell: tuple[float, float]
    size: tuple[int, int]
    periodic: bool = False

    @property
    def longitude_edges(self) -> np.ndarray:
        """float64 [columns + 1], west to east."""
        return self.lon_min + self.cell[1] * np.arange(self.size[1] + 1)

    @property
    def latitude_edges(self) -> np.ndarray:
        """float64 [rows + 1], north to south."""
        return self.lat_max - self.cell[0] * np.arange(self.size[0] + 1)

    @property
    def longitudes(self) -> np.ndarray:
        """float64 [columns], of the cell centres."""
        return self.lon_min + self.cell[1] * (np.arange(self.size[1]) + 0.5)

    @property
    def latitudes(self) -> np.ndarray:
        """float64 [rows], of the cell centres."""
        return self.lat_max - self.cell[0] * (np.arange(self.size[0]) + 0.5)

    @property
    def edges(self) -> tuple[float, float, float, float]:
        """(lon_min, lat_min, lon_max, lat_max) of the whole grid, in degrees."""
        (height, width), (dlat, dlon) = self.size, self.cell
        south, east = self.lat_max - height * dlat, self.lon_min + width * dlon
        return self.lon_min, south, east, self.lat_max

    @property
    def cell_areas(self) -> np.ndarray:
        """float64 [rows], the area of a cell of each row on a sphere, in km2."""
        edges = np.sin(np.radians(self.latitude_edges))
        return EARTH_RADIUS**2 * math.radians(self.cell[1]) * (edges[:-1] - edges[1:])


def cover(extent: Extent, cell: tuple[float, float]) -> Grid:
    """The grid whose first cell begins at the north-western corner of an extent.

    Where the extent is not a whole number of cells, the last row and column reach beyond it, except
    beyond a pole or once around the globe.

    Args:
        extent: what the grid covers.
        cell: (latitude, longitude) that a cell spans, in degrees.
    """
    rows, columns = (
        max(1, math.ceil(span / side - 1e-3)) for span, side in zip(extent.degrees, cell)
    )
    if extent.lat_max - rows * cell[0] < -90 - _TOLERANCE * cell[0]:
        rows -= 1
    around = round(360 / cell[1])
    periodic = abs(extent.degrees[1] - 360) < 0.5 * cell[1] and columns >= around
    if periodic and abs(around * cell[1] - 360) > _TOLERANCE * cell[1]:
        periodic = False
    columns = min(columns, math.floor(360 / cell[1] + _TOLERANCE))
    return Grid(extent.lon_min, extent.lat_max, cell, (rows, columns), periodic)


def rows_within_poles(north: float, south: float, rows: int) -> tuple[int, int, float, float]:
    """The rows of a raster that do not reach beyond a pole, as those with a centre at 90 do.

    Args:
        north: northern edge of the first row, in degrees.
        south: southern edge of the last row.
        rows: number of rows.

    Returns:
        The first row, the one after the last, and their northern and southern edges.

    Raises:
        ValueError: more than one row is beyond, so that the coordinates are no latitudes.
    """
    step = (north - south) / rows
    if north > 90 + step or south < -90 - step or not step > 0:
        raise ValueError(
            f"has latitudes {south:g} to {north:g}, expected -90 to 90; is its coordinate "
            "reference system the right one?"
        )
    first, last = 0, rows
    rounding = _TOLERANCE * step
    if north > 90 + rounding:
        first, north = 1, north - step
    if south < -90 - rounding:
        last, south = rows - 1, south + step
    return first, last, min(north, 90.0), max(south, -90.0)


_NUMBER = r"(-?\d+(?:\.\d+)?)"
_NAMED_EXTENT = re.compile(f"_{_NUMBER}-{_NUMBER}_{_NUMBER}-{_NUMBER}$")
_TIME = r"(?:T(?P<hour>\d\d)[_:]?(?P<minute>\d\d)(?:[_:]?(?P<second>\d\d))?Z?)?"
_NAMED_DATES = (
    re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)(-?)(?P<month>\d\d)\2(?P<day>\d\d)" + _TIME),
    # Day of the year: MODIS (A2007361), GOES (s20203661200).
    re.compile(r"(?:[._]|^)[As](?P<year>(?:19|20)\d\d)(?P<yearday>\d{3})(?P<hour>\d\d)?"),
)
_PLATFORMS = {
    "Terra": r"terra",
    "Aqua": r"aqua",
    "Suomi NPP": r"suomi|s-?npp",
    "NOAA-20": r"noaa-?20",
    "NOAA-21": r"noaa-?21",
    "GOES-16": r"goes-?16|_g16_",
    "GOES-17": r"goes-?17|_g17_",
    "GOES-18": r"goes-?18|_g18_",
    "GOES-19": r"goes-?19|_g19_",
}


def named_extent(stem: str) -> Extent | None:
    """Reads the extent at the end of a file name, as Worldview snapshots of the field have it.

    >>> str(named_extent("Aqua_CorrectedReflectance20071227_-61--40_10-24"))
    '-61,10,-40,24'
    """
    found = _NAMED_EXTENT.search(stem)
    if not found:
        return None
    west, east, south, north = map(float, found.groups())
    return Extent(west, south, east, north)


def named_date(text: str) -> datetime.datetime | None:
    """Reads the first date in a file name (YYYYMMDD, YYYY-MM-DD, day of the year), with its time.

    >>> named_date("snapshot-2023-01-15T10_30_00Z")
    datetime.datetime(2023, 1, 15, 10, 30)
    """
    for pattern in _NAMED_DATES:
        for found in pattern.finditer(text):
            parts = {key: int(value) for key, value in found.groupdict().items() if value}
            yearday = parts.pop("yearday", 1)
            try:
                date = datetime.datetime(**{"month": 1, "day": 1, **parts})  # type: ignore
            except ValueError:
                continue
            return date + datetime.timedelta(days=yearday - 1)
    return None


def parse_date(text: str) -> datetime.datetime:
    """Reads a date such as 2007-12-27 or 2007-12-27T13:30 (UTC); ValueError for anything else."""
    try:
        return datetime.datetime.fromisoformat(text.rstrip("Z"))
    except ValueError:
        raise ValueError(
            f"date: got {text!r}, expected YYYY-MM-DD or YYYY-MM-DDTHH:MM"
        ) from None


def named_platform(text: str) -> str:
    """The satellite that a file name or a tag names, such as "Aqua"; "" if none."""
    for platform, pattern in _PLATFORMS.items():
        if re.search(pattern, text, re.IGNORECASE):
            return platform
    return ""
