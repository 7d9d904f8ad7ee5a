"""A table of the objects of scenes, and per scene how its clouds are organised."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import files
from clouds_tf.climatology import organization, scenes
from clouds_tf.geo import netcdf
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


def of_scene(scene: scenes.Scene) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The objects of a scene, a row each; and its cloud fraction and organisation.

    Cloudy is what `brightness` of the file is above 100 of 255, where it has one; otherwise what
    belongs to any pattern.
    """
    whole = slice(None)
    with netcdf.opened(scene.path) as file:
        mask = scenes.plane(file["mask"], whole)
        observed = scenes.plane(file["observed"], whole) > 0
        probabilities = [
            scenes.plane(file["probability"], whole, c) if "probability" in file else None
            for c in range(len(scene.class_names))
        ]
        scale = scenes.scale_of(file["probability"]) if "probability" in file else 1.0
        brightness = scenes.plane(file["brightness"], whole) if "brightness" in file else None
    rows = []
    for c, (name, probability) in enumerate(zip(scene.class_names, probabilities)):
        of_class = (mask >> c & 1).astype(bool) & observed
        values = np.full(mask.shape, np.nan) if probability is None else probability * scale
        for item in find_objects(of_class, values, scene.grid)[0]:
            rectangle = rectangle_in_km(item, scene.grid)
            shape = (rectangle.length, rectangle.width, rectangle.orientation)
            about = (scene.name, scene.date, name, item.area_km2, *item.centroid)
            rows.append((*about, *shape, item.mean_probability))
    cloudy = observed & ((mask > 0) if brightness is None else (brightness > 100))
    summary = {
        "scene": scene.name,
        "date": scene.date,
        "num_objects": len(rows),
        "cloudy": "patterns" if brightness is None else "brightness",
        **organization.measures(cloudy, observed, scene.grid),
    }
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS), summary


def write(pattern: str, path: str, on_error: str = "fail") -> int:
    """Writes the objects of all scenes as Parquet, and a row per scene as CSV next to it.

    Args:
        pattern: a folder of scenes, or a pattern.
        path: the Parquet file; the CSV is at `scenes_path(path)`.
        on_error: "fail", or "skip" to leave damaged scenes out.

    Returns:
        The number of objects.
    """
    files.require("pyarrow", "parquet", "objects")
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), float: pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    summaries, number = [], 0
    with files.written_whole(path) as temporary:
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for scene_path in scenes.find(pattern):
                try:
                    table, summary = of_scene(scenes.read(scene_path))
                except ValueError:
                    if on_error == "fail":
                        raise
                    continue
                rows = pyarrow.Table.from_pandas(table, schema, preserve_index=False)
                writer.write_table(rows)
                summaries.append(summary)
                number += len(table)
    files.write_frame(scenes_path(path), pd.DataFrame(summaries))
    return number


def scenes_path(path: str) -> str:
    """Path of the table of scenes for an output: O.parquet gives O_scenes.csv."""
    return os.path.splitext(path)[0] + "_scenes.csv"
