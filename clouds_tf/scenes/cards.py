"""What has been done in a folder of results: settings, a card for each scene, and scenes.csv."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data.annotations import write_table
from clouds_tf.scenes import read
from clouds_tf.scenes.jobs import FORMATS, Options
from clouds_tf.scenes.masks import ClassAreas, Prediction

SCENES_CSV = "scenes.csv"
_SETTINGS_FILE, _CARDS_DIR = "settings.json", "cards"
_VERSION = 1
_COLUMNS = (
    *("scene", "date", "platform", "class", "present", "area_km2", "share"),
    *("expected_share", "objects", "observed_km2"),
)


@dataclasses.dataclass(frozen=True)
class Card:
    """What became of a scene.

    Attributes:
        scene: its name.
        made_from: a checksum of the options and of the file's length and time of change.
        rows: its rows of scenes.csv; empty if it failed.
        num_windows: number of windows.
        warning: what a reader of the results should know, or None.
        error: why it failed, or None.
    """

    scene: str
    made_from: str
    rows: tuple[tuple[Any, ...], ...] = ()
    num_windows: int = 0
    warning: str | None = None
    error: str | None = None


def check_settings(output_dir: str, fingerprint: str, options: Options) -> None:
    """Makes sure that a folder holds results of this model and scale only.

    Raises:
        ValueError: it holds others.
    """
    settings = {
        "version": _VERSION,
        "model": fingerprint,
        "overlap": options.overlap,
        "resolution": options.resolution,
    }
    path = os.path.join(output_dir, _SETTINGS_FILE)
    if not tf.io.gfile.exists(path):
        files.write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    try:
        earlier = json.loads(files.read_text(path))
        earlier = {key: earlier.get(key) for key in settings}
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: not written by predict_scenes; take another folder") from None
    for key, value in settings.items():
        if earlier[key] != value:
            raise ValueError(
                f"{output_dir}: holds scenes predicted with {key} {earlier[key]}, got {value}; "
                "take the same, or another folder"
            )


def made_from(path: str, fingerprint: str, options: Options) -> str:
    """A checksum that changes with a scene's file, the model, and all that decides the results."""
    stat = tf.io.gfile.stat(path)
    decisive = dataclasses.replace(options, batch_size=1)
    parts = [_VERSION, fingerprint, repr(decisive), stat.length, stat.mtime_nsec]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def outputs(output_dir: str, name: str, options: Options) -> dict[str, str]:
    """The path of each format's file of a scene."""
    return {key: os.path.join(output_dir, name + FORMATS[key]) for key in options.formats}


def is_done(path: str, output_dir: str, fingerprint: str, options: Options) -> bool:
    """Whether a scene has been predicted just like this, and its files are there."""
    card = read_card(output_dir, read.stem(path))
    return (
        card is not None
        and card.error is None
        and card.made_from == made_from(path, fingerprint, options)
        and all(map(tf.io.gfile.exists, outputs(output_dir, read.stem(path), options).values()))
    )


def _path(output_dir: str, name: str) -> str:
    return os.path.join(output_dir, _CARDS_DIR, f"{name}.json")


def write_card(output_dir: str, card: Card) -> None:
    """Writes a card, after all files of the scene."""
    text = json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False)
    files.write_text(_path(output_dir, card.scene), text + "\n")


def read_card(output_dir: str, name: str) -> Card | None:
    """Reads the card of a scene; None if there is none that can be read."""
    path = _path(output_dir, name)
    if not tf.io.gfile.exists(path):
        return None
    try:
        fields = json.loads(files.read_text(path))
        return Card(**{**fields, "rows": tuple(map(tuple, fields["rows"]))})
    except (ValueError, TypeError, KeyError):
        return None


def rows(prediction: Prediction, areas: Sequence[ClassAreas]) -> tuple[tuple[Any, ...], ...]:
    """The rows of scenes.csv of a scene."""
    observed = float(prediction.observed.sum(axis=1) @ prediction.grid.row_areas)
    about = (prediction.name, prediction.date.isoformat(), prediction.platform)

    def share(value: float) -> float | str:
        return round(value, 6) if observed else ""

    return tuple(
        (*about, item.class_name, int(item.present), round(item.area_km2, 3))
        + (share(item.share), share(item.expected_share), item.objects, round(observed, 3))
        for item in areas
    )


def write_csv(output_dir: str) -> str:
    """Writes scenes.csv, of all scenes that have a card and did not fail; gives its path."""
    folder = os.path.join(output_dir, _CARDS_DIR)
    table: list[tuple[Any, ...]] = []
    for name in sorted(tf.io.gfile.listdir(folder)):
        card = None if name.startswith(".") else read_card(output_dir, os.path.splitext(name)[0])
        table += card.rows if card else ()
    path = os.path.join(output_dir, SCENES_CSV)
    write_table(path, _COLUMNS, table)
    return path


def remove_leftovers(output_dir: str, names: set[str]) -> None:
    """Removes what a killed process left half-written of these scenes, and of no others."""
    for folder in (output_dir, os.path.join(output_dir, _CARDS_DIR)):
        for name in tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else ():
            of = os.path.splitext(name.split(".", 2)[-1])[0]
            if files.is_unfinished(name) and of in names:
                tf.io.gfile.remove(os.path.join(folder, name))
