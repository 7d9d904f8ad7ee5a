"""Compares a folder of days with labels of people, or with another folder of days."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Tuple

import numpy as np

from clouds_tf import figures, files, gfile
from clouds_tf.climatology import inputs
from clouds_tf.climatology.bootstrap import Draws, divide, draw, quantiles
from clouds_tf.climatology.days import DayStore, Settings
from clouds_tf.climatology.write import C3ONTEXT_NAMES
from clouds_tf.figures.climatology import daily_means
from clouds_tf.geo import netcdf
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid, outer_edges
from clouds_tf.scenes.scene import naming
from clouds_tf.settings import CheckedSettings, setting

COLUMNS = ("class", "measure", "value", "lower", "upper")
_LEAST = 0.05  # of the largest area that both observed on a day; days with less are left out

Fields = Tuple[np.ndarray, np.ndarray]  # shares [C, h, w] and coverage [h, w] of a day
Reader = Callable[[str], Fields]


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(CheckedSettings):
    """Settings of a validation."""

    num_resamples: int = setting(
        1000, "Number of bootstrap resamples for 95 % intervals; 0 disables them.", min=0
    )
    seed: int = setting(0, "Seed of the resamples.", min=0)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of two sets of days on one grid.

    Attributes:
        dates: the n common days.
        class_names: C names.
        means: float64 [2, n, C], daily means over the common observed area: ours, the reference's.
        rows: rows of the table, see COLUMNS; lower and upper ends are NaN if there is no interval.
        block_days: length of the bootstrap blocks in days; 0 for no intervals.
    """

    dates: tuple[str, ...]
    class_names: tuple[str, ...]
    means: np.ndarray = dataclasses.field(repr=False)
    rows: tuple[tuple[str, str, float, float, float], ...] = dataclasses.field(repr=False)
    block_days: int = 0


def validate(
    days_dir: str,
    reference: str,
    output: str,
    picture: str | None = None,
    comparison: Comparison = Comparison(),
) -> Agreement:
    """Compares days with a reference, and writes the table of their agreement.

    Args:
        days_dir: folder of days of `climatology.make`.
        reference: NetCDF with `freq(date, longitude, latitude, pattern)`, like C3ONTEXT; a table of
            boxes (.csv, .csv.gz); or another folder of days on the same grid.
        output: CSV to write.
        picture: PNG to write, daily means of each class against those of the reference; or None.
        comparison: settings.

    Raises:
        FileNotFoundError, ValueError: a file is missing or not as expected, an output cannot be
            written, or the two have fewer than two common days.
    """
    for path in filter(None, (output, picture)):
        files.check_output(path)
    if picture:
        files.require("matplotlib", "plots", "a picture")
    store = DayStore(days_dir)
    names, read_ours = store.settings.class_names, _reader(store)
    with tempfile.TemporaryDirectory() as folder:
        dates, read = _open_reference(reference, store.settings, folder)
        common = [date for date in store.dates() if date in dates]
        pairs = ((read_ours(date), read(date)) for date in common)
        agreement = compare(common, pairs, store.settings.grid, names, comparison)
    cells = (["" if cell != cell else cell for cell in row] for row in agreement.rows)  # NaN
    files.write_table(output, COLUMNS, cells)
    if picture:
        figures.save(daily_means(agreement.means, names, os.path.basename(reference)), picture)
    return agreement


def _reader(store: DayStore) -> Reader:
    def read(date: str) -> Fields:
        fields = store.read(date)
        return fields.fraction, fields.coverage

    return read


def _open_reference(path: str, settings: Settings, folder: str) -> tuple[set[str], Reader]:
    """The days of a reference, and a function that reads one of them."""
    if path.endswith((".csv", ".csv.gz")):
        boxes = DayStore(folder, Settings(settings.grid, settings.class_names))
        inputs.add_boxes(boxes, path)
        return set(boxes.dates()), _reader(boxes)
    if path.endswith(".nc"):
        return _open_frequencies(path, settings)
    if not gfile.isdir(path):
        raise FileNotFoundError(
            f"{path}: no such reference, expected NetCDF with freq, a CSV of boxes, or a folder of "
            "days"
        )
    other = DayStore(path)
    for name in ("grid", "class_names"):
        got, expected = (getattr(x, name) for x in (other.settings, settings))
        if got != expected:
            raise ValueError(f"{path}: {name}: got {got}, expected {expected}")
    return set(other.dates()), _reader(other)


def _open_frequencies(path: str, settings: Settings) -> tuple[set[str], Reader]:
    """Opens a file in the layout of C3ONTEXT; its days are regridded by area."""
    names = ("date", "longitude", "latitude", "pattern", "freq")
    date, lon, lat, pattern, freq = netcdf.read_variables(path, names)
    with netcdf.opened(path) as file:
        units = str(netcdf.plain_attributes(file["date"]).get("units", ""))
        about = netcdf.plain_attributes(file["freq"])
    unit, since, epoch = (*units.split(" ", 2), "", "")[:3]
    if unit not in ("days", "hours", "seconds") or since != "since" or freq.ndim != 4:
        raise ValueError(
            f"{path}: expected freq(date, longitude, latitude, pattern), with date in days, hours "
            f"or seconds since a date, got {freq.ndim} dimensions and {units!r}"
        )
    steps = np.rint(date * {"days": 86400, "hours": 3600, "seconds": 1}[unit])
    moments = np.datetime64(epoch[:10]) + steps.astype("timedelta64[s]")
    days = {str(moment)[:10]: i for i, moment in enumerate(moments.astype("datetime64[D]"))}
    labels = [p.decode() if isinstance(p, bytes) else str(p) for p in pattern]
    names_of = {spelling: name for name, spelling in C3ONTEXT_NAMES.items()}
    places = {names_of.get(label, label): i for i, label in enumerate(labels)}
    missing = [name for name in settings.class_names if name not in places]
    if missing:
        raise ValueError(f"{path}: no pattern {', '.join(missing)}, it has {', '.join(labels)}")
    chosen = [places[name] for name in settings.class_names]
    source, flip = _grid_of(path, lon, lat)
    down, across = settings.grid.shared(source)
    fill, scale = about.get("_FillValue"), about.get("scale_factor", 1.0)

    def read(day: str) -> Fields:
        raw = np.asarray(freq[days[day]])[..., chosen].transpose(2, 1, 0)[:, ::flip]
        values = np.where(raw == fill, np.nan, raw * scale).astype(float)
        seen = np.isfinite(values).all(axis=0)
        area = down @ seen @ across.T
        sums = down @ np.where(seen, values, 0) @ across.T
        return sums / np.where(area > 0, area, 1), area / settings.grid.areas

    return set(days), read


