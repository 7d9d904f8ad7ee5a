"""Reads scenes in NetCDF and zarr, on coordinates of latitude and longitude, with xarray."""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray

from clouds_tf import gfile
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import UNEVEN, Grid, outer_edges, rows_within_poles
from clouds_tf.geo.names import named_date, named_platform
from clouds_tf.scenes import scene as scenes
from clouds_tf.scenes.scene import Reading, Scene, stem

# Names and units of coordinates (CF, sections 4.1 and 4.2).
_LATITUDE = ("lat", "latitude", "y"), r"degrees?(_north|_?N)"
_LONGITUDE = ("lon", "longitude", "x"), r"degrees?(_east|_?E)"
_BANDS = r"bands?|rgba?|channels?|colou?rs?"  # names of dimensions of red, green and blue
_MAX_ROWS = 64


@contextlib.contextmanager
def open_array(path: str, reading: Reading) -> Iterator[Scene]:
    """Opens NetCDF or zarr; see `read.open_scene`."""
    with _opened(path) as data:
        variable, (latitude, longitude) = _variable(data, reading)
        values = _in_bands(_at_one_time(variable), (latitude, longitude), reading)
        scenes.check_pixels((values.sizes[latitude], values.sizes[longitude]), reading)
        # xarray converts bytes with a _FillValue to floats.
        packed = {"scale_factor", "add_offset"} & set(values.encoding)
        is_bytes = np.dtype(values.encoding.get("dtype", values.dtype)) == np.uint8 and not packed
        scenes.check_type(np.dtype("uint8") if is_bytes else values.dtype, reading.value_range)
        # North first and west first; opened lazily, so nothing is read here.
        values = values.isel(
            {
                latitude: slice(None, None, -1 if _rises(values[latitude]) else 1),
                longitude: slice(None, None, 1 if _rises(values[longitude]) else -1),
            }
        )
        north, south = outer_edges("latitude", values[latitude].values)
        lon, turn = _in_turn(values[longitude].values)
        west, east = outer_edges("longitude", lon)
        first, last, north, south = rows_within_poles(north, south, values.sizes[latitude])
        values = values.isel({latitude: slice(first, last)})
        text = " ".join(str(data.attrs.get(k, "")) for k in ("platform", "platform_ID", "source"))
        yield Scene(
            path=path,
            extent=Extent(west, south, east, north),
            size=(values.sizes[latitude], values.sizes[longitude]),
            date=_date(variable, path, reading),
            platform=named_platform(f"{stem(path)} {text}"),
            read=_reader(values, latitude, turn, is_bytes, reading),
            rows_at_a_time=_MAX_ROWS,
            ignores_range=is_bytes,
        )


def values_on(path: str, variable: str | None, grid: Grid) -> np.ndarray:
    """Values of a variable at the nearest coordinates to the cells of a grid: float32.

    Args:
        path: local NetCDF or zarr.
        variable: its name; None takes the only one on latitude and longitude.
        grid: the cells, north first.

    Returns:
        [rows, columns]; NaN where there is no value nearby, or the nearest one is missing.

    Raises:
        ValueError: the file cannot be read, or has no such variable of two dimensions.
    """
    with _opened(path) as data:
        found, (lat, lon) = _variable(data, Reading(variable=variable))
        values = _in_bands(_at_one_time(found), (lat, lon), Reading())
        if values.ndim != 2 or min(values.shape) < 2:
            raise ValueError(f"variable {found.name!r} is not a field of latitude and longitude")
        # Longitudes within one turn that begins before the grid.
        west = grid.extent.lon_min - min(1, (360 - grid.extent.degrees[1]) / 2)
        values = values.assign_coords({lon: (values[lon] - west) % 360 + west})
        for dim, wanted, cell in ((lat, grid.lat, grid.cell[0]), (lon, grid.lon, grid.cell[1])):
            values = values.sortby(dim).drop_duplicates(dim)
            step = float(np.median(np.diff(values[dim].values)))
            values = values.reindex({dim: wanted}, method="nearest", tolerance=max(step, cell))
        return values.values.astype(np.float32)


