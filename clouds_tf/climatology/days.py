"""One small CF NetCDF file per day: class fractions and coverage on a grid.

A folder of such files is the state of a climatology: days may be added in any order and number of
runs; each is stored once, whole or not at all. For diurnal cycles, a folder has a file for each
hour; for time series of scenes, one for each acquisition time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from clouds_tf import files, gfile
from clouds_tf.geo import netcdf
from clouds_tf.geo.grid import Grid
from clouds_tf.manifest import Manifest
from clouds_tf.messages import counted

# Long names of variables.
FRACTION = "share of the observed area that the pattern covers"
UNCLASSIFIED = "share of the observed area without any pattern"
COVERAGE = "share of the area that was observed"
SHARED = "share of the whole observed area that both patterns cover"

STEPS = ("day", "hour", "scene")
_KEY = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(\d{4})?)?")
_SETTINGS = "settings.json"


def key_of(seconds: int, step: str) -> str:
    """Key of the day, hour or moment of a time in seconds since 1970-01-01.

    >>> [key_of(1579701600, step) for step in STEPS]
    ['2020-01-22', '2020-01-22T14', '2020-01-22T140000']
    """
    time = str(np.datetime64(int(seconds), "s")).replace(":", "")
    return time[: {"day": 10, "hour": 13, "scene": 17}[step]]


def time_of(key: str) -> np.datetime64:
    """Beginning of a day, hour or moment."""
    clock = [key[i : i + 2] for i in (11, 13, 15) if key[i:]]
    return np.datetime64(key[:10] + "T"[: len(clock)] + ":".join(clock))


def span(key: str) -> tuple[float, float]:
    """Beginning and end of a day, hour or moment (equal) in days since 1970-01-01."""
    start = float(time_of(key).astype("datetime64[s]").astype(int) / 86400)
    return start, start + {10: 1, 13: 1 / 24}.get(len(key), 0)


@dataclasses.dataclass(frozen=True)
class DayFields:
    """Fields of one day on a grid of [h, w] cells, for C classes.

    Attributes:
        date: the day, such as "2017-01-31", or another key of `key_of`.
        fraction: float32 [C, h, w], share of the observed part of a cell that the class covers; 0
            where nothing was observed.
        unclassified: float32 [h, w], share of the observed part of a cell without any class; 0 if
            `Settings.has_classless` is false, like `shared`.
        coverage: float32 [h, w], share of a cell that was observed.
        shared: float64 [C, C], share of the whole observed area that two classes both cover, or on
            the diagonal, that one class covers.
    """

    date: str
    fraction: np.ndarray
    unclassified: np.ndarray
    coverage: np.ndarray
    shared: np.ndarray


@dataclasses.dataclass
class Areas:
    """Areas in km2 of one day on a grid of [h, w] cells.

    Attributes:
        covered: float64 [C, h, w], area of each class.
        nothing: float64 [h, w], observed area without any class.
        seen: float64 [h, w], observed area; an area in two views counts twice.
        shared: float64 [C, C], common area of two classes.
    """

    covered: np.ndarray
    nothing: np.ndarray
    seen: np.ndarray
    shared: np.ndarray

    @classmethod
    def zeros(cls, num_classes: int, grid: Grid) -> Areas:
        """Areas of zero, to add others to."""
        number, shape = num_classes, grid.shape
        return cls(*map(np.zeros, ((number, *shape), shape, shape, (number, number))))

    def fields(self, date: str, coverage: np.ndarray) -> DayFields:
        """Shares of a day, given the observed share of each cell [h, w]."""
        weight = np.where(self.seen > 0, self.seen, 1.0)
        shares = (self.covered / weight, self.nothing / weight, coverage)
        covered, nothing, coverage = (np.clip(x, 0, 1).astype(np.float32) for x in shares)
        total = max(self.seen.sum(), np.finfo(float).tiny)
        return DayFields(date, covered, nothing, coverage, self.shared / total)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings shared by all days in a folder.

    Attributes:
        grid: the grid of the fields.
        class_names: names of the classes, in their order.
        source: "boxes" or "scenes".
        measure: "boxes", or for scenes "mask" or "expected", see `merge.fields_of`.
        model_fingerprint: fingerprint of the model of the scenes, "" for boxes.
        resolution: degrees per cell of the scenes, 0 for boxes.
        step: time span of a file: a day, an hour, or the scenes of one moment.
        platforms: satellites whose scenes count; () for all.
    """

    grid: Grid
    class_names: tuple[str, ...]
    source: str = "boxes"
    measure: str = "boxes"
    model_fingerprint: str = ""
    resolution: float = 0.0
    step: str = "day"
    platforms: tuple[str, ...] = ()

    @property
    def has_classless(self) -> bool:
        """Whether days have areas without any class and of two classes.

        Masks and boxes do; expected areas are known for single classes only.
        """
        return self.measure != "expected"

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["grid"] = {"cell": self.grid.cell[0], "extent": list(self.grid.extent)}
        # Older folders lack these, and have days of all satellites.
        for name in ("step", "platforms"):
            if fields[name] == getattr(Settings, name):
                del fields[name]
        return json.loads(json.dumps(fields))

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Settings:
        """Reads what `to_json` wrote."""
        names, platforms = tuple(fields["class_names"]), tuple(fields.get("platforms", ()))
        known = {"grid": Grid(**fields["grid"]), "class_names": names, "platforms": platforms}
        return cls(**{**fields, **known})


