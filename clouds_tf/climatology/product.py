"""The whole way from box tables or scenes to a climatology, resumable by day."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clouds_tf import files
from clouds_tf.climatology import aggregate, pictures, tables, track, write
from clouds_tf.climatology.boxes import View, day_fields, looks_at
from clouds_tf.climatology.days import DayStore, Progress, Settings
from clouds_tf.climatology.grid import Extent, Grid, extent_weights
from clouds_tf.data import runners
from clouds_tf.figures.climatology import read_coastlines


@dataclasses.dataclass(frozen=True)
class Added:
    """What `add_boxes` and `add_scenes` did.

    Attributes:
        num_new: days that were added.
        num_known: days that were there already.
        num_skipped: faulty rows or scenes that were left out.
    """

    num_new: int
    num_known: int
    num_skipped: int


@dataclasses.dataclass(frozen=True)
class Where:
    """Where days are computed: see `runners`.

    Attributes:
        runner: "local", or the name of an Apache Beam runner such as "direct" or "dataflow".
        num_workers: local processes.
        beam_options: options of the Beam runner, such as ["--project=P"].
    """

    runner: str = "local"
    num_workers: int = 1
    beam_options: tuple[str, ...] = ()

    def run(
        self, function: Any, jobs: Iterable[tuple[Any, ...]], total: int, progress: Progress | None
    ) -> int:
        """Calls function(*job) for every job; returns their number."""
        if self.runner != "local":
            jobs = list(jobs)
            runners.run_in_beam(function, jobs, self.runner, self.beam_options)
            return len(jobs)
        done = 0
        for _ in runners.run(function, jobs, self.num_workers):
            done += 1
            if progress:
                progress(done, total)
        return done


def add_boxes(
    store: DayStore,
    path: str,
    on_error: str = "fail",
    where: Where = Where(),
    progress: Progress | None = None,
) -> Added:
    """Adds the days of a box table to a folder of days; days that are there already are kept.

    Args:
        store: the folder of days.
        path: a table as `tables.read` reads it. It is checked before a day is written.
        on_error: "fail", or "skip" to leave faulty rows out.
        where: where the days are computed.
        progress: called with (done, total) days.

    Raises:
        ValueError: the table is faulty, or has other boxes for a day that is there already.
    """
    table = tables.read(path, store.settings.class_names, on_error)
    grid, new, num_known = store.settings.grid, [], 0
    for date, all_views in table.by_day():
        views = [view for view in all_views if looks_at(view, grid)]
        if views and store.has(date, table.name, tables.digest(views)):
            num_known += 1
        elif views:
            new.append((store.folder, store.settings, date, views, table.name))
    if not new and not num_known:
        raise ValueError(f"{path}: no day looked at the extent {grid.extent} of the grid")
    store.prepare()
    where.run(_write_boxes, new, len(new), progress)
    return Added(len(new), num_known, table.num_skipped)


def _write_boxes(
    folder: str, settings: Settings, date: str, views: list[View], source: str
) -> None:
    """Computes and writes one day; called in worker processes."""
    fields = day_fields(date, views, len(settings.class_names), settings.grid)
    DayStore(folder, settings).write(fields, source, tables.digest(views))


@dataclasses.dataclass(frozen=True)
class Made:
    """What `make` did; printed as the closing line.

    Attributes:
        output: the file that was written.
        num_days: days that it is made of.
        num_periods: length of its time axis.
        by: "day", "month", "season", "year" or "all".
        added: days that were added before.
        written: further files and folders that were written.
    """

    output: str
    num_days: int
    num_periods: int
    by: str
    added: Added
    written: tuple[str, ...] = ()

    def __str__(self) -> str:
        new, known, skipped = dataclasses.astuple(self.added)
        text = f"Wrote {self.output}: {self.num_periods} periods (by {self.by}) of {self.num_days}"
        text += f" days; {new} days added, {known} were there"
        text += f"; {skipped} faulty inputs left out" if skipped else ""
        return text + "".join(f"; wrote {path}" for path in self.written)


def make(
    output: str,
    *,
    boxes: str | None = None,
    days_dir: str | None = None,
    class_names: Sequence[str],
    grid: Grid = Grid(),
    by: str = "month",
    across_years: bool = True,
    regions: Mapping[str, Extent] | None = None,
    layout: str = "cf",
    num_resamples: int = 200,
    seed: int = 0,
    on_error: str = "fail",
    track_csv: str | None = None,
    pictures_dir: str | None = None,
    colors: str = "plain",
    coastlines: str | None = None,
    where: Where = Where(),
    progress: Progress | None = None,
) -> Made:
    """Makes a climatology; killed at any time, the same call goes on where it stopped.

    Args:
        output: the NetCDF file to write.
        boxes: a box table, as `tables.read` reads it.
        days_dir: folder of the days, as `days.DayStore` has them; None for `days_folder(output)`.
            Without boxes, its days are aggregated as they are.
        class_names: names of the classes, in their order.
        grid: the grid of a new folder of days.
        by, across_years: as for `aggregate.periods`.
        regions, layout, num_resamples, seed: as for `write.product`.
        on_error: "fail", or "skip" to leave faulty rows out.
        track_csv: a track as `track.read` reads it; the table is written to `track.table_path`.
        pictures_dir: folder for pictures, None for none.
        colors, coastlines: as for `pictures.write`.
        where: where the days are computed.
        progress: called with (done, total) days, first for those that are added.

    Returns:
        What was done.

    Raises:
        ValueError: bad input, named by file and line; days that were added stay.
    """
    check(output, grid, by, layout, regions, num_resamples)
    if pictures_dir:
        check_pictures(layout, coastlines)
    if track_csv:
        files.check_output(track.table_path(output))
        track.read(track_csv)
    folder, added = days_dir or days_folder(output), Added(0, 0, 0)
    if boxes:
        store = DayStore(folder, Settings(grid, tuple(class_names)))
        added = add_boxes(store, boxes, on_error, where, progress)
    else:
        store = DayStore(folder)
    dates = store.dates()
    groups = aggregate.periods(dates, by, across_years)
    folded = across_years and by in ("month", "season")
    write.product(output, store, groups, folded, regions, layout, num_resamples, seed, progress)
    written: list[str] = []
    if track_csv:
        track.write(store, track_csv, track.table_path(output))
        written.append(track.table_path(output))
    if pictures_dir:
        pictures.write(
            pictures_dir, output, store, regions, num_resamples, seed, colors, coastlines
        )
        written.append(pictures_dir)
    return Made(output, len(dates), len(groups), by, added, tuple(written))


def check(
    output: str,
    grid: Grid,
    by: str,
    layout: str = "cf",
    regions: Mapping[str, Extent] | None = None,
    num_resamples: int = 200,
) -> None:
    """Makes sure, before any work, that a climatology can be written.

    Raises:
        ValueError: an argument is wrong, a package is missing, or nothing can be written there.
    """
    files.require("h5netcdf", "geo", "NetCDF")
    aggregate.periods([], by)
    if layout not in write.LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(write.LAYOUTS)}")
    if num_resamples < 0:
        raise ValueError(f"num_resamples: got {num_resamples}, expected 0 or more")
    for name, extent in (regions or {}).items():
        if name == "all":
            raise ValueError("regions: the name all is that of the whole grid; choose another")
        try:
            extent_weights(grid, extent)
        except ValueError as error:
            raise ValueError(f"regions: {name}: {error}") from None
    files.check_output(output)


def check_pictures(layout: str, coastlines: str | None) -> None:
    """Makes sure that pictures can be drawn; ValueError or FileNotFoundError says what is wrong."""
    files.require("matplotlib", "plots", "pictures_dir")
    if layout != "cf":
        raise ValueError(f"layout: got {layout!r}, pictures need cf")
    if coastlines:
        read_coastlines(coastlines)


def days_folder(output: str) -> str:
    """Where the days of an output are unless another folder is chosen: C.nc has C_days."""
    return os.path.splitext(output)[0] + "_days"
