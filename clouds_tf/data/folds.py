"""Folds of a cross-validation: drawn with stratified classes, read, and checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from clouds_tf.data.annotations import read_table
from clouds_tf.data.faults import Fault, raise_faults

MAX_FOLDS = 1000


def split_into_folds(labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Assigns every image to a fold, each fold with about the same share of every class.

    Args:
        labels: which classes each image has, bool [N, C].
        num_folds: number of folds, from 2 to N.
        seed: seed of the split, at least 0.

    Returns:
        The fold of each image, int64 [N] in [0, num_folds).

    Raises:
        ValueError: fewer images than folds, or fewer than two folds.
    """
    # Imported here, because scikit-learn and scipy.stats would add a second to every start.
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    if len(labels) < 2:
        raise ValueError(f"num_folds: got {len(labels)} image without fault, expected at least 2")
    if not 2 <= num_folds <= min(len(labels), MAX_FOLDS):
        most = min(len(labels), MAX_FOLDS)
        raise ValueError(f"num_folds: got {num_folds}, expected 2 to {most}, one image each")
    if labels.shape[1] == 1:  # the splitter wants several labels: with the class, and without it
        labels = np.column_stack([labels, ~labels])
    folds = np.empty(len(labels), np.int64)
    splitter = MultilabelStratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(labels, labels)):
        folds[members] = fold
    return folds


def read_folds(path: str, filenames: Sequence[str]) -> np.ndarray:
    """Reads the fold of every image from a CSV.

    Args:
        path: a CSV with the columns filename and fold, such as the folds.csv beside the shards.
        filenames: N file names; the CSV may have more.

    Returns:
        The folds, int64 [N] from 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an image has no fold or two rows, a fold is not a whole number, or a fold has
            no image.
    """
    frame = read_table(path, ("filename", "fold"))
    faults = [
        Fault(path, line, f"got the fold {fold!r}, expected 0, 1, 2, ...")
        for line, fold in frame["fold"][~frame["fold"].str.fullmatch("[0-9]+")].items()
    ]
    faults += [
        Fault(path, line, f"second row for {name}")
        for line, name in frame["filename"][frame.duplicated("filename")].items()
    ]
    folds = dict(zip(frame["filename"], frame["fold"]))
    faults += [Fault(path, 0, f"no fold for {name}") for name in filenames if name not in folds]
    raise_faults(faults)
    found = [int(folds[name]) for name in filenames]
    check_folds(found, path)
    return np.array(found, np.int64)


def check_folds(folds: Iterable[int], origin: str) -> None:
    """Makes sure that every fold from 0 to the last one has an image.

    Args:
        folds: the fold of each image.
        origin: where the folds come from, for the message.

    Raises:
        ValueError: a fold has no image, or is 1,000 or more; the message names it.
    """
    found = set(map(int, folds))
    last = max(found, default=0)
    if last >= MAX_FOLDS:
        raise ValueError(f"{origin}: got the fold {last}, expected less than {MAX_FOLDS}")
    empty = sorted(set(range(last + 1)) - found)
    if empty:
        raise ValueError(
            f"{origin}: no image has the fold {', '.join(map(str, empty))}; expected images in "
            f"every fold from 0 to {last}"
        )