def digest(*parts: bytes) -> str:
    """SHA-256 of the data of a day, by which a later run detects changes."""
    framed = (len(part).to_bytes(8, "big") + part for part in parts)
    return hashlib.sha256(b"".join(framed)).hexdigest()


class DayStore:
    """A folder with one NetCDF file per day.

    Args:
        folder: the folder, which `open` creates.
        settings: required settings of the days; None reads them from the folder.

    Raises:
        ValueError: the folder has days of another grid, other classes or another model; the message
            names the difference.
    """

    def __init__(self, folder: str, settings: Settings | None = None) -> None:
        self.folder = folder.rstrip("/")
        path = os.path.join(self.folder, _SETTINGS)
        if gfile.exists(path):
            try:
                known = Settings.from_json(files.parse_json(files.read_text(path)))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: is damaged ({error}); delete the folder") from None
            if settings is not None:
                _check_same(self.folder, known, settings)
            settings = known
        elif settings is None:
            raise FileNotFoundError(f"{self.folder}: not a folder of days (it has no {_SETTINGS})")
        self.settings = settings
        self.manifest = Manifest(self.folder, settings.to_json())

    def __repr__(self) -> str:
        return f"DayStore({self.folder!r}, {counted(len(self.dates()), self.settings.step)})"

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Reserves the folder for this process, which adds days, and its workers.

        Raises:
            ValueError: another process adds days to it.
        """
        with self.manifest.open():
            path = os.path.join(self.folder, _SETTINGS)
            if not gfile.exists(path):
                files.write_text(path, json.dumps(self.settings.to_json(), indent=2) + "\n")
            yield

    def path(self, date: str) -> str:
        """File of a day."""
        return os.path.join(self.folder, f"{date}.nc")

    def dates(self) -> list[str]:
        """All stored days, sorted."""
        names = files.list_names(self.folder)
        return [name[:-3] for name in names if name[-3:] == ".nc" and _KEY.fullmatch(name[:-3])]

    def write(self, fields: DayFields, digest: str, value: Any) -> None:
        """Writes the file of a day, whole or not at all, inside `open`.

        Args:
            fields: fields of the day.
            digest: digest of the data that they were made from.
            value: JSON-like value for the manifest, with "source", the names of these data.
        """
        observed, gap = fields.coverage > 0, np.float32(np.nan)
        bounds = span(fields.date)
        values = {
            "time": sum(bounds) / 2,
            "time_bnds": bounds,
            "fraction": np.where(observed, fields.fraction, gap),
            "coverage": fields.coverage,
        }
        if self.settings.has_classless:
            values["unclassified"] = np.where(observed, fields.unclassified, gap)
            values["co_occurrence"] = fields.shared
        attributes = {"date": fields.date, "source": value["source"], "digest": digest}
        name = os.path.basename(self.path(fields.date))
        with self.manifest.piece(fields.date, digest, [name]) as piece:
            piece.value = value
            template = _template(self.settings)
            netcdf.write_copy(self.path(fields.date), template, values, attributes)

    def read(self, date: str) -> DayFields:
        """Reads the file of a day; ValueError if it is damaged."""
        path = self.path(date)
        names = ["fraction", "coverage"]
        names += ["unclassified", "co_occurrence"] * self.settings.has_classless
        fraction, coverage, *rest = netcdf.read_variables(path, names)
        number, shape = len(self.settings.class_names), self.settings.grid.shape
        if fraction.shape != (number, *shape):
            raise ValueError(f"{path}: has another grid; delete it and repeat the command")
        unclassified, shared = rest or (np.zeros(shape, np.float32), np.zeros((number, number)))
        return DayFields(
            date, np.nan_to_num(fraction), np.nan_to_num(unclassified), coverage, shared
        )


def _check_same(folder: str, known: Settings, settings: Settings) -> None:
    for field in dataclasses.fields(Settings):
        old, new = getattr(known, field.name), getattr(settings, field.name)
        if old != new:
            name = field.name.replace("_", " ")
            raise ValueError(
                f"{folder}: has days with {name} {old}, got {name} {new}; choose another "
                "--output or --days_dir"
            )


@functools.lru_cache(maxsize=4)
def _template(settings: Settings) -> bytes:
    """A day's file without values, which h5py fills in.

    h5netcdf takes 50 ms to create the variables and axes of a file, h5py 5 ms to fill them.
    """
    buffer = io.BytesIO()
    with netcdf.new_file(buffer, "Cloud patterns of one day") as file:
        names = settings.class_names
        file.dimensions["other_class"] = len(names)
        netcdf.write_axes(file, settings.grid, names)
        netcdf.write_strings(file, "other_class", ("other_class",), names, "cloud pattern")
        netcdf.write_times(file, 0.5, [0, 1])
        variables: list[tuple[str, tuple[str, ...], Any, str]] = [
            ("fraction", ("class", "lat", "lon"), np.float32, FRACTION),
            ("coverage", ("lat", "lon"), np.float32, COVERAGE),
        ]
        if settings.has_classless:
            variables += [
                ("unclassified", ("lat", "lon"), np.float32, UNCLASSIFIED),
                ("co_occurrence", ("class", "other_class"), np.float64, SHARED),
            ]
        for name, dimensions, kind, long_name in variables:
            netcdf.new_variable(
                file,
                name,
                dimensions,
                kind,
                long_name,
                units="1",
                cell_methods="area: mean",
                coordinates="time",
            )
    return buffer.getvalue()
