"""Scenes that rasterio (GDAL) reads: GeoTIFF, COG, and images with a world file or an extent."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
import tensorflow as tf
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT

from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import rows_within_poles
from clouds_tf.geo.names import named_date, named_extent, named_platform
from clouds_tf.scenes import read
from clouds_tf.scenes.read import Reading, Scene

# First bytes of a file -> driver of GDAL. Left to itself, GDAL opens VRT and the like too, which
# may name other files and addresses.
_DRIVERS = {
    rb"\xff\xd8\xff": "JPEG",
    rb"\x89PNG\r\n\x1a\n": "PNG",
    rb"II[*+]\0|MM\0[*+]": "GTiff",
    rb"RIFF....WEBP": "WEBP",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JP2OpenJPEG",
}
_PLAIN = ("JPEG", "PNG")  # what TensorFlow decodes too
_MAX_PIXELS_AT_ONCE = 2**27  # of an image or a block that is decoded as a whole
_ENVIRONMENT = {"GDAL_CACHEMAX": 256, "GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"}  # megabytes


@contextlib.contextmanager
def open_raster(path: str, reading: Reading) -> Iterator[Scene]:
    """Opens a raster; see `read.open_scene`."""
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(rasterio.Env(**_ENVIRONMENT))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = stack.enter_context(rasterio.open(path, driver=_driver(path)))
            _check_blocks(source, reading)
            bands = _bands(source, reading)
            located, place = source, _own_place(source)
            if place is None and source.crs is not None:
                located = stack.enter_context(_reprojected(source))
                read.check_pixels(located.shape, reading)
                place = _own_place(located)
            extent, rows = place or (None, range(located.height))
            if extent is None:
                extent = named_extent(read.stem(path)) or reading.extent
            if extent is None:
                raise ValueError(
                    "has no place on the map: no georeference, no world file, and no extent in its "
                    "name (..._-61--40_10-24.jpeg); give one with --extent="
                    "lon_min,lat_min,lon_max,lat_max"
                )
            yield Scene(
                path=path,
                extent=extent,
                size=(len(rows), located.width),
                date=_date(source, path, reading),
                platform=_platform(source, path),
                read=_reader(located, rows.start, bands, reading),
                is_plain_image=source.driver in _PLAIN and located is source,
                rows_at_a_time=located.block_shapes[0][0],
            )
    except (RasterioError, MemoryError) as error:
        raise ValueError(_reason(error)) from None


def _driver(path: str) -> str:
    with tf.io.gfile.GFile(path, "rb") as file:
        start = file.read(16)
    for pattern, driver in _DRIVERS.items():
        if re.match(pattern, start, re.DOTALL):
            return driver
    raise ValueError(
        f"is no TIFF, JPEG, PNG, WebP or JPEG 2000, its first bytes are {start[:8]!r}"
    )


def _reason(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
    return f"cannot be read: {lines[0]}"


def _check_blocks(source: Any, reading: Reading) -> None:
    """Refuses what would not fit into memory, before any pixel is decoded."""
    read.check_pixels(source.shape, reading)
    height, width = source.shape if source.driver != "GTiff" else source.block_shapes[0]
    if height * width > _MAX_PIXELS_AT_ONCE:
        raise ValueError(
            f"is decoded in blocks of {height} x {width} pixels (height x width), expected at most "
            f"{_MAX_PIXELS_AT_ONCE} pixels; make it a tiled GeoTIFF with gdal_translate -co "
            "TILED=YES"
        )


def _bands(source: Any, reading: Reading) -> tuple[int, ...]:
    """The bands of grey, or of red, green and blue; of a palette, its indices."""
    colors = source.colorinterp
    if reading.bands is not None:
        if max(reading.bands) > source.count:
            raise ValueError(f"has {source.count} bands, expected those of --bands={reading.bands}")
        bands = reading.bands
    else:
        bands = tuple(i for i in source.indexes if colors[i - 1] != ColorInterp.alpha)
        if len(bands) not in (1, 3) or ColorInterp.cyan in colors:
            raise ValueError(
                f"has {len(bands)} bands, expected 1 or 3; choose them with --bands=RED,GREEN,BLUE"
            )
    for i in bands:
        read.check_type(np.dtype(source.dtypes[i - 1]), reading.value_range)
    return bands


def _own_place(source: Any) -> tuple[Extent, range] | None:
    """The extent of a north-up raster on longitude and latitude, and the rows that are in it.

    None without a georeference, or with another one.
    """
    transform, crs = source.transform, source.crs
    if transform.is_identity or (crs is not None and not crs.is_geographic):
        return None
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        if crs is None:
            raise ValueError("is rotated, and has no coordinate reference system to undo that by")
        return None
    height, width = source.shape
    north, west = transform.f, transform.c
    first, last, north, south = rows_within_poles(
        north, north + height * transform.e, height
    )
    return Extent(west, south, west + width * transform.a, north), range(first, last)


def _reprojected(source: Any) -> Any:
    """A view of a projected or rotated raster on longitude and latitude, at its own resolution."""
    if source.transform.is_identity:
        raise ValueError(f"has the coordinate reference system {source.crs} but no place in it")
    options = {"src_nodata": source.nodata} if source.nodata is not None else {}
    has_alpha = ColorInterp.alpha in source.colorinterp
    is_palette = source.colorinterp[0] == ColorInterp.palette
    vrt = WarpedVRT(
        source,
        crs="EPSG:4326",
        resampling=Resampling.nearest if is_palette else Resampling.bilinear,
        add_alpha=not has_alpha and source.nodata is None,
        **options,
    )
    if vrt.transform.b or vrt.transform.d:
        raise ValueError("cannot be brought to longitude and latitude")
    return vrt


def _reader(source: Any, first: int, bands: tuple[int, ...], reading: Reading) -> Any:
    all_valid = all(flags == [MaskFlags.all_valid] for flags in source.mask_flag_enums)
    palette = None
    if len(bands) == 1 and source.colorinterp[bands[0] - 1] == ColorInterp.palette:
        palette = np.zeros((256, 4), np.uint8)
        for index, color in source.colormap(bands[0]).items():
            palette[index % 256] = color

    def read_rows(start: int, stop: int) -> np.ndarray:
        window = rasterio.windows.Window(0, first + start, source.width, stop - start)
        try:
            values = np.moveaxis(source.read(list(bands), window=window), 0, -1)
            valid = np.ones(values.shape[:2], bool)
            if not all_valid:
                valid = source.dataset_mask(window=window) > 0
        except RasterioError as error:
            raise ValueError(f"row {start}: {_reason(error)}") from None
        if palette is not None:
            colors = palette[values[..., 0]]
            values, valid = colors[..., :3], valid & (colors[..., 3] > 0)
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values).all(axis=2)
        return read.to_bytes(values, valid, reading.value_range if palette is None else None)

    return read_rows


def _date(source: Any, path: str, reading: Reading) -> datetime.datetime:
    date = named_date(read.stem(path))
    tag = source.tags().get("TIFFTAG_DATETIME", "")
    if date is None and tag:
        with contextlib.suppress(ValueError):
            date = datetime.datetime.strptime(tag, "%Y:%m:%d %H:%M:%S")
    date = date or reading.date
    if date is None:
        raise ValueError(
            "has no date in its name (20071227, 2007-12-27) or its tag TIFFTAG_DATETIME; give one "
            "with --date=YYYY-MM-DD"
        )
    return date


def _platform(source: Any, path: str) -> str:
    name = named_platform(os.path.basename(path))
    tags = source.tags()
    return name or named_platform(" ".join(tags.get(k, "") for k in sorted(tags)))
