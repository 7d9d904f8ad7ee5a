"""Adds the days of box tables or of scenes to a folder of days."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from clouds_tf import gfile
from clouds_tf.climatology import merge, scenes, tables
from clouds_tf.climatology.boxes import View, day_fields, looks_at
from clouds_tf.climatology.days import DayStore, Settings, digest, key_of
from clouds_tf.data.runners import Runner
from clouds_tf.geo.grid import Grid
from clouds_tf.progress import Progress, shown


@dataclasses.dataclass(frozen=True)
class AddedDays:
    """Summary of `add_boxes` or `add_scenes`.

    Attributes:
        num_new: number of days that were added.
        num_known: number of days that were already stored.
        num_skipped: number of faulty rows or scenes that were left out.
    """

    num_new: int
    num_known: int
    num_skipped: int


def add_boxes(
    store: DayStore,
    path: str,
    on_error: str = "fail",
    runner: Runner = Runner(),
    progress: Progress | bool = False,
) -> AddedDays:
    """Adds the days of a box table to a folder of days; days that are already stored are kept.

    Args:
        path: a table, see `tables.read`. It is checked before any day is written.
        on_error: "fail", or "skip" to leave faulty rows out.

    Raises:
        ValueError: the table is faulty, or has other boxes for a day that is already stored.
    """
    table = tables.read(path, store.settings.class_names, on_error)
    grid, new, num_known = store.settings.grid, [], 0
    for date, all_views in table.by_day():
        views = [view for view in all_views if looks_at(view, grid)]
        fingerprint = tables.digest(views)
        if not views:
            continue
        if store.manifest.is_done(date, fingerprint):
            num_known += 1
            continue
        piece = store.manifest.read(date)
        if piece is not None and piece.value["source"] != table.name:
            raise _already(store, table.name, date, piece.value["source"])
        new.append((store, date, views, table.name, fingerprint))
    if not new and not num_known:
        raise ValueError(f"{path}: no day observed the extent {grid.extent} of the grid")
    with store.open():
        runner.run(_write_boxes, new, len(new), shown(progress, "day"))
    return AddedDays(len(new), num_known, table.num_skipped)


def _already(store: DayStore, name: str, date: str, source: str) -> ValueError:
    return ValueError(
        f"{name}: {date} is already counted, from other data of {source}; to count this instead, "
        f"delete {store.path(date)}"
    )


def _write_boxes(
    store: DayStore, date: str, views: list[View], source: str, fingerprint: str
) -> None:
    """Computes and writes one day; called in worker processes."""
    settings = store.settings
    fields = day_fields(date, views, len(settings.class_names), settings.grid)
    store.write(fields, fingerprint, {"source": source})


def add_scenes(
    folder: str,
    pattern: str,
    settings: Settings,
    on_error: str = "fail",
    runner: Runner = Runner(),
    progress: Progress | bool = False,
) -> tuple[DayStore, AddedDays]:
    """Adds the days of scenes to a folder of days; days that are already stored are kept.

    Args:
        pattern: a folder of scenes, or a pattern of their files.
        settings: settings of the days; classes, model and resolution are those of the first scene.
        on_error: "fail", or "skip" to leave out scenes that are damaged, of another model or grid,
            or copies of an earlier one (by name) of their day.

    Returns:
        The folder of days, and the summary of the days that were added.

    Raises:
        ValueError: a scene is faulty; the message names the file. Added days are kept.
    """
    paths = scenes.find(pattern)
    settings, by_day, faults = _read_scenes(pattern, paths, settings, on_error)
    store = DayStore(folder, settings)
    gone = _outdated(store, by_day, set(paths))
    new = []
    for date, members in sorted(by_day.items()):
        fingerprint = digest(*sorted(scene.fingerprint.encode() for scene in members))
        if not store.manifest.is_done(date, fingerprint):
            new.append((store, date, [scene.path for scene in members], fingerprint))
    with store.open():
        for date in gone:
            store.manifest.drop(date)
        runner.run(_write_scenes, new, len(new), shown(progress, "day"))
    return store, AddedDays(len(new), len(by_day) - len(new), len(faults))


def _read_scenes(
    pattern: str, paths: Sequence[str], settings: Settings, on_error: str
) -> tuple[Settings, dict[str, list[scenes.Scene]], list[ValueError]]:
    """Reads the metadata of scenes: the settings of all, the scenes of each day, and faults."""
    by_day: dict[str, list[scenes.Scene]] = {}
    places: dict[tuple[str, Grid], list[scenes.Scene]] = {}
    faults, others, platforms = [], set(), settings.platforms
    for path in paths:
        try:
            scene = scenes.read(path)
            if platforms and scene.platform not in platforms:
                others.add(scene.platform)
                continue
            if not settings.class_names:
                settings = dataclasses.replace(
                    settings,
                    class_names=scene.class_names,
                    model_fingerprint=scene.model,
                    resolution=scene.resolution,
                )
            scenes.check(scene, settings)
            if not scenes.looks_at(scene, settings.grid):
                continue
            same_place = places.setdefault((scene.date, scene.grid), [])
            scenes.check_twins(scene, same_place)
            same_place.append(scene)
            by_day.setdefault(key_of(scene.seconds, settings.step), []).append(scene)
        except ValueError as error:
            if on_error == "fail":
                raise
            faults.append(error)
    if by_day:
        return settings, by_day, faults
    if faults:
        raise faults[0]
    if others and not settings.class_names:
        got, found = ", ".join(platforms), ", ".join(sorted(others))
        raise ValueError(f"{pattern}: platforms: got {got}, but all scenes are of {found}")
    raise ValueError(f"{pattern}: no scene overlaps the extent {settings.grid.extent} of the grid")


def _outdated(
    store: DayStore, by_day: Mapping[str, list[scenes.Scene]], paths: set[str]
) -> list[str]:
    """Days without any of their scenes, which were removed or have another date now.

    Raises:
        ValueError: a changed day was also made from scenes that are not among the paths.
    """
    found = []
    for piece in store.manifest.pieces():
        members = by_day.get(piece.key, [])
        now = {scene.path for scene in members}
        before = set(piece.value.get("paths", ()))
        if before == now:
            continue
        elsewhere = sorted(path for path in before - paths if gfile.exists(path))
        # A day of another folder of scenes stays as it is.
        if elsewhere and (members or before & paths):
            name = members[0].name if members else min(before & paths)
            raise _already(store, name, piece.key, ", ".join(elsewhere))
        if not members and not elsewhere:
            found.append(piece.key)
    return found


def _write_scenes(store: DayStore, date: str, paths: list[str], fingerprint: str) -> None:
    """Computes and writes one day; called in worker processes."""
    members = [scenes.read(path) for path in paths]
    fields = merge.fields_of(date, members, store.settings.measure, store.settings.grid)
    source = ", ".join(scene.name for scene in members)
    store.write(fields, fingerprint, {"source": source, "paths": paths})
