"""Class fractions along the track of a ship, an aircraft or a drifter."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import scipy

from clouds_tf.climatology import bootstrap
from clouds_tf.climatology.days import DayFields, DayStore
from clouds_tf.data.csv_tables import read_table
from clouds_tf.geo.grid import Grid

COLUMNS = ("time", "latitude", "longitude")


def read(path: str) -> pd.DataFrame:
    """Reads a track.

    Args:
        path: a CSV with the columns time (UTC, such as 2020-01-31T12:00), latitude and longitude in
            degrees; other columns are ignored.

    Returns:
        A table with these columns, in the order of the file: datetime64, float64, float64.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or a row is faulty; the message names file and line.
    """
    table = read_table(path, COLUMNS)
    times = pd.to_datetime(table["time"], errors="coerce", utc=True, format="ISO8601")
    lat, lon = (pd.to_numeric(table[name], errors="coerce") for name in COLUMNS[1:])
    for name, good, expected in (
        ("time", times.notna(), "a time such as 2020-01-31T12:00"),
        ("latitude", lat.abs() <= 90, "-90 to 90"),
        ("longitude", lon.abs() <= 360, "-180 to 180"),
    ):
        if not good.all():
            row = (~good).idxmax()
            got = table.loc[row, name]
            raise ValueError(f"{path}, line {row}: {name} {got!r}, expected {expected}")
    times = times.dt.tz_localize(None)
    return pd.DataFrame({"time": times, "latitude": lat, "longitude": lon})


def along(store: DayStore, track: pd.DataFrame) -> pd.DataFrame:
    """Interpolates daily fields along a track.

    Interpolation is bilinear between cell centres, weighted by coverage. Each position uses its
    day or, if that is missing, the nearest one; of two equally near ones, the earlier.

    Args:
        store: the days, at least one.
        track: a track of `read`.

    Returns:
        The track with the columns date (the day that was used), days_off (by how many days it is
        later than the position), one share per class, unclassified (for masks and boxes), and
        coverage (observed share around the position; 0 outside the grid, where shares are blank).
    """
    dates = store.dates()
    days = np.array(dates, "datetime64[D]")
    times = track["time"].to_numpy().astype("datetime64[s]")
    # The last day that has begun, and the next one.
    before = np.maximum(np.searchsorted(days, times, side="right") - 1, 0)
    after = np.minimum(before + 1, len(days) - 1)
    since_end = times - (days[before] + 1).astype("datetime64[s]")
    until_start = days[after].astype("datetime64[s]") - times
    is_over = (since_end >= np.timedelta64(0)) & (after > before)
    nearest = np.where(is_over & (until_start < since_end), after, before)
    lat, lon = track["latitude"].to_numpy(), track["longitude"].to_numpy()
    names = [*store.settings.class_names, "unclassified", "coverage"]
    days_off = (days[nearest] - times.astype("datetime64[D]")).astype(int)
    values = np.full((len(track), len(names)), np.nan)
    for day in np.unique(nearest):
        rows = np.flatnonzero(nearest == day)
        fields = store.read(dates[day])
        values[rows] = interpolate(fields, store.settings.grid, lat[rows], lon[rows])
    found = track.assign(date=[dates[day] for day in nearest], days_off=days_off)
    found = found.assign(**dict(zip(names, values.T)))
    return found if store.settings.has_classless else found.drop(columns="unclassified")


def interpolate(day: DayFields, grid: Grid, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Interpolates the fields of a day at n positions.

    Returns:
        float64 [n, C + 2]: shares of the classes and unclassified, NaN where nothing was observed,
        and coverage.
    """
    west, south = grid.extent[:2]
    y = (lat - south) / grid.cell[0] - 0.5
    x = (lon - west) % 360 / grid.cell[1] - 0.5
    # Positions up to half a cell west of the western edge are almost a turn east of it.
    inside = (lat >= south) & (lat <= grid.extent[3]) & (x <= grid.shape[1] - 0.5)
    fields = [*day.fraction, day.unclassified, np.ones_like(day.coverage)]
    # Beyond the outermost centres, the outermost cells are used.
    weighted = np.pad(day.coverage * fields, ((0, 0), (1, 1), (0, 0)), "edge").astype(float)
    weighted = np.pad(weighted, ((0, 0), (0, 0), (1, 1)), "wrap" if grid.periodic else "edge")
    places = np.stack([y, x]) + 1
    *top, coverage = (inside * scipy.ndimage.map_coordinates(w, places, order=1) for w in weighted)
    shares = [bootstrap.divide(values, coverage) for values in top]
    return np.stack([*shares, coverage], axis=1)


def table_path(output: str) -> str:
    """Path of the track table for an output: C.nc gives C_track.csv."""
    return os.path.splitext(output)[0] + "_track.csv"
