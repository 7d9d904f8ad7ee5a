"""Adds the days of box tables or of scenes to a folder of days, here or on many machines."""

from __future__ import annotations

import dataclasses

from clouds_tf.climatology import scenes, tables
from clouds_tf.climatology.boxes import View, day_fields, looks_at
from clouds_tf.climatology.days import DayStore, Progress, Settings, digest
from clouds_tf.data.runners import Runner
from clouds_tf.geo.grid import Grid


@dataclasses.dataclass(frozen=True)
class Added:
    """Result of `add_boxes` or `add_scenes`.

    Attributes:
        num_new: days that were added.
        num_known: days that were there already.
        num_skipped: faulty rows or scenes that were left out.
    """

    num_new: int
    num_known: int
    num_skipped: int


def add_boxes(
    store: DayStore,
    path: str,
    on_error: str = "fail",
    runner: Runner = Runner(),
    progress: Progress | None = None,
) -> Added:
    """Adds the days of a box table to a folder of days; days that are there already are kept.

    Args:
        store: the folder of days.
        path: a table as `tables.read` reads it. It is checked before a day is written.
        on_error: "fail", or "skip" to leave faulty rows out.
        runner: where the days are computed.
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
    runner.run(_write_boxes, new, len(new), progress)
    return Added(len(new), num_known, table.num_skipped)


def _write_boxes(
    folder: str, settings: Settings, date: str, views: list[View], source: str
) -> None:
    """Computes and writes one day; called in worker processes."""
    fields = day_fields(date, views, len(settings.class_names), settings.grid)
    DayStore(folder, settings).write(fields, source, tables.digest(views))


def add_scenes(
    folder: str,
    pattern: str,
    grid: Grid,
    measure: str = "mask",
    on_error: str = "fail",
    runner: Runner = Runner(),
    progress: Progress | None = None,
) -> tuple[DayStore, Added]:
    """Adds the days of scenes to a folder of days; days that are there already are kept.

    Args:
        folder: the folder of days; where it is new, the first scene says classes and model.
        pattern: a folder of scenes, or a pattern of their files.
        grid: the grid of a new folder of days.
        measure: as for `scenes.day_fields`.
        on_error: "fail", or "skip" to leave out scenes that are damaged, of another model or grid,
            or that overlap an earlier one (by name) of their day.
        runner: where the days are computed.
        progress: called with (done, total) days.

    Returns:
        The folder of days, and what was added.

    Raises:
        ValueError: a scene is faulty; the file is named. Days that were added stay.
    """
    settings: Settings | None = None
    by_day: dict[str, list[scenes.Scene]] = {}
    num_skipped = 0
    for path in scenes.find(pattern):
        try:
            scene = scenes.read(path)
            settings = settings or _settings_of(scene, grid, measure)
            scenes.check(scene, settings)
            if not scenes.looks_at(scene, grid):
                continue
            members = by_day.get(scene.date, [])
            scenes.check_day([*members, scene])
            by_day[scene.date] = [*members, scene]
        except ValueError:
            if on_error == "fail":
                raise
            num_skipped += 1
    if not settings or not by_day:
        raise ValueError(f"{pattern}: no scene overlaps the extent {grid.extent} of the grid")
    store, new = DayStore(folder, settings), []
    for date, members in sorted(by_day.items()):
        names = ", ".join(scene.name for scene in members)
        fingerprint = digest(*sorted(scene.fingerprint.encode() for scene in members))
        if not store.has(date, names, fingerprint):
            paths = [scene.path for scene in members]
            new.append((store.folder, settings, date, paths, names, fingerprint))
    store.prepare()
    runner.run(_write_scenes, new, len(new), progress)
    return store, Added(len(new), len(by_day) - len(new), num_skipped)


def _settings_of(scene: scenes.Scene, grid: Grid, measure: str) -> Settings:
    return Settings(grid, scene.class_names, "scenes", measure, scene.model, scene.resolution)


def _write_scenes(
    folder: str, settings: Settings, date: str, paths: list[str], source: str, fingerprint: str
) -> None:
    """Computes and writes one day; called in worker processes."""
    members = [scenes.read(path) for path in paths]
    fields = scenes.day_fields(date, members, settings.measure, settings.grid)
    DayStore(folder, settings).write(fields, source, fingerprint)
