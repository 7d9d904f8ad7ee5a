"""Decides which image of a data folder goes to which shard and fold."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from clouds_tf import files
from clouds_tf.data import folds
from clouds_tf.data.annotations import check_csv, presence
from clouds_tf.data.faults import Fault, raise_faults
from clouds_tf.data.geometry import check_geometry
from clouds_tf.dataset import TRAIN_CSV, TRAIN_IMAGES, Dataset

_DEFAULT_SHARDS = 16


@dataclasses.dataclass(frozen=True)
class PlannedImage:
    """One image of a shard to come.

    Attributes:
        filename: name of the image's file.
        rles: one RLE string per class, as the CSV has them.
        fold: the fold in which the image is held out.
    """

    filename: str
    rles: tuple[str, ...]
    fold: int


def plan_shards(
    data_dir: str,
    dataset: Dataset,
    num_shards: int | None = None,
    num_folds: int = 5,
    seed: int = 0,
    folds_csv: str | None = None,
    exclude: str | None = None,
) -> tuple[list[list[PlannedImage]], list[Fault]]:
    """Decides which image goes to which shard.

    Images are ordered by fold, shuffled within it, and cut into shards of equal count. So a shard
    holds one or two folds, and readers of one fold open only its shards.

    Args:
        data_dir: a folder with train.csv and train_images/.
        dataset: the data set that the folder holds.
        num_shards: number of files, from 1 to the number of images; None takes 16, or one for each
            image where there are fewer.
        num_folds: number of folds, from 2 to 1,000.
        seed: seed of the folds and of the order, at least 0.
        folds_csv: a CSV with the columns filename and fold, to take instead of new folds.
        exclude: a text file with a file name on each line: images to leave out.

    Returns:
        The images of each shard, and the faults in train.csv.

    Raises:
        FileNotFoundError, ValueError: there is no train.csv, its masks are of another size, a name
            to exclude is unknown, a fold is empty, or an argument is out of its range.
    """
    csv_path = os.path.join(data_dir, TRAIN_CSV)
    lines = files.read_text(exclude).splitlines() if exclude else []
    excluded = {line.strip() for line in lines} - {""}
    table, named, faults = check_csv(csv_path, dataset, excluded)
    images_dir = os.path.join(data_dir, TRAIN_IMAGES)
    found = files.list_names(images_dir)
    unknown = sorted(excluded - named - set(found))
    if unknown:
        raise ValueError(f"{exclude}: no image has the name {', '.join(map(repr, unknown))}")
    if not faults:
        check_geometry(table, dataset, csv_path, "--mask_size")
    faults += [
        Fault(os.path.join(images_dir, name), 0, f"no rows for it in {csv_path}")
        for name in found
        if name.lower().endswith((".jpg", ".jpeg"))
        and not name.startswith(".")
        and name not in named | excluded
    ]
    if num_shards is None:
        num_shards = max(1, min(_DEFAULT_SHARDS, len(table)))
    if not 1 <= num_shards <= len(table):
        raise_faults(faults)
        raise ValueError(
            f"num_shards: got {num_shards}, expected 1 to {len(table)}, one image each"
        )
    if folds_csv:
        assigned = folds.read_folds(folds_csv, table["filename"])
    else:
        assigned = folds.split_into_folds(presence(table), num_folds, seed)
        folds.check_folds(assigned, "num_folds")
    random_order = np.random.default_rng(seed).permutation(len(table))
    order = random_order[np.argsort(assigned[random_order], kind="stable")]
    images = [
        PlannedImage(filename, tuple(rles), int(fold))
        for (filename, *rles), fold in zip(table.values.tolist(), assigned)
    ]
    return [[images[i] for i in part] for part in np.array_split(order, num_shards)], faults
