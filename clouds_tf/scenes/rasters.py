"""Reads scenes with rasterio (GDAL): GeoTIFF, COG, and images with a world file or an extent."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from clouds_tf import gfile
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import rows_within_poles
from clouds_tf.geo.names import named_date, named_extent, named_platform
from clouds_tf.scenes import scene as scenes
from clouds_tf.scenes.projected import reprojected
from clouds_tf.scenes.scene import Reading, Scene, stem

# First bytes of a file -> driver of GDAL, which would otherwise also open formats such as VRT that
# can refer to other files and addresses.
_DRIVERS = {
    rb"\xff\xd8\xff": "JPEG",
    rb"\x89PNG\r\n\x1a\n": "PNG",
    rb"II[*+]\0|MM\0[*+]": "GTiff",
    rb"RIFF....WEBP": "WEBP",
    rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51": "JP2OpenJPEG",
}
_PLAIN = ("JPEG", "PNG")  # TensorFlow can decode these, too
_MAX_PIXELS_AT_ONCE = 2**27  # of an image or block that is decoded as a whole
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
            if place is None and (source.crs is not None or source.gcps[0]):
                view, extent = reprojected(source)
                located = stack.enter_context(view)
                scenes.check_pixels(located.shape, reading)
                place = _Place(extent, range(located.height))
            if place is None:
                fallback = named_extent(stem(path)) or reading.extent
                if fallback is None:
                    raise ValueError(
                        "has no position: no georeference, no world file, and no extent in its "
                        "name (..._-61--40_10-24.jpeg); set one with --extent="
                        "lon_min,lat_min,lon_max,lat_max"
                    )
                place = _Place(fallback, range(located.height))
            is_bytes = all(source.dtypes[i - 1] == "uint8" for i in bands)
            same = located is source and reading.bands is None and place.mirror == (1, 1)
            yield Scene(
                path=path,
                extent=place.extent,
                size=(len(place.rows), located.width),
                date=_date(source, path, reading),
                platform=_platform(source, path),
                read=_reader(located, source, place, bands, reading),
                is_plain_image=source.driver in _PLAIN and is_bytes and same,
                rows_at_a_time=located.block_shapes[0][0],
                ignores_range=is_bytes and not _is_scaled(source, bands),
            )
    except (RasterioError, MemoryError) as error:
        raise ValueError(_reason(error)) from None


def _driver(path: str) -> str:
    with gfile.opened(path, "rb") as file:
        start = file.read(16)
    for pattern, driver in _DRIVERS.items():
        if re.match(pattern, start, re.DOTALL):
            return driver
    raise ValueError(f"is not a TIFF, JPEG, PNG, WebP or JPEG 2000: it begins with {start[:8]!r}")


def _reason(error: Exception) -> str:
    lines = str(error.__cause__ or error).splitlines() or [type(error).__name__]
    return f"cannot be read: {lines[0]}"


def _check_blocks(source: Any, reading: Reading) -> None:
    """Raises ValueError for rasters that would not fit into memory, before decoding."""
    scenes.check_pixels(source.shape, reading)
    height, width = source.shape if source.driver != "GTiff" else source.block_shapes[0]
    if height * width > _MAX_PIXELS_AT_ONCE:
        raise ValueError(
            f"is decoded in blocks of {height} x {width} pixels (height x width), expected at most "
            f"{_MAX_PIXELS_AT_ONCE} pixels; make it a tiled GeoTIFF with gdal_translate -co "
            "TILED=YES"
        )


def _bands(source: Any, reading: Reading) -> tuple[int, ...]:
    """The bands of grey, or of red, green and blue; for a palette, that of its indices."""
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
        stored = "float32" if _is_scaled(source, bands) else source.dtypes[i - 1]
        scenes.check_type(np.dtype(stored), reading.value_range)
    return bands


def _is_scaled(source: Any, bands: tuple[int, ...]) -> bool:
    """Whether the file has a scale or an offset for its values."""
    return any((source.scales[i - 1], source.offsets[i - 1]) != (1, 0) for i in bands)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Location of a raster: extent, rows within it, and -1 for each reversed axis."""

    extent: Extent
    rows: range
    mirror: tuple[int, int] = (1, 1)


def _own_place(source: Any) -> _Place | None:
    """Location of a raster on longitude and latitude; None if it has another georeference."""
    transform, crs = source.transform, source.crs
    if transform.is_identity or (crs is not None and not crs.is_geographic):
        return None
    if transform.b or transform.d:
        if crs is None:
            raise ValueError("is rotated, but has no coordinate reference system to reproject from")
        return None
    height, width = source.shape
    mirror = (1 if transform.e < 0 else -1, 1 if transform.a > 0 else -1)
    north, south = sorted((transform.f, transform.f + height * transform.e), reverse=True)
    west, east = sorted((transform.c, transform.c + width * transform.a))
    first, last, north, south = rows_within_poles(north, south, height)
    return _Place(Extent(west, south, east, north), range(first, last), mirror)


def _reader(
    located: Any, source: Any, place: _Place, bands: tuple[int, ...], reading: Reading
) -> Any:
    """Makes a function that reads rows from north to south; `located` is a view of `source`."""
    all_valid = all(flags == [MaskFlags.all_valid] for flags in located.mask_flag_enums)
    down, across = (slice(None, None, step) for step in place.mirror)
    scales, offsets = (
        np.array([values[i - 1] for i in bands], np.float32)
        for values in (source.scales, source.offsets)
    )
    palette = None
    if len(bands) == 1 and source.colorinterp[bands[0] - 1] == ColorInterp.palette:
        palette = np.zeros((256, 4), np.uint8)
        for index, color in source.colormap(bands[0]).items():
            palette[index % 256] = color

    def read_rows(start: int, stop: int) -> np.ndarray:
        start, stop = start + place.rows.start, stop + place.rows.start
        if place.mirror[0] < 0:
            start, stop = located.height - stop, located.height - start
        window = rasterio.windows.Window(0, start, located.width, stop - start)
        try:
            values = np.moveaxis(located.read(list(bands), window=window), 0, -1)
            valid = np.ones(values.shape[:2], bool)
            if not all_valid:
                valid = located.dataset_mask(window=window) > 0
        except RasterioError as error:
            raise ValueError(f"row {start}: {_reason(error)}") from None
        values, valid = values[down, across], valid[down, across]
        if palette is not None:
            colors = palette[values[..., 0]]
            values, valid = colors[..., :3], valid & (colors[..., 3] > 0)
        elif _is_scaled(source, bands):
            values = values * scales + offsets
        return scenes.to_bytes(values, valid, reading.value_range)

    return read_rows


def _date(source: Any, path: str, reading: Reading) -> datetime.datetime:
    date = named_date(stem(path))
    tag = source.tags().get("TIFFTAG_DATETIME", "")
    if date is None and tag:
        with contextlib.suppress(ValueError):
            date = datetime.datetime.strptime(tag, "%Y:%m:%d %H:%M:%S")
    date = date or reading.date
    if date is None:
        raise ValueError(
            "has no date in its name (20071227, 2007-12-27) or its tag TIFFTAG_DATETIME; set one "
            "with --date=YYYY-MM-DD"
        )
    return date


def _platform(source: Any, path: str) -> str:
    name = named_platform(os.path.basename(path))
    tags = source.tags()
    return name or named_platform(" ".join(tags.get(k, "") for k in sorted(tags)))
