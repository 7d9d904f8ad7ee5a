"""The results of scenes in a folder: their files, and scenes.csv."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clouds_tf import figures, files, gfile
from clouds_tf.figures.images import scene_maps
from clouds_tf.manifest import Manifest, checksum, file_identity
from clouds_tf.prediction.likeness import known
from clouds_tf.scenes import exclude
from clouds_tf.scenes.jobs import FORMATS, Options
from clouds_tf.scenes.masks import ClassAreas, Prediction, measure, objects_of
from clouds_tf.scenes.scene import stem

SCENES_CSV = "scenes.csv"
_VERSION = 2  # of the windows and files of a scene
_COLUMNS = (
    *("scene", "date", "platform", "class", "present", "area_km2", "share"),
    *("expected_share", "objects", "observed_km2", "likeness"),
)


class Results(Manifest):
    """The results of a model in a folder: files, an entry for each scene, and scenes.csv.

    The value of a piece has the `path` of the scene; its `rows` of scenes.csv; `num_windows`;
    `warning`; `likeness`, or None; and `left_out`, whether the likeness was too low, so that there
    are no files.

    Raises:
        ValueError: the folder was written by an earlier version.
    """

    def __init__(self, folder: str, identity: str, options: Options) -> None:
        if gfile.isdir(os.path.join(folder, "cards")):
            raise ValueError(
                f"{folder}: has scenes of an earlier version of predict_scenes; use another "
                "folder, or delete this one"
            )
        self.options = options
        scale = {"overlap": options.overlap, "resolution": options.resolution}
        super().__init__(folder, {"version": _VERSION, "model": identity, **scale})

    def source(self, path: str) -> str:
        """Checksum of a scene's file and all options that influence the results."""
        options = dataclasses.replace(self.options, batch_size=1)
        try:
            identity = file_identity(path)
        except FileNotFoundError:
            identity = ""
        masks = exclude.identities(options.land, options.ignore, stem(path))
        return checksum([identity, *masks, repr(options)])

    def file_names(self, path: str) -> dict[str, str]:
        """The file name of a scene for each format."""
        return {key: stem(path) + FORMATS[key] for key in self.options.formats}

    def has(self, path: str) -> bool:
        """Whether a scene was predicted with these options and its files exist."""
        piece = self.read(stem(path))
        if piece is None or not self.is_done(stem(path), self.source(path)):
            return False
        left_out = piece.value.get("left_out")
        return bool(left_out) or set(piece.files) == set(self.file_names(path).values())

    def remove_gone(self, paths: Sequence[str]) -> None:
        """Removes results of scenes that were removed or renamed, so that none counts twice."""
        names = {stem(path) for path in paths}

        def is_there(name: str) -> bool:
            piece = self.read(name)
            return piece is not None and gfile.exists((piece.value or {}).get("path", ""))

        self.prune(lambda name: name in names or is_there(name))

    def write_csv(self) -> str:
        """Writes scenes.csv of all successful scenes; returns its path."""
        path = os.path.join(self.folder, SCENES_CSV)
        pieces = (piece for piece in self.pieces() if not piece.error)
        rows = [tuple(row) for piece in pieces for row in piece.value["rows"]]
        files.write_table(path, _COLUMNS, rows)
        return path


def _rows(prediction: Prediction, numbers: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """The rows of scenes.csv of a scene, from the numbers of each class."""
    observed = float(prediction.observed.sum(axis=1) @ prediction.grid.row_areas)
    about = (prediction.name, prediction.date.isoformat(), prediction.platform)
    common = (round(observed, 3), known(prediction.likeness))
    return [(*about, name, *some, *common) for name, some in zip(prediction.class_names, numbers)]


def _numbers(item: ClassAreas) -> tuple[Any, ...]:
    """The numbers of a class in scenes.csv; without shares if nothing was observed."""
    shares = (
        None if math.isnan(value) else round(value, 6)
        for value in (item.share, item.expected_share)
    )
    return (int(item.present), round(item.area_km2, 3), *shares, item.objects)


def draw(*predictions: Prediction, num_columns: int = 1) -> Any:
    """Draws scenes with their masks, with coordinates on the axes."""
    return scene_maps(
        [
            {
                "title": f"{prediction.name}\n{prediction.date:%Y-%m-%d} {prediction.platform}",
                "image": prediction.image,
                "masks": prediction.masks & prediction.observed,
                "observed": prediction.observed,
                "extent": prediction.grid.extent,
                "class_names": prediction.class_names,
            }
            for prediction in predictions
        ],
        num_columns,
    )


def write_files(
    prediction: Prediction, output_dir: str, names: Mapping[str, str]
) -> list[tuple[Any, ...]]:
    """Writes all files of a scene; returns its rows of scenes.csv."""
    from clouds_tf.scenes import write

    if not names:
        return _rows(prediction, [[None] * 5] * len(prediction.class_names))
    found = objects_of(prediction)
    writers: dict[str, Callable[[str], None]] = {
        "netcdf": lambda path: write.write_netcdf(path, prediction),
        "cog": lambda path: write.write_cog(path, prediction, path + ".scratch"),
        "geojson": lambda path: write.write_geojson(path, write.features(prediction, found)),
        "geoparquet": lambda path: write.write_geoparquet(path, write.features(prediction, found)),
        "picture": lambda path: figures.save(draw(prediction), path),
    }

    def write_file(key: str) -> None:
        local = os.path.join(folder, names[key])
        writers[key](local)
        with files.written_whole(os.path.join(output_dir, names[key])) as temporary:
            gfile.copy(local, temporary)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(write_file, names))
    areas = measure(prediction, [len(objects) for objects, _ in found])
    return _rows(prediction, list(map(_numbers, areas)))
