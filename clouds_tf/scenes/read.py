"""Finds the scenes of a folder, and opens scenes of any format."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from clouds_tf import files, gfile
from clouds_tf.scenes.scene import Reading, Scene, naming, stem

RASTERS = (".tif", ".tiff", ".jpg", ".jpeg", ".png", ".jp2", ".webp")
ARRAYS = (".nc", ".nc4", ".zarr")
# Side files of images, and other output of the same programs, which are skipped silently.
_COMPANIONS = (
    *(".jgw", ".jpgw", ".jpegw", ".pgw", ".pngw", ".tfw", ".tifw", ".wld", ".prj", ".xml", ".ovr"),
    *(".csv", ".txt", ".json", ".geojson", ".md"),
)


def find(scenes: str) -> tuple[list[str], list[str], dict[str, str]]:
    """Lists the scenes of a folder, or of a pattern.

    Args:
        scenes: a folder, a file, or a pattern with * or ?; an existing path is not a pattern.

    Returns:
        Paths of scenes, sorted; names of other files, which are not read; and an error for each
        path whose scene has the same name as another one, since both would have the same outputs.

    Raises:
        FileNotFoundError: there is no scene.
    """
    files.require_local(scenes, "scenes")
    if scenes.lower().rstrip("/").endswith(ARRAYS) and gfile.exists(scenes):
        paths = [scenes]
    else:
        paths = files.list_paths(scenes)
    found, others, twins = [], [], {}
    stems: dict[str, str] = {}
    for path in paths:
        name = os.path.basename(path)
        if name.lower().endswith(RASTERS + ARRAYS):
            first = stems.setdefault(stem(path), path)
            found.append(path)
            if first != path:
                twins[path] = (
                    f"{path}: has the name of {first}, whose outputs would be the same files; "
                    "rename one"
                )
        elif not name.lower().endswith(_COMPANIONS):
            others.append(name)
    if not found:
        endings = ", ".join(RASTERS + ARRAYS)
        raise FileNotFoundError(f"{scenes}: no scenes; expected files that end in {endings}")
    return found, others, twins


def require_packages(paths: list[str]) -> None:
    """Checks that the packages for reading these files and writing scenes are installed."""
    files.require("rasterio", "geo", "a scene")
    files.require("h5netcdf", "geo", "a scene")
    if any(path.lower().endswith(ARRAYS) for path in paths):
        files.require("xarray", "geo", "NetCDF and zarr")
    if any(path.lower().endswith(".zarr") for path in paths):
        files.require("zarr", "geo", "zarr")


@contextlib.contextmanager
def open_scene(path: str, reading: Reading = Reading()) -> Iterator[Scene]:
    """Opens a scene: its rows can be read inside the `with` block.

    Args:
        path: a GeoTIFF, a COG, a JPEG, PNG, JPEG 2000 or WebP with a world file, with an extent in
            its name or with reading.extent; NetCDF or zarr on latitude and longitude.
        reading: fallback metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or too large, its values are not colours, or its position or date
            is missing; the message begins with the path and says what to do.
    """
    with naming(path):
        if path.lower().rstrip("/").endswith(ARRAYS):
            from clouds_tf.scenes.arrays import open_array as open_file
        else:
            from clouds_tf.scenes.rasters import open_raster as open_file
        with open_file(path, reading) as scene:
            yield scene