def _grid_of(path: str, lon: np.ndarray, lat: np.ndarray) -> tuple[Grid, int]:
    """The grid of regular centres, south first, and the step of rows: -1 if they are reversed."""
    with naming(path):
        first, last = outer_edges("latitude", lat)
        west, east = outer_edges("longitude", lon)
        extent = Extent(west, min(first, last), east, max(first, last))
        cell = (extent.degrees[0] / len(lat), extent.degrees[1] / len(lon))
        return Grid(cell, extent), 1 if first < last else -1


def compare(
    dates: Sequence[str],
    pairs: Iterable[tuple[Fields, Fields]],
    grid: Grid,
    class_names: Sequence[str],
    comparison: Comparison = Comparison(),
) -> Agreement:
    """Measures the agreement of two sets of fields.

    Cells are weighted by the area that both observed. Days with less than 5 % of the largest such
    area are left out.

    Args:
        dates: days, sorted.
        pairs: for each day our fields and the reference's; only one day is in memory.

    Raises:
        ValueError: fewer than two days can be compared.
    """
    areas, sums_of_days = [], []
    for (ours, seen), (theirs, also_seen) in pairs:
        area = np.minimum(seen, also_seen) * grid.areas
        areas.append(area.sum())
        sums_of_days.append(_sums(ours, theirs, area))
    least = _LEAST * max(areas, default=0)
    kept = [i for i, area in enumerate(areas) if area > least]
    if len(kept) < 2:
        raise ValueError(
            f"{len(kept)} days with a common observed area, expected at least 2; of {len(dates)} "
            "common days"
        )
    days = tuple(dates[i] for i in kept)
    sums = np.array([sums_of_days[i] for i in kept])
    means = np.moveaxis(sums[..., 1:3] / sums[..., :1], -1, 0)
    draws = draw(days, np.concatenate(means, axis=1), comparison.num_resamples, comparison.seed)
    ours, theirs = means
    daily = _terms(ours, theirs)
    same = (ours.argmax(axis=1) == theirs.argmax(axis=1)) & (theirs.max(axis=1) > 0)
    measures: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
        "mean": (daily, lambda s: s[..., 1] / s[..., 0]),
        "reference mean": (daily, lambda s: s[..., 2] / s[..., 0]),
        "bias": (daily, lambda s: (s[..., 1] - s[..., 2]) / s[..., 0]),
        "ratio": (daily, lambda s: divide(s[..., 1], s[..., 2])),
        "correlation of daily means": (daily, _correlation),
        "correlation of cells": (sums, _correlation),
    }
    rows = []
    for c, name in enumerate(class_names):
        for measure, (parts, function) in measures.items():
            rows.append((name, measure, *_interval(parts[:, c], function, draws)))
    counted = np.stack([theirs.max(axis=1) > 0, same], axis=-1).astype(float)
    most = _interval(counted, lambda s: divide(s[..., 1], s[..., 0]), draws)
    rows.append(("all", "most common class is the same", *most))
    return Agreement(
        days, tuple(class_names), means, tuple(rows), draws.days if draws is not None else 0
    )


def _sums(x: np.ndarray, y: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Sums of `_terms` over the cells of a day, weighted by area: float64 [C, 6]."""
    x, y = (np.where(area > 0, values, 0).astype(float) for values in (x, y))
    return np.einsum("chwk,hw->ck", _terms(x, y), area)


def _terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The values whose sums `_correlation` needs: 1, x, y, xx, yy and xy, [..., 6]."""
    return np.stack([np.ones_like(x), x, y, x**2, y**2, x * y], axis=-1)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation from sums of `_terms`; NaN if one of the two does not vary."""
    weight, x, y, xx, yy, xy = np.moveaxis(sums / np.maximum(sums[..., :1], 1e-300), -1, 0)
    spread = np.maximum(xx - x**2, 0) * np.maximum(yy - y**2, 0)
    return divide(xy - x * y, np.where(spread > 1e-18, np.sqrt(spread), 0))


def _interval(
    parts: np.ndarray, function: Callable[[np.ndarray], np.ndarray], draws: Draws | None
) -> tuple[float, float, float]:
    """A function of the sum of parts [n, k] over days, with its bootstrap interval."""
    value = float(function(parts.sum(axis=0)))
    if draws is None:
        return value, np.nan, np.nan
    lower, upper = quantiles(function(draws.counts.astype(float) @ parts))
    return value, float(lower), float(upper)
