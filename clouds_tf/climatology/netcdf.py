"""How every NetCDF file of this room is written and read: CF-1.8, the same bytes each time."""

from __future__ import annotations

import contextlib
import datetime
import io
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import tensorflow as tf

from clouds_tf import files
from clouds_tf.climatology.grid import Grid

EPOCH = datetime.date(1970, 1, 1)
_DAYS = {"units": "days since 1970-01-01", "calendar": "standard"}

# Long names, which readers show.
FRACTION = "share of the observed area that the pattern covers"
UNCLASSIFIED = "share of the observed area without any pattern"
COVERAGE = "share of the area that was observed"
SHARED = "share of the whole observed area that both patterns cover"


@contextlib.contextmanager
def new_file(path: str | io.BytesIO) -> Iterator[Any]:
    """Gives a new, empty NetCDF-4 file, which is at `path` when the block ends without error."""
    files.require("h5netcdf", "geo", "NetCDF")
    import h5netcdf

    whole = files.written_whole(path) if isinstance(path, str) else contextlib.nullcontext(path)
    # In a group that keeps the order of creation, some versions of HDF5 also write the time, and
    # equal contents would no longer have equal bytes.
    with whole as target, h5netcdf.File(target, "w", track_order=False) as file:
        yield file


def write_copy(
    path: str, template: bytes, values: dict[str, Any], attributes: dict[str, Any]
) -> None:
    """Writes a copy of a file, with values of its variables and with global attributes added."""
    with files.written_whole(path) as temporary:
        buffer = io.BytesIO(template)
        with h5py.File(buffer, "r+") as file:
            for name, value in values.items():
                file[name][...] = value
            file.attrs.update(attributes)
        with tf.io.gfile.GFile(temporary, "wb") as target:
            target.write(buffer.getvalue())


def write_axes(file: Any, grid: Grid, class_names: Sequence[str]) -> None:
    """Writes classes, latitudes and longitudes with their bounds."""
    file.dimensions = {"class": len(class_names), "other_class": len(class_names), "nv": 2}
    for name in ("class", "other_class"):
        write_strings(file, name, (name,), class_names, "cloud pattern")
    sides = {"lat": (grid.lat, grid.lat_edges), "lon": (grid.lon, grid.lon_edges)}
    for name, (centres, edges) in sides.items():
        word, points_to = ("latitude", "north") if name == "lat" else ("longitude", "east")
        file.dimensions[name] = len(centres)
        variable = file.create_variable(name, (name,), data=centres)
        variable.attrs["standard_name"] = word
        variable.attrs["units"] = f"degrees_{points_to}"
        variable.attrs["axis"] = "Y" if name == "lat" else "X"
        variable.attrs["bounds"] = f"{name}_bnds"
        file.create_variable(
            f"{name}_bnds", (name, "nv"), data=np.stack([edges[:-1], edges[1:]], axis=1)
        )


def write_strings(
    file: Any, name: str, dimensions: tuple[str, ...], values: Sequence[str], long_name: str
) -> None:
    """Writes a variable of strings."""
    data = np.array(list(values), dtype=object)
    variable = file.create_variable(name, dimensions, dtype=h5py.string_dtype(), data=data)
    variable.attrs["long_name"] = long_name


def write_scalar_time(file: Any, day: int) -> None:
    """Writes the noon of a day as the scalar coordinate `time`, and the day as its bounds."""
    variable = file.create_variable("time", (), data=np.float64(day + 0.5))
    variable.attrs.update({"standard_name": "time", **_DAYS, "bounds": "time_bnds"})
    file.create_variable("time_bnds", ("nv",), data=np.array([day, day + 1.0]))


def write_times(
    file: Any, middles: np.ndarray, bounds: np.ndarray, across_years: bool
) -> None:
    """Writes the dimension and coordinate `time` of periods.

    Args:
        file: the file.
        middles: float64 [n], the times that stand for the periods, increasing.
        bounds: float64 [n, 2], first day and the day after the last, in days since 1970-01-01.
        across_years: whether a period is the same month or season of several years, which CF
            calls climatological time.
    """
    name, kind = (
        ("climatology_bounds", "climatology") if across_years else ("time_bnds", "bounds")
    )
    file.dimensions["time"] = len(bounds)
    variable = file.create_variable("time", ("time",), data=middles)
    variable.attrs.update({"standard_name": "time", "axis": "T", **_DAYS, kind: name})
    file.create_variable(name, ("time", "nv"), data=np.asarray(bounds, float))


def new_variable(
    file: Any,
    name: str,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    kind: Any,
    long_name: str,
    cell_methods: str = "",
) -> Any:
    """Makes a variable of shares (float kinds, NaN marks gaps) or counts, to be filled.

    It is compressed where it is on the grid, one map a chunk: readers of one class of one month
    read no more than that.
    """
    options: dict[str, Any] = {}
    if {"lat", "latitude"} & set(dimensions):
        last = 3 if "latitude" in dimensions else 2
        chunks = (1,) * (len(shape) - last) + shape[-last:]
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 1, "shuffle": True}
    if np.issubdtype(kind, np.floating):
        options["fillvalue"] = kind(np.nan)
    variable = file.create_variable(name, dimensions, dtype=kind, **options)
    variable.attrs["long_name"] = long_name
    variable.attrs["units"] = "1"
    if cell_methods:
        variable.attrs["cell_methods"] = cell_methods
    return variable


def write_attributes(file: Any, title: str, attributes: dict[str, Any]) -> None:
    """Writes the global attributes; no time and no name of a machine, so that bytes repeat."""
    file.attrs["Conventions"] = "CF-1.8"
    file.attrs["title"] = title
    for name, value in attributes.items():
        file.attrs[name] = value


def read_attributes(path: str) -> dict[str, Any]:
    """Global attributes of a file; ValueError if it is none of NetCDF-4 or damaged."""
    with opened(path) as file:
        return plain_attributes(file)


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
    """Opens a file to read; ValueError if it is damaged, also while it is read.

    With h5py, which reads small files several times faster than readers of NetCDF.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (OSError, RuntimeError) as error:
        reason = str(error).split("(", 1)[-1].rstrip(")")
        raise ValueError(
            f"{path}: is damaged or no NetCDF-4 file ({reason}); delete it and make it again"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