def _opened(path: str) -> Any:
    """A Dataset with scale_factor and add_offset applied, NaN for _FillValue, and raw times.

    Times are decoded only if needed, since some calendars are not supported.
    """
    try:
        return xarray.open_dataset(path, engine=_engine(path), decode_times=False)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[0]}") from None


def _engine(path: str) -> str:
    if path.rstrip("/").lower().endswith(".zarr"):
        return "zarr"
    with gfile.opened(path, "rb") as file:
        start = file.read(4)
    if start == b"CDF\x05":
        raise ValueError("is NetCDF of 64-bit data (CDF-5); convert it: nccopy -k nc4 IN.nc OUT.nc")
    return "scipy" if start[:3] == b"CDF" else "h5netcdf"


def _spatial(variable: Any) -> tuple[str, str] | None:
    """The names of the dimensions of latitude and longitude; None without coordinates of both."""
    found: list[str] = []
    for names, units in (_LATITUDE, _LONGITUDE):
        dims = []
        for dim in map(str, variable.dims):
            if dim in variable.coords and variable.coords[dim].ndim == 1:
                unit = str(variable.coords[dim].attrs.get("units", ""))
                if re.fullmatch(units, unit) or dim.lower() in names[: 2 if unit else 3]:
                    dims.append(dim)
        found += dims if len(dims) == 1 else []
    return (found[0], found[1]) if len(found) == 2 else None


def _variable(data: Any, reading: Reading) -> tuple[Any, tuple[str, str]]:
    """The variable to read, and the names of its dimensions of latitude and longitude."""
    usable = {str(name): _spatial(data[name]) for name in data.data_vars}
    usable = {name: spatial for name, spatial in usable.items() if spatial is not None}
    name = reading.variable
    if name is not None and name not in data.data_vars:
        raise ValueError(f"has no variable {name!r}, expected one of {sorted(data.data_vars)}")
    if not usable or (name is not None and name not in usable):
        shown = f"variable {name!r} has no" if name else "has no variable with"
        raise ValueError(
            f"{shown} one-dimensional coordinates of latitude and longitude (names lat and lon, or "
            "units degrees_north and degrees_east); resample swaths and geostationary images to "
            "longitude and latitude first, see docs/swaths.md"
        )
    if name is None and len(usable) > 1:
        raise ValueError(f"has the variables {sorted(usable)}; choose one with --variable=NAME")
    name = name or next(iter(usable))
    spatial = usable[name]
    assert spatial is not None
    return data[name], spatial


def _time(variable: Any) -> str | None:
    """The name of the coordinate or dimension of the acquisition time.

    Other times, such as forecast_reference_time, do not count.
    """
    for name in (*map(str, variable.coords), *map(str, variable.dims)):
        attributes = variable.coords[name].attrs if name in variable.coords else {}
        standard_name = attributes.get("standard_name")
        is_named = name.lower() in ("time", "t") or attributes.get("axis") == "T"
        if standard_name == "time" or (standard_name is None and is_named):
            return name
    return None


def _at_one_time(variable: Any) -> Any:
    time = _time(variable)
    if time is None or time not in variable.dims:
        return variable
    if variable.sizes[time] != 1:
        raise ValueError(
            f"has {variable.sizes[time]} times, expected one; write a file for each, such as with "
            "cdo splitsel,1"
        )
    return variable.isel({time: 0})


