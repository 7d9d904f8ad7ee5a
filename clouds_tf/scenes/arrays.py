"""Scenes in NetCDF and zarr, on coordinates of latitude and longitude, read by xarray."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray

from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import rows_within_poles
from clouds_tf.geo.names import named_date, named_platform
from clouds_tf.scenes import read
from clouds_tf.scenes.read import Reading, Scene

_LATITUDES, _LONGITUDES = ("lat", "latitude", "y"), ("lon", "longitude", "x")
_UNEVEN = 0.02  # of a step, by which steps of a regular grid may differ
_MAX_ROWS = 64


@contextlib.contextmanager
def open_array(path: str, reading: Reading) -> Iterator[Scene]:
    """Opens NetCDF or zarr; see `read.open_scene`."""
    is_zarr = path.rstrip("/").lower().endswith(".zarr")
    try:
        # Values come with scale_factor and add_offset applied, and NaN for _FillValue.
        data = xarray.open_dataset(path, engine="zarr" if is_zarr else "h5netcdf")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[0]}") from None
    with data:
        variable, (latitude, longitude) = _variable(data, reading)
        values = _in_bands(_at_one_time(variable), (latitude, longitude), reading)
        read.check_pixels((values.sizes[latitude], values.sizes[longitude]), reading)
        read.check_type(values.dtype, reading.value_range)
        # North first and west first; opened lazily, so this reads nothing.
        values = values.isel(
            {
                latitude: slice(None, None, -1 if _rises(values[latitude]) else 1),
                longitude: slice(None, None, 1 if _rises(values[longitude]) else -1),
            }
        )
        extent, rows = _extent(values[latitude].values, values[longitude].values)
        values = values.isel({latitude: rows})
        text = " ".join(str(data.attrs.get(k, "")) for k in ("platform", "platform_ID", "source"))
        yield Scene(
            path=path,
            extent=extent,
            size=(values.sizes[latitude], values.sizes[longitude]),
            date=_date(variable, path, reading),
            platform=named_platform(f"{read.stem(path)} {text}"),
            read=_reader(values, latitude, reading),
            rows_at_a_time=_MAX_ROWS,
        )


def _spatial(variable: Any) -> tuple[str, str] | None:
    """The names of the dimensions of latitude and longitude; None without coordinates of both."""
    found: list[str] = []
    for names, units in ((_LATITUDES, "degrees_north"), (_LONGITUDES, "degrees_east")):
        dims = [
            str(dim)
            for dim in variable.dims
            if dim in variable.coords
            and variable.coords[dim].ndim == 1
            and (
                str(variable.coords[dim].attrs.get("units", "")) == units
                or (str(dim).lower() in names and "units" not in variable.coords[dim].attrs)
                or str(dim).lower() in names[:2]
            )
        ]
        found += dims if len(dims) == 1 else []
    return (found[0], found[1]) if len(found) == 2 else None


def _variable(data: Any, reading: Reading) -> tuple[Any, tuple[str, str]]:
    """The variable to read, and the names of its dimensions of latitude and longitude."""
    if reading.variable is not None:
        if reading.variable not in data.data_vars:
            raise ValueError(
                f"has no variable {reading.variable!r}, expected one of {sorted(data.data_vars)}"
            )
        variable = data[reading.variable]
        spatial = _spatial(variable)
        if spatial is None:
            raise ValueError(
                f"variable {reading.variable!r} has no coordinates of latitude and longitude "
                f"(its dimensions: {', '.join(map(str, variable.dims))})"
            )
        return variable, spatial
    usable = {str(name): _spatial(data[name]) for name in data.data_vars}
    usable = {name: spatial for name, spatial in usable.items() if spatial is not None}
    if not usable:
        raise ValueError(
            "has no variable with one-dimensional coordinates of latitude and longitude (names lat "
            "and lon, or units degrees_north and degrees_east)"
        )
    if len(usable) > 1:
        raise ValueError(f"has the variables {sorted(usable)}; choose one with --variable=NAME")
    name, spatial = usable.popitem()
    assert spatial is not None
    return data[name], spatial


def _time(variable: Any) -> str | None:
    """The name of the coordinate that holds dates."""
    named = [name for name in variable.coords if variable.coords[name].dtype.kind == "M"]
    return str(named[0]) if named else None


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
    lengths = {dim: variable.sizes[dim] for dim in variable.dims if dim not in spatial}
    bands = [dim for dim, length in lengths.items() if length > 1]
    variable = variable.isel({dim: 0 for dim in lengths if dim not in bands})
    if len(bands) == 1 and reading.bands is not None:
        if max(reading.bands) > lengths[bands[0]]:
            raise ValueError(
                f"has {lengths[bands[0]]} bands ({bands[0]}), expected those of --bands="
                f"{','.join(map(str, reading.bands))}"
            )
        variable = variable.isel({bands[0]: [band - 1 for band in reading.bands]})
    if len(bands) > 1 or (bands and variable.sizes[bands[0]] not in (1, 3)):
        raise ValueError(
            f"variable {variable.name!r} has further dimensions "
            f"{', '.join(f'{dim} ({lengths[dim]})' for dim in bands)}; expected none, or one of 3 "
            "bands (red, green, blue); choose them with --bands"
        )
    return variable.transpose(*spatial, *bands)


def _date(variable: Any, path: str, reading: Reading) -> datetime.datetime:
    time = _time(variable)
    if time is not None:
        moment = np.atleast_1d(variable.coords[time].values)[0].astype("datetime64[s]")
        return moment.astype(datetime.datetime)
    date = named_date(read.stem(path)) or reading.date
    if date is None:
        raise ValueError(
            "has no coordinate of time and no date in its name; give one with --date=YYYY-MM-DD"
        )
    return date


def _rises(coordinate: Any) -> bool:
    """Whether most steps go up: all but one at the date line."""
    return bool(np.median(np.diff(coordinate.values)) > 0) if coordinate.size > 1 else True


def _edges(name: str, centres: np.ndarray) -> tuple[float, float]:
    """The outer edges (first, last) of the cells of regular centres."""
    centres = np.asarray(centres, np.float64)
    if len(centres) < 2 or not np.isfinite(centres).all():
        raise ValueError(f"{name}: expected two or more finite coordinates")
    if name == "longitude":  # 179, -179 at the date line
        centres = centres + 360 * np.r_[0, np.cumsum(np.diff(centres) < -180)]
    steps = np.diff(centres)
    step = (centres[-1] - centres[0]) / len(steps)
    if step == 0 or (abs(steps - step) > _UNEVEN * abs(step)).any():
        raise ValueError(f"{name}: has uneven steps, expected a regular grid; reproject it")
    return centres[0] - step / 2, centres[-1] + step / 2


def _extent(latitudes: np.ndarray, longitudes: np.ndarray) -> tuple[Extent, slice]:
    """The extent of centres from north to south and west to east, and the rows that are in it."""
    north, south = _edges("latitude", latitudes)
    west, east = _edges("longitude", longitudes)
    first, last, north, south = rows_within_poles(north, south, len(latitudes))
    return Extent(west, south, east, north), slice(first, last)


def _reader(values: Any, latitude: str, reading: Reading) -> Any:
    def read_rows(start: int, stop: int) -> np.ndarray:
        try:
            rows = np.asarray(values.isel({latitude: slice(start, stop)}).values)
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(f"row {start}: cannot be read: {str(error).splitlines()[0]}") from None
        rows = rows if rows.ndim == 3 else rows[..., np.newaxis]
        valid = np.ones(rows.shape[:2], bool)
        if np.issubdtype(rows.dtype, np.floating):
            valid = np.isfinite(rows).all(axis=2)
        return read.to_bytes(rows, valid, reading.value_range)

    return read_rows
