"""Reads box tables, in degrees or in pixels of named Worldview snapshots."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import files
from clouds_tf.climatology import days
from clouds_tf.climatology.boxes import View
from clouds_tf.data.csv_tables import parse_cells
from clouds_tf.geo.extent import GLOBE, Extent
from clouds_tf.geo.names import named_date, named_extent
from clouds_tf.geo.netcdf import EPOCH

COLUMNS = ("date", "label", "lon1", "lon2", "lat1", "lat2")
# The table of the labelling project has no header.
_LABELLER_COLUMNS = ("id", "image", "x1", "y1", "x2", "y2", "label")
_IMAGE_SIZE = (1400, 2100)  # of the labelled snapshots in pixels
_CHUNK = 5_000  # rows in memory as text


@dataclasses.dataclass(frozen=True)
class BoxTable:
    """Boxes of many days, as compact arrays: about 50 bytes a row.

    Attributes:
        name: file name of the table.
        days: int32 [n], days since 1970-01-01.
        labels: int16 [n], class of each row; -1 if nothing was found in the day or image.
        boxes: float64 [n, 4]: west, south, east, north in degrees.
        views: int32 [n], number of the view of each row.
        extents: regions of the views: one for all, or one for each.
        num_skipped: number of faulty rows that were left out.
        images: image of each view; empty if they have none.
    """

    name: str
    days: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    views: np.ndarray
    extents: tuple[Extent, ...]
    num_skipped: int = 0
    images: tuple[str, ...] = ()

    def by_day(self) -> Iterator[tuple[str, list[View]]]:
        """Yields (date, views) in the order of the days."""
        order = np.lexsort((self.views, self.days))
        starts = np.flatnonzero(np.diff(self.days[order], prepend=np.iinfo(np.int32).min))
        for rows in np.split(order, starts[1:]) if len(order) else []:
            yield _date_of(self.days[rows[0]]), list(self._views(rows))

    def _views(self, rows: np.ndarray) -> Iterator[View]:
        for view in np.unique(self.views[rows]):
            members = rows[self.views[rows] == view]
            boxes = members[self.labels[members] >= 0]
            extent = self.extents[view if len(self.extents) > 1 else 0]
            image = self.images[view] if self.images else ""
            yield View(self.boxes[boxes], self.labels[boxes].astype(int), extent, image)


def _date_of(day: int) -> str:
    """Date of a number of days since 1970-01-01."""
    return str(np.datetime64(int(day), "D"))


def digest(views: Sequence[View]) -> str:
    """`days.digest` of the boxes of a day, in any order."""
    parts = [
        np.column_stack([view.labels, view.boxes]).astype("<f8")
        for view in views
        if len(view.labels)
    ]
    texts = [repr(view.extent).encode() for view in views]
    rows = [part[np.lexsort(part.T)].tobytes() for part in parts]
    return days.digest(*sorted(texts), *sorted(rows))


def read(path: str, class_names: Sequence[str], on_error: str = "fail") -> BoxTable:
    """Reads a box table, plain or gzip-compressed.

    Args:
        path: a CSV with the columns date, label, lon1, lon2, lat1, lat2, where lon1 is the western
            edge (with lon1 > lon2, a box crosses 180 degrees and may be at most half the globe
            wide), and others, which are ignored; or a CSV without a header, with the columns id,
            image, x1, y1, x2, y2, label, where the image name has date and extent, and boxes are in
            pixels of 1400x2100. A row with an empty label and no box means that nothing was found
            in the day or image.
        class_names: the labels, in the order of the classes.
        on_error: "fail", or "skip" to leave faulty rows out.

    Returns:
        A BoxTable. A day without any row counts as not observed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty or unreadable, or a row is faulty; the message names file and
            line.
    """
    if on_error not in ("fail", "skip"):
        raise ValueError(f"on_error: got {on_error!r}, expected fail or skip")
    labels = {name: number for number, name in enumerate(class_names)}
    try:
        first = next(iter(_chunks(path, None, nrows=1)), None)
        if first is None:
            raise ValueError(f"{path}: is empty, expected the columns {', '.join(COLUMNS)}")
        names = [str(name).strip().lower() for name in first.iloc[0]]
        twice = [name for name in COLUMNS if names.count(name) > 1]
        if twice:
            raise ValueError(f"{path}, line 1: two columns {twice[0]!r}")
        if set(COLUMNS) <= set(names):
            table = _read_degrees(path, names, labels, on_error)
        elif len(names) == len(_LABELLER_COLUMNS) and _parse_snapshot(names[1]):
            table = _read_pixels(path, labels, on_error)
        else:
            missing = ", ".join(sorted(set(COLUMNS) - set(names)))
            raise ValueError(f"{path}, line 1: lacks the columns {missing}")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not len(table.days):
        raise ValueError(f"{path}: has no rows")
    return table


def _chunks(path: str, names: list[str] | None, **options: int) -> Iterator[pd.DataFrame]:
    """Yields parts of a CSV as text, indexed by line number from 1; blank lines are left out."""
    with files.local_copy(path) as local:
        try:
            for chunk in parse_cells(
                local, _CHUNK, header=None, names=names, encoding="utf-8-sig", **options
            ):
                chunk.index += 1
                yield chunk[(chunk != "").any(axis=1)]
        except pd.errors.EmptyDataError:
            return


def _valid(path: str, reasons: pd.Series, on_error: str) -> np.ndarray:
    """Marks valid rows; ValueError for the first invalid one unless on_error is "skip"."""
    bad = reasons != ""
    if bad.any() and on_error == "fail":
        more = f" (and {bad.sum() - 1} more faulty rows)" if bad.sum() > 1 else ""
        raise ValueError(
            f"{path}, line {bad.idxmax()}: {reasons[bad.idxmax()]}{more}; "
            "--on_error=skip leaves faulty rows out"
        )
    return ~bad.to_numpy()


def _check_labels(labels: pd.Series, known: dict[str, int]) -> tuple[pd.Series, pd.Series]:
    """Marks unknown labels, with the reason for each row."""
    reasons = "label " + labels.map(repr) + f", expected one of {', '.join(known)}"
    return ~labels.isin(list(known)), reasons


def _first_reasons(*faults: tuple[pd.Series, Any]) -> pd.Series:
    """First reason of each row from pairs (faulty rows, reason); "" if there is none."""
    wrong, reasons = zip(*faults)
    return pd.Series(np.select(wrong, reasons, "").astype(object), wrong[0].index)


def _read_degrees(path: str, names: list[str], known: dict[str, int], on_error: str) -> BoxTable:
    """Reads boxes in degrees; all rows of a day are one view of the globe."""
    num_skipped, parts = 0, []
    for chunk in _chunks(path, names):
        chunk = chunk[list(COLUMNS)].drop(index=1, errors="ignore").apply(lambda c: c.str.strip())
        numbers = chunk[list(COLUMNS[2:])].apply(pd.to_numeric, errors="coerce").astype(float)
        dates = pd.Series({text: _day_of(text) for text in chunk["date"].unique()}, dtype=float)
        numbered = chunk["date"].map(dates)
        good = _valid(path, _check_degrees(chunk, numbers, numbered, known), on_error)
        num_skipped += int((~good).sum())
        west, east = numbers["lon1"].to_numpy(), numbers["lon2"].to_numpy()
        east = np.where(east < west, east + 360, east)
        lat = np.sort(numbers[["lat1", "lat2"]].to_numpy(), axis=1)
        boxes = np.column_stack([west, lat[:, 0], east, lat[:, 1]])
        labels = chunk["label"].map(known).fillna(-1).to_numpy(np.int16)
        parts.append((numbered.fillna(0).to_numpy(np.int32)[good], labels[good], boxes[good]))
    numbered, labels, boxes = (np.concatenate(column) for column in zip(*parts))
    views = np.zeros(len(labels), np.int32)
    name = os.path.basename(path)
    return BoxTable(name, numbered, labels, boxes, views, (GLOBE,), num_skipped)


def _check_degrees(
    chunk: pd.DataFrame, numbers: pd.DataFrame, numbered: pd.Series, known: dict[str, int]
) -> pd.Series:
    """The first fault of each row; "" if there is none."""
    blank = (chunk[list(COLUMNS[1:])] == "").all(axis=1)
    faults = [_check_labels(chunk["label"], known)]
    for column in COLUMNS[2:]:
        shown = f"{column} " + chunk[column].map(repr) + ", expected a number of degrees"
        faults.append((~np.isfinite(numbers[column]), shown))
    for column, most, expected in (
        ("lat1", 90, "-90 to 90"),
        ("lat2", 90, "-90 to 90"),
        ("lon1", 360, "-180 to 180"),
        ("lon2", 360, "-180 to 180"),
    ):
        shown = f"{column} " + chunk[column] + f", expected {expected}"
        faults.append((numbers[column].abs() > most, shown))
    west, east = numbers["lon1"], numbers["lon2"]
    width = (east - west + 360).round(6).astype(str)
    shown = "lon1 " + chunk["lon1"] + " > lon2 " + chunk["lon2"] + ": a box across 180 degrees, "
    shown += width + " degrees wide; swap them"
    faults.append(((west > east) & (east - west > -180), shown))
    for one, other in (("lon1", "lon2"), ("lat1", "lat2")):
        shown = f"a box without area: {one} and {other} are both " + chunk[one]
        faults.append((numbers[one] == numbers[other], shown))
    faults = [(wrong & ~blank, reason) for wrong, reason in faults]
    shown = "date " + chunk["date"].map(repr) + ", expected one such as 2017-01-31"
    return _first_reasons(*faults, (numbered.isna(), shown))


def _day_of(text: str) -> float:
    """Days since 1970-01-01, NaN if the text is not a date such as 2017-01-31."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        with contextlib.suppress(ValueError):
            return (datetime.date.fromisoformat(text) - EPOCH).days
    return np.nan


