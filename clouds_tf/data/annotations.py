"""Reads, checks and writes CSV files of annotations and submissions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data import spelling
from clouds_tf.data.csv_tables import ROWS_AT_A_TIME, read_frames, read_table
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, raise_faults

_MARKS_OF_ABSENCE = ("-1", "nan", "none", "null", "na")  # in other people's tables
_COUNTED_PLAINLY = " (counting pixels from 1, with absolute starts)"

# `check_mask_size` needs this many steps between runs, and this share of them to be the same.
_MIN_STEPS = 100
_MIN_SHARE = 0.25  # 0.63 to 0.74 in the masks of the competition


def iterate_rows(path: str, dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Yields (file name, class name, plain RLE) of every row of a CSV, in constant memory.

    Args:
        path: a CSV with the columns of the data set.
        dataset: names the columns and the classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or labels are malformed; the first ten are named.
    """
    for frame in read_frames(path, dataset.columns):
        rows, faults = _split_labels(path, frame, dataset)
        raise_faults(faults)
        yield from rows.itertuples(index=False, name=None)


def _split_labels(
    path: str, frame: pd.DataFrame, dataset: Dataset
) -> tuple[pd.DataFrame, list[Fault]]:
    """Splits labels into file names and classes: the well-formed rows, and faults of the others."""
    columns = [frame[name] for name in dataset.label_columns]
    shown = columns[-1]
    if not dataset.names_class:
        labels = pd.DataFrame({0: shown, 1: dataset.class_names[0]})
        expected = "the image {!r}, expected a file name for "
    elif len(columns) == 1:
        # If one class name ends in another, the longest wins.
        names = "|".join(map(re.escape, sorted(dataset.class_names, key=len, reverse=True)))
        labels = shown.str.extract(f"^(.+?)_({names})$", flags=re.DOTALL)
        expected = "the label {!r}, expected <file name>_<class> with a class of "
    else:
        labels = pd.DataFrame({0: columns[0], 1: shown})
        shown = shown.where(labels[0] != "", "")
        expected = "the class {!r}, expected a file name and a class of "
    found = frame[dataset.rle_column]
    if dataset.absent:
        found = found.where(found.str.strip() != dataset.absent, "")
    if not spelling.is_plain(dataset):
        found = found.map(lambda text: spelling.to_plain(text, dataset))
    filenames = labels[0].where(labels[0] == "", labels[0] + dataset.image_ending)
    rows = pd.DataFrame({"filename": filenames, "class": labels[1], "rle": found})
    unknown = ~rows["class"].isin(dataset.class_names) | (rows["filename"] == "")
    faults = [
        Fault(path, line, f"got {expected.format(label)}{', '.join(dataset.class_names)}")
        for line, label in shown[unknown].items()
    ]
    # Names become paths of files to read and write, which must stay inside a folder.
    paths = ~unknown & rows["filename"].str.contains(files.UNSAFE_NAME, na=False)
    faults += [
        Fault(path, line, f"got the file name {name!r}, expected one without a folder")
        for line, name in rows["filename"][paths].items()
    ]
    return rows[~unknown & ~paths], faults


def read_csv(path: str, dataset: Dataset, size: tuple[int, int] | None = None) -> pd.DataFrame:
    """Reads and checks a CSV of annotations or of a submission.

    Args:
        path: a CSV with one row for every class of every image.
        dataset: names the columns and the classes.
        size: (height, width) of the masks that the RLE encodes; None takes dataset.mask_size.

    Returns:
        A DataFrame of strings with one row per image, in order of first appearance. Its columns
        are filename and one per class: the plain RLE in the order of the data set, "" where the
        class is absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: columns, labels, classes or RLE are wrong; the first ten faults are named by
            file, line, image and class.
    """
    table, _, faults = check_csv(path, dataset, size=size)
    raise_faults(faults)
    return table


def check_csv(
    path: str,
    dataset: Dataset,
    exclude: Collection[str] = (),
    size: tuple[int, int] | None = None,
) -> tuple[pd.DataFrame, set[str], list[Fault]]:
    """Reads a CSV like `read_csv`, without the images in `exclude` and faulty ones.

    Returns:
        The table of the faultless images, the set of the names of all images, and all faults.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or not a table of annotations.
    """
    size = size or dataset.mask_size
    rows, faults = _split_labels(path, read_table(path, dataset.columns), dataset)
    rows = rows[~rows["filename"].isin(exclude)]
    names = rows["filename"].unique()
    faulty = set()

    def add(line: int, filename: str, reason: str) -> None:
        faulty.add(filename)
        faults.append(Fault(path, line, f"{filename}{reason}"))

    if dataset.repeated_rows == "error":
        for row in rows[rows.duplicated(["filename", "class"])].itertuples():
            add(row.Index, row.filename, f" has a second row for {row[2]}")
    note = "" if spelling.is_plain(dataset) else _COUNTED_PLAINLY
    for start in range(0, len(rows), ROWS_AT_A_TIME):
        some = rows.iloc[start : start + ROWS_AT_A_TIME]
        reasons = rle.faults(tf.constant(some["rle"].tolist()), size).numpy()
        for row, reason in zip(some.itertuples(), reasons):
            if row.rle.strip().lower() in _MARKS_OF_ABSENCE:
                advice = 'leave the cell of an absent class empty, or set "absent" in --dataset'
                add(row.Index, row.filename, f", {row[2]}: got {row.rle!r}; {advice}")
            elif reason:
                add(row.Index, row.filename, f", {row[2]}: {reason.decode()}{note}")
    if dataset.repeated_rows != "error":
        rows = _join_repeated(rows, faulty)
    rows = rows[~rows.duplicated(["filename", "class"])]
    table = rows.pivot(index="filename", columns="class", values="rle")
    table = table.reindex(index=names, columns=list(dataset.class_names))
    if dataset.missing_rows == "absent":
        table = table.fillna("")
    for filename, missing in table[table.isna().any(axis=1)].isna().iterrows():
        lacking, expected = ", ".join(missing.index[missing]), ", ".join(dataset.class_names)
        add(0, filename, f" has no row for {lacking}; expected one row for each of {expected}")
    table = table[~table.index.isin(faulty)]
    table = table.rename_axis(index="filename", columns=None).reset_index()
    return table, set(names), sorted(faults)


