"""Reads the metadata of scene files, and checks that they may be combined."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from clouds_tf import files, gfile
from clouds_tf.climatology import days
from clouds_tf.climatology.days import Settings
from clouds_tf.geo import netcdf
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid
from clouds_tf.manifest import file_identity

_REGULAR = 1e-3  # tolerance of a regular grid, as a share of a cell


@dataclasses.dataclass(frozen=True)
class Scene:
    """Metadata of the file of a scene.

    Attributes:
        path: the NetCDF file.
        name: name of the scene.
        seconds: acquisition time in seconds since 1970-01-01.
        platform: the satellite, or "unknown".
        likeness: share of training images that are less typical; NaN if unknown.
        model: identity of the model.
        class_names: names of the classes.
        grid: its cells, rows in the order of the file.
        fingerprint: `days.digest` of the scene.
    """

    path: str
    name: str
    seconds: int
    platform: str
    likeness: float
    model: str
    class_names: tuple[str, ...]
    grid: Grid
    fingerprint: str

    @property
    def resolution(self) -> float:
        """Degrees per cell, rounded to the precision of the coordinates in a file."""
        return round(self.grid.cell[0], 6)

    @property
    def date(self) -> str:
        """The day, such as "2017-01-31"."""
        return days.key_of(self.seconds, "day")

    @functools.cached_property
    def picture(self) -> str:
        """`days.digest` of the observed pixels, the same for copies; "" if there are none."""
        with netcdf.opened(self.path) as file:
            observed = file["observed"][...]
            shown = file["brightness" if "brightness" in file else "mask"][...]
        return days.digest(observed.tobytes(), shown.tobytes()) if observed.any() else ""


def find(pattern: str) -> list[str]:
    """Files of a folder (*.nc) or of a pattern, sorted; FileNotFoundError if there are none.

    An existing path is not a pattern.
    """
    paths = files.list_paths(pattern)
    if gfile.isdir(pattern):
        paths = [path for path in paths if path.endswith(".nc")]
    if not paths:
        raise FileNotFoundError(f"{pattern}: no scenes, expected files of tools/predict_scenes.py")
    return paths


def read(path: str) -> Scene:
    """Reads the metadata of a scene.

    Raises:
        ValueError: the file is damaged, is not a scene, or its cells are not regular.
    """
    with netcdf.opened(path) as file:
        wanted = ("time", "class", "lat_bnds", "lon_bnds", "mask", "observed")
        missing = [name for name in wanted if name not in file]
        if missing:
            raise ValueError(f"{path}: not a scene file: lacks the variable {', '.join(missing)}")
        grid = _grid(path, *(file[f"{name}_bnds"][...] for name in ("lat", "lon")))
        seconds = np.ravel(file["time"][...])
        units = str(netcdf.plain_attributes(file["time"]).get("units"))
        if len(seconds) != 1 or not units.startswith("seconds since 1970-01-01"):
            raise ValueError(f"{path}: time: expected one number of seconds since 1970-01-01")
        names = tuple(name.decode() for name in file["class"][...])
        attributes = netcdf.plain_attributes(file)
        likeness = float(np.ravel(file["likeness"][...])[0]) if "likeness" in file else np.nan
    name = str(attributes.get("scene", os.path.basename(path)))
    model = str(attributes.get("model_fingerprint", attributes.get("model", "")))
    parts = (name, model, file_identity(path))
    return Scene(
        path=path,
        name=name,
        seconds=int(seconds[0]),
        platform=str(attributes.get("platform", "unknown")),
        likeness=likeness,
        model=model,
        class_names=names,
        grid=grid,
        fingerprint=days.digest(*(part.encode() for part in parts)),
    )


def _grid(path: str, lat_bounds: np.ndarray, lon_bounds: np.ndarray) -> Grid:
    """The grid with given bounds; ValueError if its cells are not regular."""
    sides, ends = [], []
    for bounds in (lat_bounds, lon_bounds):
        edges = np.append(bounds[:, 0], bounds[-1, 1])
        step = (edges[-1] - edges[0]) / max(len(bounds), 1)
        if not step or not np.allclose(np.diff(edges), step, rtol=0, atol=_REGULAR * abs(step)):
            raise ValueError(f"{path}: lat_bnds and lon_bnds: expected regular cells")
        sides.append(abs(step))
        ends.append((edges[0], edges[-1]))
    (first, last), (west, east) = ends
    try:
        south, north = np.clip(sorted((first, last)), -90, 90)
        return Grid(tuple(sides), Extent(west, south, east, north), first > last)
    except ValueError as error:
        raise ValueError(f"{path}: lat_bnds and lon_bnds: {error}") from None


def check(scene: Scene, settings: Settings) -> None:
    """Raises ValueError if a scene has other classes, another resolution or another model."""
    for what, got, expected in (
        ("classes", scene.class_names, settings.class_names),
        ("degrees per cell", scene.resolution, settings.resolution),
        ("model", scene.model, settings.model_fingerprint),
    ):
        if got != expected:
            raise ValueError(
                f"{scene.path}: {what}: got {got}, expected {expected} as in the other days; "
                "choose another --output, or leave this scene out"
            )


def check_twins(scene: Scene, others: Iterable[Scene]) -> None:
    """Raises ValueError if a scene is a copy of another one of its day, and would count twice."""
    for other in others:
        if scene.picture == other.picture != "":
            raise ValueError(
                f"{scene.path}: {scene.date} is there twice, {other.path} has the same picture; "
                "leave one of them out"
            )


def looks_at(scene: Scene, grid: Grid) -> bool:
    """Whether a scene and a grid overlap."""
    rows, columns = grid.shared(scene.grid)
    return bool(rows.any() and columns.any())


def plane(variable: Any, rows: slice, index: int | None = None) -> np.ndarray:
    """Rows of a variable at one time, times its scale factor.

    Its dimensions are (time, class, lat, lon), of which the first two may be missing.
    """
    lead = variable.ndim - (2 if index is None else 3)
    place: tuple[Any, ...] = (0,) * lead + (() if index is None else (index,))
    values = np.asarray(variable[(*place, rows)])
    scale = variable.attrs.get("scale_factor")
    return values if scale is None else values * float(np.ravel(scale)[0])
