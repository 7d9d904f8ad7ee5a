"""Files of tools/predict_scenes.py become fractions of grid cells, by exact overlaps."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files
from clouds_tf.climatology import days
from clouds_tf.climatology.days import Areas, DayFields, Settings
from clouds_tf.geo import netcdf
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid, turns
from clouds_tf.manifest import file_identity

MEASURES = ("mask", "expected")
_ROWS_AT_ONCE = 256
_REGULAR = 1e-3  # of a cell, by which edges may miss a regular grid


@dataclasses.dataclass(frozen=True)
class Scene:
    """Metadata of the file of a scene.

    Attributes:
        path: the NetCDF file.
        name: of the scene.
        date: the day, such as "2017-01-31".
        model: what tells one model from another.
        class_names: names of the classes.
        grid: its cells, rows in the order of the file.
        fingerprint: `days.digest` of the scene.
    """

    path: str
    name: str
    date: str
    model: str
    class_names: tuple[str, ...]
    grid: Grid
    fingerprint: str

    @property
    def resolution(self) -> float:
        """Degrees per cell, rounded to what a file can say."""
        return round(self.grid.cell[0], 6)


def find(pattern: str) -> list[str]:
    """Files of a folder (*.nc) or of a pattern, sorted; FileNotFoundError if there are none.

    What exists is no pattern.
    """
    paths = files.list_paths(pattern)
    if tf.io.gfile.isdir(pattern):
        paths = [path for path in paths if path.endswith(".nc")]
    if not paths:
        raise FileNotFoundError(f"{pattern}: no scenes, expected files of tools/predict_scenes.py")
    return paths


def read(path: str) -> Scene:
    """Reads what a scene says about itself.

    Raises:
        ValueError: the file is damaged, is no scene, or its cells are not regular; the reason and
            the file are named.
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
    name = str(attributes.get("scene", os.path.basename(path)))
    model = str(attributes.get("model_fingerprint", attributes.get("model", "")))
    date = str(np.datetime64(int(seconds[0]), "s").astype("datetime64[D]"))
    parts = (name, model, file_identity(path))
    fingerprint = days.digest(*(part.encode() for part in parts))
    return Scene(path, name, date, model, names, grid, fingerprint)


def _grid(path: str, lat_bounds: np.ndarray, lon_bounds: np.ndarray) -> Grid:
    """The grid of bounds; ValueError if its cells are not regular."""
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
    """ValueError if a scene is of other classes, another resolution or another model."""
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


def check_day(scenes: Sequence[Scene]) -> None:
    """ValueError if two scenes of a day overlap: their cells would count twice."""
    for i, one in enumerate(scenes):
        for other in scenes[:i]:
            if _overlap(one, other):
                raise ValueError(
                    f"{one.path}: {one.date} is there twice, overlaps {other.path}; choose one of "
                    "them, for example one satellite by a pattern: --scenes_dir='S/Aqua*.nc'"
                )


def _overlap(one: Scene, other: Scene) -> bool:
    """Whether scenes share more than a cell, by which the last row and column may reach too far."""
    slack = one.resolution * (1 + _REGULAR)
    low = max(one.grid.extent.lat_min, other.grid.extent.lat_min)
    high = min(one.grid.extent.lat_max, other.grid.extent.lat_max)
    west, _, east, _ = other.grid.extent
    around = turns(west + slack, east - slack, one.grid.extent.lon_min, one.grid.extent.lon_max)
    return bool(high - low > slack and around)


def looks_at(scene: Scene, grid: Grid) -> bool:
    """Whether a scene and a grid overlap."""
    rows, columns = grid.shared(scene.grid)
    return bool(rows.any() and columns.any())


def plane(variable: Any, rows: slice, index: int | None = None) -> np.ndarray:
    """Rows of a variable (time, [class,] lat, lon) of one time, or of one without time."""
    lead = variable.ndim - (2 if index is None else 3)
    place: tuple[Any, ...] = (0,) * lead + (() if index is None else (index,))
    return np.asarray(variable[(*place, rows)])


def day_fields(date: str, scenes: Sequence[Scene], measure: str, grid: Grid) -> DayFields:
    """Class fractions of one day, from scenes that do not overlap.

    Args:
        date: the day.
        scenes: all scenes of that day, in any order.
        measure: "mask" for the share that masks cover; "expected" for the mean of calibrated
            probabilities, an unbiased area, which says nothing of what is without any class or
            shared (0).
        grid: a Grid of [h, w] cells.

    Raises:
        ValueError: a file is damaged, or has no calibrated probabilities.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure: got {measure!r}, expected one of {', '.join(MEASURES)}")
    sums = Areas.zeros(len(scenes[0].class_names), grid)
    for scene in sorted(scenes, key=lambda scene: scene.name):
        _add(sums, scene, measure, grid)
    return sums.fields(date, sums.seen / grid.areas)


def _add(sums: Areas, scene: Scene, measure: str, grid: Grid) -> None:
    """Adds the areas of a scene, some rows at a time."""
    number, height = len(scene.class_names), scene.grid.shape[0]
    from_rows, from_columns = grid.shared(scene.grid)
    across = from_columns.T
    with netcdf.opened(scene.path) as file:
        scale = _calibrated_scale(scene, file) if measure == "expected" else 1.0
        for start in range(0, height, _ROWS_AT_ONCE):
            rows = slice(start, min(start + _ROWS_AT_ONCE, height))
            down = from_rows[:, rows]
            observed = plane(file["observed"], rows) > 0
            sums.seen += down @ (observed @ across)
            if measure == "expected":
                for c in range(number):
                    share = plane(file["calibrated_probability"], rows, c) * scale * observed
                    sums.covered[c] += down @ (share @ across)
                continue
            mask = plane(file["mask"], rows) * observed
            sums.nothing += down @ ((observed & (mask == 0)) @ across)
            masks = [(mask >> c & 1).astype(float) for c in range(number)]
            for c in range(number):
                sums.covered[c] += down @ (masks[c] @ across)
            for i, j in np.ndindex(number, number):
                both = (masks[i] * masks[j]) @ across.sum(axis=1)
                sums.shared[i, j] += down.sum(axis=0) @ both


def _calibrated_scale(scene: Scene, file: Any) -> float:
    if "calibrated_probability" not in file:
        raise ValueError(
            f"{scene.path}: has no calibrated_probability, which --measure=expected needs: export "
            "with a calibration, or choose --measure=mask"
        )
    return scale_of(file["calibrated_probability"])


def scale_of(variable: Any) -> float:
    """The scale factor of a variable of h5py; 1 without."""
    return float(np.ravel(variable.attrs.get("scale_factor", 1.0))[0])