def _read_pixels(path: str, known: dict[str, int], on_error: str) -> BoxTable:
    """Reads boxes in pixels; consecutive rows of an image are the view of one labeller."""
    table = pd.concat(_chunks(path, list(_LABELLER_COLUMNS)))
    corners = list(_LABELLER_COLUMNS[2:6])
    numbers = table[corners].apply(pd.to_numeric, errors="coerce").astype(float)
    blank = (table[corners + ["label"]] == "").all(axis=1)
    parsed = ((name, _parse_snapshot(name)) for name in table["image"].unique())
    images = {name: found for name, found in parsed if found}
    unknown, text = _check_labels(table["label"], known)
    no_number = ~np.isfinite(numbers).all(axis=1)
    # Boxes may be drawn beyond the edge of the image.
    height, width = _IMAGE_SIZE
    numbers = numbers.clip(0, [width, height, width, height], axis=1)
    empty = (numbers["x1"] >= numbers["x2"]) | (numbers["y1"] >= numbers["y2"])
    no_image = "image " + table["image"] + ", expected a name with date and extent"
    reasons = _first_reasons(
        (~table["image"].isin(list(images)), no_image),
        (unknown & ~blank, text),
        (no_number & ~blank, "x1, y1, x2 and y2 must be numbers"),
        (empty, "a box without area: x1 >= x2 or y1 >= y2 in the image"),
    )
    good = _valid(path, reasons, on_error)
    views = (table["image"] != table["image"].shift()).cumsum().to_numpy()[good] - 1
    table, numbers = table[good], numbers[good]
    found = [images[name] for name in table["image"]]
    numbered = np.array([day for day, _ in found], np.int32)
    west, south, east, north = np.array([extent for _, extent in found]).reshape(-1, 4).T
    boxes = np.column_stack(
        [
            west + numbers["x1"] * (east - west) / width,
            north - numbers["y2"] * (north - south) / height,
            west + numbers["x2"] * (east - west) / width,
            north - numbers["y1"] * (north - south) / height,
        ]
    )
    labels = table["label"].map(known).fillna(-1).to_numpy(np.int16)
    _, firsts, views = np.unique(views, return_index=True, return_inverse=True)
    extents = tuple(found[first][1] for first in firsts)
    names = tuple(table["image"].iloc[firsts])
    views = views.astype(np.int32)
    name = os.path.basename(path)
    return BoxTable(name, numbered, labels, boxes, views, extents, int((~good).sum()), names)


def _parse_snapshot(name: str) -> tuple[int, Extent] | None:
    """(day, extent) of a snapshot's file name, or None."""
    stem = os.path.splitext(os.path.basename(name))[0]
    date = named_date(stem)
    with contextlib.suppress(ValueError):
        extent = named_extent(stem)
        if date is not None and extent is not None:
            return (date.date() - EPOCH).days, extent
    return None
