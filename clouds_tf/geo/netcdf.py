"""Writes and reads the NetCDF files of scenes and climatology: valid CF, reproducible bytes."""

from __future__ import annotations

import contextlib
import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np

from clouds_tf import files, gfile
from clouds_tf.geo.grid import Grid

CONVENTIONS = "CF-1.11"  # 1.9 was the first with unsigned types
EPOCH = datetime.date(1970, 1, 1)
_ON_GRID = {"lat", "lon", "latitude", "longitude"}
_CHUNK = 512  # cells along a side


@contextlib.contextmanager
def new_file(path: str | io.BytesIO, title: str, **attributes: Any) -> Iterator[Any]:
    """Yields a new NetCDF-4 file, which is at `path` when the block ends without error.

    Times and machine names are not written, so that equal contents have equal bytes.

    Args:
        path: path of the file, or a buffer in memory.
        title: global attribute `title`.
        **attributes: further global attributes.
    """
    files.require("h5netcdf", "geo", "NetCDF")
    import h5netcdf

    whole = files.written_whole(path) if isinstance(path, str) else contextlib.nullcontext(path)
    # In a group that keeps the order of creation, some versions of HDF5 also write the time, so
    # that equal contents would not have equal bytes.
    with whole as target, h5netcdf.File(target, "w", track_order=False) as file:
        file.attrs.update(Conventions=CONVENTIONS, title=title, history="made by clouds_tf")
        file.attrs.update(attributes)
        yield file


def write_copy(
    path: str, template: bytes, values: dict[str, Any], attributes: dict[str, Any]
) -> None:
    """Writes a copy of a file with new values of its variables and additional attributes."""
    with files.written_whole(path) as temporary:
        buffer = io.BytesIO(template)
        with h5py.File(buffer, "r+") as file:
            for name, value in values.items():
                file[name][...] = value
            file.attrs.update(attributes)
        with gfile.opened(temporary, "wb") as target:
            target.write(buffer.getvalue())


def write_axes(file: Any, grid: Grid, class_names: Sequence[str]) -> None:
    """Writes the dimensions and coordinates class, lat and lon, the latter with bounds."""
    file.dimensions.update({"class": len(class_names), "bnds": 2})
    write_strings(file, "class", ("class",), class_names, "cloud pattern")
    for name, word, points_to, axis, centres, edges in (
        ("lat", "latitude", "north", "Y", grid.lat, grid.lat_edges),
        ("lon", "longitude", "east", "X", grid.lon, grid.lon_edges),
    ):
        bounds = np.stack([edges[:-1], edges[1:]], axis=1)
        attributes = {"standard_name": word, "units": f"degrees_{points_to}", "axis": axis}
        _write_axis(file, name, centres, attributes, bounds)


def _write_axis(
    file: Any, name: str, values: Any, attributes: dict[str, Any], bounds: Any, kind: str = "bounds"
) -> None:
    """Writes a coordinate and its bounds; a single value has no dimension."""
    bounds_name = "climatology_bounds" if kind == "climatology" else f"{name}_bnds"
    dimensions = (name,) * np.ndim(values)
    if dimensions:
        file.dimensions[name] = len(values)
    variable = file.create_variable(name, dimensions, data=np.asarray(values, float))
    variable.attrs.update({**attributes, kind: bounds_name})
    file.create_variable(bounds_name, (*dimensions, "bnds"), data=np.asarray(bounds, float))


def write_strings(
    file: Any, name: str, dimensions: tuple[str, ...], values: Sequence[str], long_name: str
) -> None:
    """Writes a variable of strings."""
    data = np.array(list(values), dtype=object)
    variable = file.create_variable(name, dimensions, dtype=h5py.string_dtype(), data=data)
    variable.attrs["long_name"] = long_name


def write_times(
    file: Any, middles: np.ndarray | float, bounds: Any, across_years: bool = False
) -> None:
    """Writes the coordinate `time` of periods, or of one period as a scalar.

    Args:
        middles: float64 [n] or one number, times of the periods, increasing.
        bounds: [n, 2] or [2], first day and the day after the last, in days since 1970-01-01.
        across_years: whether a period is the same month or season of several years, which CF
            calls climatological time.
    """
    attributes = {"standard_name": "time", "units": "days since 1970-01-01"}
    attributes.update(calendar="standard", axis="T", units_metadata="leap_seconds: none")
    _write_axis(
        file, "time", middles, attributes, bounds, "climatology" if across_years else "bounds"
    )


def new_variable(
    file: Any,
    name: str,
    dimensions: tuple[str, ...],
    kind: Any,
    long_name: str,
    fill: Any = None,
    **attributes: Any,
) -> Any:
    """Creates an empty variable, compressed if it is on the grid.

    It is chunked for reading single classes at single times.

    Args:
        file: the file, with all dimensions.
        dimensions: names of its dimensions, those of the grid last or before classes.
        kind: numpy type; floats are shares, whose gaps are NaN.
        long_name: attribute that readers display.
        fill: the value that marks gaps, for other types.
        **attributes: further attributes.
    """
    options: dict[str, Any] = {}
    shape = [file.dimensions[dimension].size for dimension in dimensions]
    on_grid = [i for i, dimension in enumerate(dimensions) if dimension in _ON_GRID]
    if on_grid:
        first = on_grid[0]
        chunks = (1,) * first + tuple(min(size, _CHUNK) for size in shape[first:])
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1}
        options["shuffle"] = True
    if np.issubdtype(kind, np.floating):
        fill = np.dtype(kind).type(np.nan)
    variable = file.create_variable(name, dimensions, dtype=kind, fillvalue=fill, **options)
    variable.attrs.update(long_name=long_name, **attributes)
    return variable


def read_variables(path: str, names: Sequence[str]) -> list[np.ndarray]:
    """Reads whole variables; ValueError if the file is damaged or lacks one."""
    with opened(path) as file:
        missing = [name for name in names if name not in file]
        if missing:
            raise ValueError(f"{path}: has no variable {', '.join(missing)}")
        return [file[name][...] for name in names]


def plain_attributes(item: Any) -> dict[str, Any]:
    """Attributes of a file or variable of h5py as strings and numbers."""
    return {name: _plain(value) for name, value in item.attrs.items()}


@contextlib.contextmanager
def opened(path: str) -> Iterator[Any]:
    """Opens a file for reading; ValueError if it is damaged, also while it is read.

    It uses h5py, which reads small files several times faster than NetCDF libraries.
    """
    try:
        with files.local_copy(path) as local, h5py.File(local, "r") as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise ValueError(
            f"{path}: is damaged or not a NetCDF-4 file ({reason}); delete it and make it again"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