def _join_repeated(rows: pd.DataFrame, faulty: Collection[str]) -> pd.DataFrame:
    """Joins the rows of the same image and class, except in faulty images."""
    key = ["filename", "class"]
    several = rows.duplicated(key, keep=False) & ~rows["filename"].isin(faulty)
    groups = rows[several].groupby(key, sort=False, as_index=False)
    return pd.concat([rows[~several], groups.agg({"rle": spelling.union})])


def check_mask_size(
    table: pd.DataFrame, dataset: Dataset, path: str, flag: str, size: tuple[int, int] | None = None
) -> None:
    """Checks the size of the masks that an RLE table encodes, by the distances between runs.

    Masks are compact shapes, so most runs start exactly one column after the previous run (one
    row, if the RLE runs along rows): the most frequent distance between starts is the height (or
    width) of the masks. Tables with too few runs pass.

    Args:
        table: masks as `read_csv` returns them.
        dataset: has the order of the RLE.
        path: the file, for the message.
        flag: the flag or argument that sets the size, for the message.
        size: (height, width) that the masks were read with; None for dataset.mask_size.

    Raises:
        ValueError: the runs belong to masks of another height or width.
    """
    size = size or dataset.mask_size
    along_rows = dataset.rle_order == "rows"
    step = _most_frequent_step(table.drop(columns="filename").to_numpy().ravel())
    if step is not None and step != size[along_rows]:
        other = "columns" if along_rows else "rows"
        order = f", or rle_order={other!r} if it is {size[0]}x{size[1]}"
        raise ValueError(
            f"{path}: the runs are those of masks of {step} {'columns' if along_rows else 'rows'}, "
            f"got {size[0]}x{size[1]} (height x width); give their size with {flag}"
            f"{order if step == size[not along_rows] else ''}"
        )


def _most_frequent_step(rles: Iterable[str]) -> int | None:
    """The most frequent distance between the starts of runs; None if none is frequent."""
    steps: list[np.ndarray] = []
    for text in filter(None, rles):
        steps.append(np.diff(np.array(text.split()[::2], np.int64)))
        if sum(map(len, steps)) > 1_000_000:
            break
    values, counts = np.unique(np.concatenate([[], *steps]), return_counts=True)
    if counts.sum() < _MIN_STEPS or counts.max() < _MIN_SHARE * counts.sum():
        return None
    return int(values[counts.argmax()])


def presence(table: pd.DataFrame) -> np.ndarray:
    """Presence of each class in each image of a `read_csv` table: bool [N, C]."""
    return (table.drop(columns="filename") != "").to_numpy(dtype=bool)


def spelled(
    rows: Iterable[tuple[str, str, str]], dataset: Dataset, size: tuple[int, int] | None = None
) -> Iterator[tuple[str, ...]]:
    """Yields the cells of a CSV in the format of a data set.

    Args:
        rows: (file name, class name, plain RLE in the order of the data set).
        dataset: defines the format.
        size: (height, width) of the masks; None takes dataset.submission_size.
    """
    for filename, class_name, encoded in rows:
        parts = [encoded]
        if dataset.repeated_rows == "objects" and encoded.strip():
            parts = spelling.objects(encoded, size or dataset.submission_size, dataset.rle_order)
        for part in parts:
            yield (*dataset.label(filename, class_name), spelling.from_plain(part, dataset))


def write_csv(
    path: str,
    filenames: Iterable[str],
    rles: Iterable[Sequence[str]],
    dataset: Dataset,
    size: tuple[int, int] | None = None,
) -> None:
    """Writes one row for every class of every image, whole or not at all.

    Under missing_rows="absent", absent classes have no row.

    Args:
        path: the CSV to write.
        filenames: N file names.
        rles: N times one plain RLE string per class, "" where the class is absent.
        dataset: names the columns, the classes and the spelling.
        size: (height, width) of the masks; None takes dataset.submission_size.
    """
    rows = (
        (filename, class_name, encoded)
        for filename, image_rles in zip(filenames, rles)
        for class_name, encoded in zip(dataset.class_names, image_rles)
        if encoded or dataset.missing_rows == "error"
    )
    files.write_table(path, dataset.columns, spelled(rows, dataset, size))
