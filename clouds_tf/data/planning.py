"""Assigns the images of a data folder to shards and cross-validation folds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Optional

import numpy as np

from clouds_tf import files
from clouds_tf.data.annotations import check_csv, check_mask_size, presence
from clouds_tf.data.csv_tables import read_table, repeated
from clouds_tf.data.records_info import TRAINING_ONLY
from clouds_tf.data.runners import Runner
from clouds_tf.data.sources import Size, Source, read_annotations
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, raise_faults
from clouds_tf.settings import setting

_DEFAULT_SHARDS = 16
_MAX_FOLDS = 1000


def _split_into_folds(
    labels: np.ndarray, num_folds: int, seed: int, groups: Optional[np.ndarray] = None
) -> np.ndarray:
    """Assigns images (labels bool [N, C]) to folds, stratified by class: int64 [N].

    Images of one group, int64 [N], stay together.
    """
    if groups is not None:
        together = np.zeros((groups.max() + 1, labels.shape[1]), bool)
        np.logical_or.at(together, groups, labels)
        return _split_into_folds(together, num_folds, seed)[groups]
    # Imported here, because importing scikit-learn and scipy.stats takes a second.
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if len(labels) < 2:
        raise ValueError(f"num_folds: got {len(labels)} image without fault, expected at least 2")
    if not 2 <= num_folds <= min(len(labels), _MAX_FOLDS):
        most = min(len(labels), _MAX_FOLDS)
        raise ValueError(f"num_folds: got {num_folds}, expected 2 to {most}, one image each")
    if labels.shape[1] == 1:  # the splitter needs several labels: class present, class absent
        labels = np.column_stack([labels, ~labels])
    folds = np.empty(len(labels), np.int64)
    splitter = MultilabelStratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(labels, labels)):
        folds[members] = fold
    return folds


def _read_folds(path: str, filenames: Sequence[str]) -> np.ndarray:
    """Reads the fold of each image from a CSV with the columns filename and fold: int64 [N].

    Images of fold -1 are never held out. The CSV, such as folds.csv of other records, may list
    further images.
    """
    frame = read_table(path, ("filename", "fold"))
    faults = [
        Fault(path, line, f"got the fold {fold!r}, expected 0, 1, 2, ... or -1")
        for line, fold in frame["fold"][~frame["fold"].str.fullmatch("[0-9]+|-1")].items()
    ]
    faults += repeated(path, frame, "filename")
    folds = dict(zip(frame["filename"], frame["fold"]))
    faults += [Fault(path, 0, f"no fold for {name}") for name in filenames if name not in folds]
    raise_faults(faults)
    found = [int(folds[name]) for name in filenames]
    check_folds(found, path)
    return np.array(found, np.int64)


def _read_groups(path: str, filenames: Sequence[str]) -> np.ndarray:
    """Reads the group of each image from a CSV with the columns filename and group: int64 [N].

    Images without a row are groups of their own; the CSV may list further images.
    """
    frame = read_table(path, ("filename", "group"))
    raise_faults(repeated(path, frame, "filename"))
    groups = dict(zip(frame["filename"], frame["group"]))
    if not groups.keys() & set(filenames):
        raise ValueError(f"{path}: names no image, expected names such as {filenames[0]}")
    keys = [f"group {groups[name]}" if name in groups else f"image {name}" for name in filenames]
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def check_folds(folds: Iterable[int], origin: str) -> None:
    """Raises ValueError if a fold from 0 to the last one is empty, or a fold is 1,000 or more.

    `origin` names the source of the folds in the message.
    """
    found = set(map(int, folds))
    last = max({0, *found})
    if last >= _MAX_FOLDS:
        raise ValueError(f"{origin}: got the fold {last}, expected less than {_MAX_FOLDS}")
    empty = sorted(set(range(last + 1)) - found)
    if empty:
        raise ValueError(
            f"{origin}: no image has the fold {', '.join(map(str, empty))}; expected images in "
            f"every fold from 0 to {last}"
        )


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """An image of a planned shard.

    Attributes:
        filename: name of the image's file.
        rles: one plain RLE string per class, in the order of the data set.
        fold: the fold in which the image is held out; -1 for never.
        mask_size: (height, width) of the masks of the RLE; None for that of the data set.
        folder: folder of the image; None for that of the training images.
    """

    filename: str
    rles: tuple[str, ...]
    fold: int
    mask_size: Size | None = None
    folder: str | None = None

    def to_json(self) -> list[object]:
        """A list of the fields, without trailing None, that `from_json` reads."""
        values = list(dataclasses.astuple(self))
        while values[-1] is None:
            values.pop()
        return values

    @classmethod
    def from_json(cls, values: list[Any]) -> PlannedImage:
        """Reads what `to_json` wrote."""
        filename, rles, fold, *others = values
        size, folder = [*others, None, None][:2]
        return cls(filename, tuple(rles), fold, size and tuple(size), folder)


@dataclasses.dataclass(frozen=True, repr=False)
class Conversion(Runner, Source):
    """Settings of `write_records`; the flags of the tool are made from these fields."""

    num_workers: int = setting(
        2, "Number of local worker processes; 1 runs in this process.", min=1
    )
    num_shards: Optional[int] = setting(
        None, "Number of files; default: 16, or fewer for fewer images.", min=1
    )
    num_folds: int = setting(5, "Number of folds for cross-validation.", min=2)
    image_size: Optional[tuple[int, int]] = setting(
        None, "Size to reduce the images to: height,width; default: store the files unchanged."
    )
    seed: int = setting(0, "Seed of the folds and of the order of the images.", min=0)
    jpeg_quality: int = setting(95, "JPEG quality of reduced images.", min=1, max=100)
    folds_csv: Optional[str] = setting(
        None,
        "CSV with the columns filename and fold, to use instead of new folds; images of fold -1 "
        "are trained on and never held out.",
    )
    group_csv: Optional[str] = setting(
        None,
        "CSV with the columns filename and group: images of one group, such as those of one day "
        "and place, get the same fold.",
    )
    exclude: Optional[str] = setting(
        None, "Text file with the names of images to leave out, one per line."
    )
    on_error: str = setting(
        "fail",
        "Handling of faulty images and rows: list them and fail, or skip these images and list "
        "the faults in rejected.csv.",
        choices=("fail", "skip"),
    )
    pseudo_labels: Optional[str] = setting(
        None,
        "CSV of masks of the images in test_images/, such as a submission, to add to the training "
        "images; their fold is -1.",
    )
    rle_size: Optional[tuple[int, int]] = setting(
        None, "Size of the masks of --pseudo_labels; default: that of a submission."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rle_size and not self.pseudo_labels:
            raise ValueError(f"rle_size: got {self.rle_size} without pseudo_labels")


def plan_shards(
    data_dir: str, dataset: Dataset, how: Conversion
) -> tuple[list[list[PlannedImage]], list[Fault]]:
    """Assigns the images of a data folder to shards; also returns the faults of the annotations.

    Images are ordered by fold, shuffled within each fold, and divided into shards of equal count.
    So a shard usually holds one or two folds, and readers of one fold open only its shards.

    Raises:
        FileNotFoundError, ValueError: there are no annotations, their masks are of another size, a
            name to exclude is unknown, a fold is empty, or a setting is out of its range.
    """
    exclude, num_shards = how.exclude, how.num_shards
    lines = files.read_text(exclude).splitlines() if exclude else []
    excluded = {line.strip() for line in lines} - {""}
    found = read_annotations(data_dir, dataset, how, excluded)
    table, faults = found.table, found.faults + found.unlisted
    there = files.list_names(os.path.join(data_dir, dataset.train_images))
    unknown = sorted(excluded - set(there))
    if unknown:
        raise ValueError(f"{exclude}: no image has the name {', '.join(map(repr, unknown))}")
    if not len(table):
        raise_faults(faults)
        left_out = f"{exclude}: names every image of {found.origin}"
        raise ValueError(left_out if exclude else f"{found.origin}: no masks of any image")
    if num_shards is None:
        num_shards = min(_DEFAULT_SHARDS, len(table))
    if not 1 <= num_shards <= len(table):
        raise_faults(faults)
        raise ValueError(
            f"num_shards: got {num_shards}, expected 1 to {len(table)}, one image each"
        )
    assigned = _assign_folds(table["filename"].tolist(), presence(table), how, faults)
    images = [
        PlannedImage(filename, tuple(rles), int(fold), found.sizes.get(filename))
        for (filename, *rles), fold in zip(table.values.tolist(), assigned)
    ]
    if how.pseudo_labels:
        images += _read_pseudo_labels(data_dir, dataset, how, {*found.named, *there}, faults)
    folds = np.array([image.fold for image in images])
    random_order = np.random.default_rng(how.seed).permutation(len(images))
    order = random_order[np.argsort(folds[random_order], kind="stable")]
    return [[images[i] for i in part] for part in np.array_split(order, num_shards)], faults


def _assign_folds(
    names: Sequence[str], labels: np.ndarray, how: Conversion, faults: Sequence[Fault]
) -> np.ndarray:
    """The fold of each image, int64 [N], by its name and its labels, bool [N, C]."""
    if how.folds_csv and how.group_csv:
        raise ValueError("group_csv: has no effect, because folds_csv sets the folds")
    if how.folds_csv:
        return _read_folds(how.folds_csv, names)
    if how.num_folds > len(names):
        raise_faults(faults)
    groups = _read_groups(how.group_csv, names) if how.group_csv else None
    assigned = _split_into_folds(labels, how.num_folds, how.seed, groups)
    check_folds(assigned, "num_folds")
    return assigned


def _read_pseudo_labels(
    data_dir: str, dataset: Dataset, how: Conversion, names: Collection[str], faults: list[Fault]
) -> list[PlannedImage]:
    """Reads additional training images and their masks from a CSV; appends to `faults`.

    Images in `names`, the annotated training images, are faults.
    """
    path, size = str(how.pseudo_labels), how.rle_size or dataset.submission_size
    table, named, found = check_csv(path, dataset, size=size)
    if not found:
        check_mask_size(table, dataset, path, "--rle_size", size)
    twice = sorted(named & set(names))
    faults += found + [Fault(path, 0, f"{name} is a training image") for name in twice]
    folder = os.path.join(data_dir, dataset.test_images)
    return [
        PlannedImage(filename, tuple(rles), TRAINING_ONLY, size, folder)
        for filename, *rles in table[~table["filename"].isin(twice)].values.tolist()
    ]