def _in_bands(variable: Any, spatial: tuple[str, str], reading: Reading) -> Any:
    """The variable as [latitude, longitude], or [latitude, longitude, bands] of 1 or 3 bands."""
    lengths = {str(dim): variable.sizes[dim] for dim in variable.dims if dim not in spatial}
    bands = [dim for dim, length in lengths.items() if length > 1]
    variable = variable.isel({dim: 0 for dim in lengths if dim not in bands})
    chosen = reading.bands
    if len(bands) == 1 and chosen is not None:
        if max(chosen) > lengths[bands[0]]:
            raise ValueError(
                f"has {lengths[bands[0]]} bands ({bands[0]}), expected those of --bands="
                f"{','.join(map(str, chosen))}"
            )
        variable = variable.isel({bands[0]: [band - 1 for band in chosen]})
    elif len(bands) > 1 or (
        # Three levels or members are not colours.
        bands
        and not (lengths[bands[0]] == 3 and re.fullmatch(_BANDS, bands[0].lower()))
    ):
        raise ValueError(
            f"variable {variable.name!r} has further dimensions "
            f"{', '.join(f'{dim} ({lengths[dim]})' for dim in bands)}; expected none, or one of 3 "
            "bands named band (red, green, blue); choose them with --bands"
        )
    return variable.transpose(*spatial, *bands)


def _date(variable: Any, path: str, reading: Reading) -> datetime.datetime:
    date, problem = None, "has no coordinate of time and no date in its name"
    name = _time(variable)
    if name is not None and name in variable.coords:
        try:
            decoded = xarray.decode_cf(variable.coords[name].to_dataset(name="decoded"))
            moments = np.ravel(decoded["decoded"].values)
            if moments.dtype.kind == "M":  # NaT gives None
                date = moments[0].astype("datetime64[s]").astype(datetime.datetime)
        except (ValueError, ImportError):
            pass  # another calendar
        shown = variable.coords[name].attrs
        problem = (
            f"its {name} is not a date of the standard calendar ({shown.get('units', 'no units')}, "
        )
        problem += f"calendar {shown.get('calendar', 'standard')}), and its name has no date"
    date = date or named_date(stem(path)) or reading.date
    if date is None:
        raise ValueError(f"{problem}; set one with --date=YYYY-MM-DD")
    return date


def _rises(coordinate: Any) -> bool:
    """Whether values increase, apart from at most one step at the date line."""
    return bool(np.median(np.diff(coordinate.values)) > 0) if coordinate.size > 1 else True


def _in_turn(longitudes: np.ndarray) -> tuple[np.ndarray, int]:
    """Evenly increasing longitudes, and the number of columns to move to the end for that.

    Across 180 degrees, longitudes may decrease once (179, -179). Sorted longitudes across Greenwich
    or 180 degrees have a gap in the middle (0, 1, 358, 359), after which the image begins.
    """
    lon = np.array(longitudes, np.float64)
    if len(lon) < 2 or not np.isfinite(lon).all():
        return lon, 0
    lon += 360 * np.r_[0, np.cumsum(np.diff(lon) < -180)]
    steps = np.diff(lon)
    step = float(np.median(steps))
    uneven = np.flatnonzero(abs(steps - step) > UNEVEN * abs(step))
    if len(uneven) == 1 and abs(lon[0] + 360 - lon[-1] - step) < UNEVEN * abs(step):
        turn = int(uneven[0]) + 1
        return np.r_[lon[turn:] - 360, lon[:turn]], turn
    return lon, 0


def _reader(values: Any, latitude: str, turn: int, is_bytes: bool, reading: Reading) -> Any:
    def read_rows(start: int, stop: int) -> np.ndarray:
        try:
            rows = np.asarray(values.isel({latitude: slice(start, stop)}).values)
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"row {start}: cannot be read: {str(error).splitlines()[0]}") from None
        rows = np.roll(rows if rows.ndim == 3 else rows[..., np.newaxis], -turn, axis=1)
        valid = np.ones(rows.shape[:2], bool)
        if np.issubdtype(rows.dtype, np.floating):
            valid = np.isfinite(rows).all(axis=2)
        if is_bytes:
            rows = np.nan_to_num(rows).astype(np.uint8)
        return scenes.to_bytes(rows, valid, reading.value_range)

    return read_rows
