"""Tables of the objects of scenes, and of the organisation of their clouds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy

from clouds_tf import files
from clouds_tf.climatology import scenes
from clouds_tf.geo import netcdf
from clouds_tf.geo.earth import KM_PER_DEGREE
from clouds_tf.geo.grid import Grid
from clouds_tf.geo.objects import find_objects, rectangle_in_km

COLUMNS = {
    "scene": str,
    "date": str,
    "class": str,
    "area_km2": float,
    "longitude": float,
    "latitude": float,
    "length_km": float,
    "width_km": float,
    "orientation": float,
    "mean_probability": float,
}


def _of_scene(scene: scenes.Scene) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """The objects of a scene, one row each; and its cloud fraction and organisation.

    Cells are cloudy if their `brightness` in the file is above 100 of 255; in files without
    brightness, if they belong to any pattern.
    """
    whole, rows = slice(None), []
    with netcdf.opened(scene.path) as file:
        mask = scenes.plane(file["mask"], whole)
        observed = scenes.plane(file["observed"], whole) > 0
        brightness = scenes.plane(file["brightness"], whole) if "brightness" in file else None
        for c, name in enumerate(scene.class_names):
            of_class, values = (mask >> c & 1).astype(bool) & observed, np.zeros(mask.shape)
            if "probability" in file:
                values = scenes.plane(file["probability"], whole, c)
            for item in find_objects(of_class, values, scene.grid)[0]:
                rectangle = rectangle_in_km(item, scene.grid)
                shape = (rectangle.length, rectangle.width, rectangle.orientation)
                about = (scene.name, scene.date, name, item.area_km2, *item.centroid)
                mean = item.mean_probability if "probability" in file else None
                rows.append((*about, *shape, mean))
    cloudy = observed & ((mask > 0) if brightness is None else (brightness > 100))
    summary = {
        "scene": scene.name,
        "date": scene.date,
        "num_objects": len(rows),
        "cloudy": "patterns" if brightness is None else "brightness",
        **organization(cloudy, observed, scene.grid),
    }
    return rows, summary


def write(pattern: str, path: str, on_error: str = "fail") -> str:
    """Writes the objects of all scenes as Parquet, and a row per scene as CSV next to it.

    Args:
        pattern: a folder of scenes, or a pattern.
        path: the Parquet file.
        on_error: "fail", or "skip" to leave damaged scenes out.

    Returns:
        The path of the CSV: O.parquet gives O_scenes.csv.
    """
    files.require("pyarrow", "parquet", "objects")
    import pyarrow

    kinds = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    summaries = []

    def rows() -> Iterator[tuple[Any, ...]]:
        for scene_path in scenes.find(pattern):
            try:
                found, summary = _of_scene(scenes.read(scene_path))
            except ValueError:
                if on_error == "fail":
                    raise
                continue
            summaries.append(summary)
            yield from found

    files.write_parquet(path, schema, rows())
    of_scenes = os.path.splitext(path)[0] + "_scenes.csv"
    files.write_frame(of_scenes, pd.DataFrame(summaries))
    return of_scenes


def organization(cloudy: np.ndarray, observed: np.ndarray, grid: Grid) -> dict[str, float]:
    """Cloud fraction and organisation of a scene, from bool [h, w] of cloudy and observed cells.

    Returns:
        cloud_fraction, share of the observed area; iorg; open_sky_largest and open_sky_mean, see
        `open_sky`. NaN if undefined.
    """
    area = float(observed.sum(axis=1) @ grid.row_areas)
    clouds = float(cloudy.sum(axis=1) @ grid.row_areas)
    middle = np.cos(np.radians(grid.lat.mean()))
    labels, number = scipy.ndimage.label(cloudy, np.ones((3, 3)))
    centers = scipy.ndimage.center_of_mass(cloudy, labels, range(1, number + 1))
    points = np.reshape(centers, (-1, 2))
    km = KM_PER_DEGREE * np.array([grid.cell[0], middle * grid.cell[1]])
    largest, mean = open_sky(cloudy, observed)
    return {
        "cloud_fraction": clouds / area if area else np.nan,
        "iorg": organization_index(points * km, area),
        "open_sky_largest": largest,
        "open_sky_mean": mean,
    }


def organization_index(points: np.ndarray, area: float) -> float:
    """Organisation index Iorg: above 0.5 if clouds cluster, below if they are regularly spaced.

    The area under the curve of the cumulative distribution of nearest-neighbour distances r, as a
    function of that of a Poisson process with as many clouds on the area, 1 - exp(-pi n / area r^2)
    (Tompkins and Semie, "Organization of tropical convection in low vertical wind shears", JAMES 9,
    2017). The curve is a step function, so the area is the mean of 1 minus the latter.

    Args:
        points: centres of the n clouds in km, [n, 2].
        area: observed area in km2.

    Returns:
        0 to 1; NaN for fewer than two clouds.
    """
    number = len(points)
    if number < 2 or area <= 0:
        return float("nan")
    distances, _ = scipy.spatial.cKDTree(points).query(points, k=2)
    return float(np.mean(np.exp(-np.pi * number / area * distances[:, 1] ** 2)))


def open_sky(cloudy: np.ndarray, observed: np.ndarray) -> tuple[float, float]:
    """Open sky: size of cloud-free areas around clear cells (Antonissen, TU Delft, 2019).

    For a clear cell, it is the product of the numbers of clear cells in its row and in its column
    that can be reached without crossing a cloud or an unobserved cell.

    Args:
        cloudy: bool [h, w].
        observed: bool [h, w].

    Returns:
        The largest and the mean open sky of the clear cells, as shares of the number of observed
        cells; NaN if there is no clear cell.
    """
    clear = observed & ~cloudy
    if not clear.any():
        return float("nan"), float("nan")
    sky = _run_lengths(clear) * _run_lengths(clear.T).T
    total = observed.sum()
    return float(sky.max() / total), float(sky[clear].mean() / total)


def _run_lengths(mask: np.ndarray) -> np.ndarray:
    """Length of the run along the row around each cell; 0 outside the mask."""
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    lengths = np.zeros(mask.shape, np.int64)
    lengths[mask] = np.repeat(ends - starts, ends - starts)
    return lengths
