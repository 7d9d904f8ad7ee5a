"""Scenes whose rows are read on demand, and the mapping of their values to colours."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator
from typing import Optional

import numpy as np

from clouds_tf import gfile
from clouds_tf.geo.extent import Extent, parse_extent
from clouds_tf.geo.names import parse_date
from clouds_tf.prediction import stretch as stretches
from clouds_tf.settings import CheckedSettings, setting

MAX_PIXELS = 2**32  # of a scene: the globe at 0.004 degrees


@dataclasses.dataclass(frozen=True)
class Scene:
    """A georeferenced scene whose rows are read on demand.

    Attributes:
        path: the file.
        extent: outer edges of the pixels.
        size: (height, width) in pixels, north up.
        date: acquisition time, UTC.
        platform: the satellite, "" if unknown.
        read: a function (start, stop) that reads rows: uint8 [stop - start, width, 4], red, green,
            blue, and 255 where there is data or 0 where there is none.
        is_plain_image: whether a JPEG or PNG decoder gives the same pixels.
        rows_at_a_time: rows of a block in the file, which are best read together.
        ignores_range: whether the values are colours, to which a value range does not apply.
    """

    path: str
    extent: Extent
    size: tuple[int, int]
    date: datetime.datetime
    platform: str
    read: Callable[[int, int], np.ndarray] = dataclasses.field(repr=False)
    is_plain_image: bool = False
    rows_at_a_time: int = 1
    ignores_range: bool = False

    @property
    def pixel(self) -> tuple[float, float]:
        """Size of a pixel in degrees: (latitude, longitude)."""
        height, width = self.extent.degrees
        return height / self.size[0], width / self.size[1]


def parse_bands(text: str) -> tuple[int, ...]:
    """Parses comma-separated numbers of bands; ValueError for anything else."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise ValueError(f"bands: got {text!r}, expected comma-separated numbers") from None


@dataclasses.dataclass(frozen=True, repr=False)
class Reading(CheckedSettings):
    """Fallback metadata for files that lack it, and how values are mapped to 0..255."""

    extent: Optional[Extent] = setting(
        None,
        "Extent lon_min,lat_min,lon_max,lat_max in degrees, for scenes without a georeference.",
        parse=parse_extent,
    )
    date: Optional[datetime.datetime] = setting(
        None, "Date of scenes without a date: YYYY-MM-DD[THH:MM], UTC.", parse=parse_date
    )
    value_range: Optional[tuple[float, ...]] = setting(
        None, "LOW,HIGH: values mapped to black and white, for data that is not 8-bit."
    )
    stretch: str = setting("none", f"Brightness curve for the pixels of scenes: {stretches.MODES}.")
    bands: Optional[tuple[int, ...]] = setting(
        None,
        "Numbers of the bands for red, green and blue, or of a single band; the first is 1.",
        parse=parse_bands,
    )
    variable: Optional[str] = setting(None, "Variable of NetCDF and zarr; default: the only one.")
    max_scene_pixels: int = setting(MAX_PIXELS, "Refuse scenes with more pixels.", min=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        stretches.check(self.stretch)
        values = self.value_range
        if values is not None and not (len(values) == 2 and values[0] < values[1]):
            raise ValueError(f"value_range: got {values}, expected the lowest and a higher value")
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise ValueError(f"bands: got {self.bands}, expected one or three numbers from 1")


def stem(path: str) -> str:
    """The name of a scene: its file name without extension."""
    return os.path.splitext(os.path.basename(path.rstrip("/")))[0]


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Context for reading a file, in which messages of ValueErrors get its path as a prefix.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        yield
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(path) else f"{path}: {message}") from None


def check_pixels(size: tuple[int, int], reading: Reading) -> None:
    """Raises ValueError for a scene without pixels or with too many."""
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"has {height} x {width} pixels (height x width), expected at least 1 x 1")
    if height * width > reading.max_scene_pixels:
        raise ValueError(
            f"has {height} x {width} pixels (height x width), more than the "
            f"{reading.max_scene_pixels} of --max_scene_pixels"
        )


def to_bytes(
    values: np.ndarray, valid: np.ndarray, value_range: tuple[float, ...] | None
) -> np.ndarray:
    """Converts the values of one or three bands to red, green, blue and a data flag (0 or 255).

    Args:
        values: [h, w, 1] or [h, w, 3], of any type.
        valid: bool [h, w], where there is data.
        value_range: the values mapped to 0 and 255; uint8 values stay unchanged.

    Returns:
        uint8 [h, w, 4], planes in memory; black where there is no data.
    """
    if values.dtype != np.uint8:
        assert value_range is not None  # checked by check_type
        low, high = value_range
        scaled = (values.astype(np.float32) - low) * (255 / (high - low))
        valid = valid & np.isfinite(scaled).all(axis=2)
        values = np.rint(np.clip(np.nan_to_num(scaled), 0, 255)).astype(np.uint8)
    result = np.empty((4, *valid.shape), np.uint8)
    result[:3] = np.moveaxis(values, -1, 0)
    result[3] = valid.view(np.uint8) * 255
    if not valid.all():
        result *= valid.view(np.uint8)
    return np.moveaxis(result, 0, -1)


def check_type(dtype: np.dtype, value_range: tuple[float, ...] | None) -> None:
    """Raises ValueError for values that need a value_range and have none."""
    if not np.issubdtype(dtype, np.number) or np.issubdtype(dtype, np.complexfloating):
        raise ValueError(f"has values of type {dtype}, expected numbers")
    if dtype != np.uint8 and value_range is None:
        raise ValueError(
            f"has values of type {dtype}, expected uint8; set the values of black and white with "
            "--value_range, such as --value_range=0,65535 or --value_range=0,1"
        )
