"""Excluded areas, which do not count as observed: land, and masks such as of high clouds."""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from clouds_tf import files, gfile
from clouds_tf.geo import land as lands
from clouds_tf.geo.grid import Grid
from clouds_tf.manifest import file_identity
from clouds_tf.scenes.scene import naming

_SCENE = "{scene}"  # in the name of a mask: the name of the scene
_OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_MASK = re.compile(
    r"(?P<path>.+?)(?::(?P<variable>\w*)(?P<sign><=|>=|==|!=|<|>)(?P<number>[-+.\deE]+))?"
)
_GEOJSON, _RASTERS = (".geojson", ".json"), (".tif", ".tiff")
_ARRAYS = (".nc", ".nc4", ".zarr")


@dataclasses.dataclass(frozen=True)
class Mask:
    """A file that marks an area to exclude.

    Attributes:
        path: GeoJSON of polygons, a GeoTIFF, or NetCDF on latitude and longitude.
        variable: variable of NetCDF; "" for the only one, or for the first band of a GeoTIFF.
        condition: (operator, number), the condition for exclusion; None excludes all but 0.
    """

    path: str
    variable: str = ""
    condition: tuple[str, float] | None = None

    def of_scene(self, name: str) -> Mask:
        """The mask of a scene, if the path contains {scene}."""
        return dataclasses.replace(self, path=self.path.replace(_SCENE, name))


def parse_mask(flag: str, text: str) -> Mask:
    """Parses FILE or FILE:VARIABLE<NUMBER, such as F.nc:BT<280; a ValueError names the flag."""
    found = _MASK.fullmatch(text)
    path = found["path"] if found else text
    if not found or not path.lower().endswith(_GEOJSON + _RASTERS + _ARRAYS):
        raise ValueError(
            f"{flag}: got {text!r}, expected a file .geojson, .tif or .nc, with a condition if it "
            "is not a mask, such as F.nc:BT<280"
        )
    condition = None
    if found["sign"]:
        try:
            condition = found["sign"], float(found["number"])
        except ValueError:
            raise ValueError(f"{flag}: got {text!r}, expected a number at its end") from None
        if path.lower().endswith(_GEOJSON):
            raise ValueError(f"{flag}: {path} has polygons, which have no values to compare")
    return Mask(path, found["variable"] or "", condition)


def masks(land: str, ignore: Iterable[str]) -> Iterator[Mask]:
    """The mask files of --land and --ignore; ValueError for other texts."""
    if land not in ("auto", "none"):
        yield parse_mask("land", land)
    for text in ignore:
        yield parse_mask("ignore", text)


def require_files(land: str, ignore: Iterable[str]) -> None:
    """Raises FileNotFoundError if a mask for all scenes does not exist."""
    for mask in masks(land, ignore):
        if _SCENE not in mask.path and not gfile.exists(mask.path):
            raise FileNotFoundError(f"{mask.path}: no such file")


def identities(land: str, ignore: Iterable[str], name: str) -> list[str]:
    """Identities of the mask files of a scene, which change when the files do."""
    found = []
    for mask in masks(land, ignore):
        try:
            found.append(file_identity(mask.of_scene(name).path))
        except FileNotFoundError:
            found.append("")
    return found


def describe(land: str, ignore: Iterable[str]) -> tuple[str, str]:
    """Describes excluded area without folder names: land, and ignored masks."""
    shown = {"auto": f"not observed ({lands.SOURCE})", "none": "observed"}
    return (
        shown.get(land, f"not observed ({os.path.basename(land)})"),
        "; ".join(map(os.path.basename, ignore)) or "nothing",
    )


@functools.lru_cache(maxsize=1)  # scenes of many days often have one grid
def land_mask(grid: Grid) -> np.ndarray:
    """Whether the centre of each cell lies on land: bool [rows, columns]."""
    return _inside(lands.polygons(grid.extent), grid)


def _inside(polygons: Iterable[lands.Polygon], grid: Grid) -> np.ndarray:
    """Whether the centre of each cell lies in a polygon: bool [rows, columns]."""
    from rasterio.features import rasterize

    shapes = [
        {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon]}
        for polygon in polygons
    ]
    mask = np.zeros(grid.shape, np.uint8)
    if shapes:  # rasterio refuses an empty list
        rasterize(shapes, out=mask, transform=transform(grid))
    return mask > 0 if grid.north_first else mask[::-1] > 0


def transform(grid: Grid) -> Any:
    """The affine transform of rasterio, from (column, row) to (longitude, latitude)."""
    import rasterio

    return rasterio.transform.Affine(
        grid.cell[1], 0.0, grid.extent.lon_min, 0.0, -grid.cell[0], grid.extent.lat_max
    )


def excluded(grid: Grid, land: str, ignore: Iterable[str], name: str) -> np.ndarray:
    """Whether cells of a scene are excluded: bool [rows, columns].

    `land` is "auto" for the coasts in this package, "none", or a mask like those of `ignore`.

    Raises:
        FileNotFoundError, ValueError: a mask cannot be read, or does not overlap the scene.
    """
    result = land_mask(grid) if land == "auto" else np.zeros(grid.shape, bool)
    for mask in masks(land, ignore):
        mask = mask.of_scene(name)
        with naming(mask.path):
            result = result | _read(mask, grid)
    return result


def _read(mask: Mask, grid: Grid) -> np.ndarray:
    path = mask.path.lower()
    if path.endswith(_GEOJSON):
        return _inside(lands.shifted(lands.read_polygons(mask.path), grid.extent), grid)
    with files.local_copy(mask.path) as local:
        if path.endswith(_RASTERS):
            values = _raster_values(local, grid)
        else:
            from clouds_tf.scenes.arrays import values_on

            values = values_on(local, mask.variable or None, grid)
    missing = np.isnan(values)
    if missing.all():
        raise ValueError(f"has no value in {grid.extent}, where the scene is")
    if mask.condition is None:
        return ~missing & (values != 0)
    sign, number = mask.condition
    # Where there is no value, the condition is unknown.
    return missing | _OPERATORS[sign](values, number)


def _raster_values(path: str, grid: Grid) -> np.ndarray:
    """Values of the first band at the centres of cells, float32; NaN where there are none."""
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.warp import reproject

    values = np.full(grid.shape, np.nan, np.float32)
    try:
        with rasterio.Env(), rasterio.open(path, driver="GTiff") as source:
            if source.crs is None:
                raise ValueError("has no coordinate reference system")
            for turn in (0, -360, 360):  # GDAL supports longitudes of one turn only
                part = np.full(grid.shape, np.nan, np.float32)
                reproject(
                    rasterio.band(source, 1),
                    part,
                    dst_transform=rasterio.Affine.translation(turn, 0) @ transform(grid),
                    dst_crs="EPSG:4326",
                    dst_nodata=np.nan,
                    init_dest_nodata=True,
                )
                values = np.where(np.isnan(values), part, values)
    except RasterioError as error:
        raise ValueError(f"cannot be read: {str(error).splitlines()[0]}") from None
    return values
