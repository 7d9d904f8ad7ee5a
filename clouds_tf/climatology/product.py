"""Makes a climatology from box tables or scenes; resumable by day."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Optional

from clouds_tf import files
from clouds_tf.climatology import inputs, labellers, objects, pictures, tables, track, write
from clouds_tf.climatology.aggregate import Aggregation
from clouds_tf.climatology.days import DayStore, Settings
from clouds_tf.data.runners import Runner
from clouds_tf.geo.grid import Grid
from clouds_tf.messages import counted
from clouds_tf.progress import Progress, shown
from clouds_tf.settings import CheckedSettings, setting


@dataclasses.dataclass(frozen=True, repr=False)
class ExtraOutputs(CheckedSettings):
    """Optional additional outputs.

    Attributes:
        look: settings of the pictures.
    """

    track: Optional[str] = setting(
        None, "CSV of time, latitude, longitude: also write the fractions along this track."
    )
    agreement: Optional[str] = setting(
        None, "Output CSV with the agreement between labellers of the same image, by season."
    )
    objects: Optional[str] = setting(
        None,
        "Output Parquet file with all objects of the scenes; a CSV next to it has cloud fraction "
        "and organisation of each scene.",
    )
    pictures_dir: Optional[str] = setting(None, "Folder for maps, charts and report.html.")
    look: pictures.Look = pictures.Look()


@dataclasses.dataclass(frozen=True)
class Summary:
    """Summary of `make`, printed as the last line.

    Attributes:
        output: the file that was written.
        num_days: number of its days, hours or moments.
        num_periods: length of its time axis.
        by: period of the means, see `Aggregation`.
        added: summary of the added days, if any.
        written: other files and folders that were written.
    """

    output: str
    num_days: int
    num_periods: int
    by: str
    added: inputs.AddedDays
    written: tuple[str, ...] = ()

    def __str__(self) -> str:
        new, known, skipped = dataclasses.astuple(self.added)
        noun = Aggregation(self.by).step
        text = f"Wrote {self.output}: {counted(self.num_periods, 'period')} (by {self.by}) of "
        text += f"{counted(self.num_days, noun)}; "
        text += f"{counted(new, noun)} added, {known} there before"
        text += f"; {counted(skipped, 'faulty input')} left out" if skipped else ""
        return text + "".join(f"; wrote {path}" for path in self.written)


def make(
    output: str,
    *,
    boxes: str | None = None,
    scenes_dir: str | None = None,
    measure: str = "mask",
    platforms: Sequence[str] = (),
    days_dir: str | None = None,
    class_names: Sequence[str] = (),
    grid: Grid = Grid(),
    form: Aggregation = Aggregation(),
    extras: ExtraOutputs = ExtraOutputs(),
    on_error: str = "fail",
    runner: Runner = Runner(),
    progress: Progress | bool = True,
) -> Summary:
    """Makes a climatology; after an interruption, the same call continues.

    Args:
        output: the NetCDF file to write.
        boxes: a box table, see `tables.read`.
        scenes_dir: a folder or pattern of scenes, instead of boxes.
        measure: area in scenes, see `merge.fields_of`.
        platforms: satellites whose scenes count, see `geo.parse_platforms`; () for all.
        days_dir: folder of the days, see `days.DayStore`; None for one next to the output: C.nc has
            C_days, or C_hours or C_scenes. Without boxes and scenes, its days are aggregated.
        class_names: labels of boxes, in the order of the classes; scenes have their own.
        grid: the grid of a new folder of days.
        form: periods, regions and layout of the output.
        extras: additional outputs.
        on_error: "fail", or "skip" to leave faulty rows and scenes out.
        runner: runner that computes the days.
        progress: called with (done, total) days, first for the added ones; True shows a bar
            in a terminal or notebook.

    Raises:
        ValueError: the input is faulty; the message names file and line. Added days are kept.
    """
    if boxes and scenes_dir:
        raise ValueError("got boxes and scenes_dir, expected one of the two")
    if boxes and form.step != "day":
        raise ValueError(f"by: got {form.by!r}, which needs scenes: boxes are of whole days")
    check(output, grid, form, extras, scenes_dir)
    folder = days_dir or f"{os.path.splitext(output)[0]}_{form.step}s"
    added = inputs.AddedDays(0, 0, 0)
    tell = shown(progress, "day")
    if scenes_dir:
        settings = Settings(grid, (), "scenes", measure, step=form.step, platforms=tuple(platforms))
        store, added = inputs.add_scenes(folder, scenes_dir, settings, on_error, runner, tell)
    elif boxes:
        store = DayStore(folder, Settings(grid, tuple(class_names)))
        added = inputs.add_boxes(store, boxes, on_error, runner, tell)
    else:
        store = DayStore(folder)
    num_periods = write.product(output, store, form, tell)
    written = _write_extras(output, store, form, extras, boxes, scenes_dir, on_error)
    return Summary(output, len(store.dates()), num_periods, form.by, added, tuple(written))


def _write_extras(
    output: str,
    store: DayStore,
    form: Aggregation,
    extras: ExtraOutputs,
    boxes: str | None,
    scenes_dir: str | None,
    on_error: str,
) -> list[str]:
    """Writes the additional outputs; returns their paths."""
    written = []
    if extras.track:
        written.append(track.table_path(output))
        files.write_frame(written[-1], track.along(store, track.read(extras.track)))
    if extras.agreement and boxes:
        names = store.settings.class_names
        table = tables.read(boxes, names, on_error)
        by_season = labellers.agreement(
            table, len(names), num_resamples=form.num_resamples, seed=form.seed
        )
        labellers.write(by_season, names, extras.agreement)
        written.append(extras.agreement)
    if extras.objects and scenes_dir:
        written += [extras.objects, objects.write(scenes_dir, extras.objects, on_error)]
    if extras.pictures_dir:
        left_out = pictures.write(extras.pictures_dir, output, store, form, extras.look)
        written.append(os.path.join(extras.pictures_dir, "report.html"))
        if left_out:
            written[-1] += f" without {counted(left_out, 'picture')} (--max_pictures)"
    return written


def check(
    output: str, grid: Grid, form: Aggregation, extras: ExtraOutputs, scenes_dir: str | None = None
) -> None:
    """Checks, before any work, that a climatology can be written.

    Raises:
        ValueError: an argument is wrong, a package is missing, or an output cannot be written.
    """
    files.require("h5netcdf", "geo", "NetCDF")
    for name, extent in form.regions.items():
        try:
            grid.area_in(extent)
        except ValueError as error:
            raise ValueError(f"regions: {name}: {error}") from None
    if extras.pictures_dir:
        files.require("matplotlib", "plots", "pictures_dir")
        if form.layout != "cf":
            raise ValueError(f"pictures_dir: needs layout cf, got {form.layout!r}")
        extras.look.read_coastlines(grid.extent)
    if extras.objects:
        files.require("pyarrow", "parquet", "objects")
        if not scenes_dir:
            raise ValueError("objects: need scenes_dir, the scenes that have them")
        files.check_output(extras.objects)
    if extras.agreement:
        files.check_output(extras.agreement)
    if extras.track:
        if form.step != "day":
            raise ValueError(f"track: reads days, got by={form.by!r}")
        files.check_output(track.table_path(output))
        track.read(extras.track)
    files.check_output(output)
