"""The CSV of annotations and of submissions: read, checked and written."""

from __future__ import annotations

import codecs
import gzip
import re
import typing
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, raise_faults

_MARKS_OF_ABSENCE = ("-1", "nan", "none", "null", "na")  # in other people's tables
_ROWS_AT_A_TIME = 1024  # bounds memory: a row is about 17 kB of text

# `check_mask_size` needs this many steps between runs, and this share of them to be the same.
_MIN_STEPS = 100
_MIN_SHARE = 0.25  # 0.63 to 0.74 in the masks of the competition


def iterate_rows(path: str, dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    """Yields (file name, class name, RLE) of every row of a CSV, in constant memory.

    Args:
        path: a CSV with the columns of the data set.
        dataset: names the columns and the classes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or labels are malformed; the first ten are named.
    """
    for frame in _read_frames(path, dataset.columns):
        rows, faults = _split_labels(path, frame, dataset)
        raise_faults(faults)
        yield from rows.itertuples(index=False, name=None)


def _split_labels(
    path: str, frame: pd.DataFrame, dataset: Dataset
) -> tuple[pd.DataFrame, list[Fault]]:
    """Splits labels into file names and classes: the well-formed rows, and faults of the others."""
    if len(dataset.label_columns) == 1:
        # The longest class name wins, where one ends in another.
        names = "|".join(map(re.escape, sorted(dataset.class_names, key=len, reverse=True)))
        shown = frame[dataset.label_columns[0]]
        labels = shown.str.extract(f"^(.+?)_({names})$", flags=re.DOTALL)
        expected = "the label {!r}, expected <file name>_<class> with a class of "
    else:
        labels = frame[list(dataset.label_columns)].set_axis([0, 1], axis=1)
        shown = labels[1].where(labels[0] != "", "")
        expected = "the class {!r}, expected a file name and a class of "
    found = frame[dataset.rle_column]
    rows = pd.DataFrame({"filename": labels[0], "class": labels[1], "rle": found})
    unknown = ~rows["class"].isin(dataset.class_names) | (rows["filename"] == "")
    faults = [
        Fault(path, line, f"got {expected.format(label)}{', '.join(dataset.class_names)}")
        for line, label in shown[unknown].items()
    ]
    # Names become paths of files that are read and written: none may lead out of a folder.
    paths = ~unknown & rows["filename"].str.contains(r"[/\\\0]|^\.\.?$", na=False)
    faults += [
        Fault(path, line, f"got the file name {name!r}, expected one without a folder")
        for line, name in rows["filename"][paths].items()
    ]
    return rows[~unknown & ~paths], faults


def read_table(path: str, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV as strings.

    Args:
        path: a CSV, which may be compressed by gzip or begin with a byte order mark.
        columns: the columns that it must have.

    Returns:
        A DataFrame of strings, "" for empty cells; its index is the line number, from 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no rows, or lacks a column.
    """
    return pd.concat(_read_frames(path, columns))


def _read_frames(path: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yields what `read_table` reads, some rows at a time."""
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    empty, line = True, 2
    with tf.io.gfile.GFile(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        text = codecs.getreader("utf-8-sig")(gzip.GzipFile(fileobj=file) if compressed else file)
        for frame in _parse(path, text):
            for column in columns:
                if column not in frame.columns:
                    raise ValueError(
                        f"{path}: no column {column!r}, got {', '.join(map(repr, frame.columns))}"
                    )
                if f"{column}.1" in frame.columns:  # as pandas calls a second one
                    raise ValueError(f"{path}: two columns {column!r}")
            # A quoted cell may have several lines.
            breaks = sum(np.array([x.count("\n") for x in frame[name]]) for name in frame)
            frame.index = pd.Index(line + np.cumsum(1 + breaks) - 1 - breaks, name="line")
            line += len(frame) + int(np.sum(breaks))
            frame = frame[(frame != "").any(axis=1)]
            empty &= frame.empty
            yield frame
    if empty:
        raise ValueError(f"{path}: no rows below the header")


def _parse(path: str, text: typing.Any) -> Iterator[pd.DataFrame]:
    """Parses a CSV some rows at a time; whatever goes wrong becomes a ValueError with the path."""
    try:
        with warnings.catch_warnings():
            # Rows longer than the header: pandas would drop cells, or make an index of them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frames = pd.read_csv(
                text,
                chunksize=_ROWS_AT_A_TIME,
                index_col=False,
                dtype=str,
                keep_default_na=False,
                skip_blank_lines=False,
            )
            for frame in frames:
                yield frame.fillna("")
    except pd.errors.ParserWarning:
        raise ValueError(
            f"{path}: rows have more cells than the header has columns (commas at their ends?)"
        ) from None
    except (
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        EOFError,
        OSError,
        ValueError,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: not a CSV file, or damaged: {error}") from None


def read_csv(path: str, dataset: Dataset, size: tuple[int, int] | None = None) -> pd.DataFrame:
    """Reads and checks a CSV of annotations or of a submission.

    Args:
        path: a CSV with one row for every class of every image.
        dataset: names the columns and the classes.
        size: (height, width) of the masks that the RLE encodes; None takes dataset.mask_size.

    Returns:
        A DataFrame of strings, a row per image in order of first appearance, with the columns
        filename and one per class: its RLE as in the file, "" where the class is absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: columns, labels, classes or RLE are wrong; the first ten faults are named by
            file, line, image and class.
    """
    table, _, faults = _check(path, dataset, size or dataset.mask_size, ())
    raise_faults(faults)
    return table


def check_csv(
    path: str, dataset: Dataset, exclude: Collection[str] = ()
) -> tuple[pd.DataFrame, set[str], list[Fault]]:
    """Reads a CSV of annotations, leaving out images that have a fault.

    Args:
        path: a CSV with one row for every class of every image.
        dataset: names the columns and the classes, and has the size of the masks.
        exclude: file names whose rows are ignored.

    Returns:
        The table of the images without fault, as `read_csv` returns it; the set of the names of all
        images; and the list of all faults.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no such table.
    """
    return _check(path, dataset, dataset.mask_size, exclude)


def _check(
    path: str, dataset: Dataset, size: tuple[int, int], exclude: Collection[str]
) -> tuple[pd.DataFrame, set[str], list[Fault]]:
    """Reads and checks a CSV; returns what `check_csv` does."""
    rows, faults = _split_labels(path, read_table(path, dataset.columns), dataset)
    rows = rows[~rows["filename"].isin(exclude)]
    twice = rows.duplicated(["filename", "class"])
    faulty = set()

    def add(line: int, filename: str, reason: str) -> None:
        faulty.add(filename)
        faults.append(Fault(path, line, f"{filename}{reason}"))

    for row in rows[twice].itertuples():
        add(row.Index, row.filename, f" has a second row for {row[2]}")
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows.iloc[start : start + _ROWS_AT_A_TIME]
        reasons = rle.faults(tf.constant(some["rle"].tolist()), size).numpy()
        for row, reason in zip(some.itertuples(), reasons):
            if row.rle.strip().lower() in _MARKS_OF_ABSENCE:
                reason = f"got {row.rle!r}; leave the cell of an absent class empty".encode()
            if reason:
                add(row.Index, row.filename, f", {row[2]}: {reason.decode()}")
    table = rows[~twice].pivot(index="filename", columns="class", values="rle")
    table = table.reindex(index=rows["filename"].unique(), columns=list(dataset.class_names))
    for filename, missing in table[table.isna().any(axis=1)].isna().iterrows():
        names, expected = ", ".join(missing.index[missing]), ", ".join(dataset.class_names)
        add(0, filename, f" has no row for {names}; expected one row for each of {expected}")
    table = table[~table.index.isin(faulty)]
    table = table.rename_axis(columns=None).reset_index()
    return table, set(rows["filename"]), sorted(faults)


def check_mask_size(
    table: pd.DataFrame, dataset: Dataset, path: str, flag: str, size: tuple[int, int] | None = None
) -> None:
    """Makes sure that the RLE of a table can be of masks of a size, by the step from run to run.

    Masks are blunt shapes, so most runs begin exactly one column (one row, where the RLE runs along
    rows) after the run before: the most frequent step between starts is the height (the width) of
    the masks. Tables with too few runs to tell pass.

    Args:
        table: masks as `read_csv` returns them.
        dataset: has the order of the RLE.
        path: the file, for the message.
        flag: the flag or argument that sets the size, for the message.
        size: (height, width) that the masks were read with; None for dataset.mask_size.

    Raises:
        ValueError: the runs are those of masks of another height or width.
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
    """The most frequent step between the starts of runs; None where no step is frequent."""
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
    """Which classes each image of a `read_csv` table has: bool [N, C]."""
    return (table.drop(columns="filename") != "").to_numpy(dtype=bool)


def write_rows(path: str, rows: Iterable[tuple[str, str, str]], dataset: Dataset) -> int:
    """Writes annotations or a submission row by row as they come, whole or not at all.

    Args:
        path: the CSV to write.
        rows: (file name, class name, RLE) strings; the RLE in the order of the data set.
        dataset: names the columns.

    Returns:
        The number of rows.
    """
    count = 0

    def cells() -> Iterator[tuple[str, ...]]:
        nonlocal count
        for filename, class_name, encoded in rows:
            count += 1
            yield (*dataset.label(filename, class_name), encoded)

    files.write_table(path, dataset.columns, cells())
    return count


def write_csv(
    path: str, filenames: Iterable[str], rles: Iterable[Sequence[str]], dataset: Dataset
) -> None:
    """Writes one row for every class of every image, whole or not at all.

    Args:
        path: the CSV to write.
        filenames: N file names.
        rles: N times one RLE string per class, "" where the class is absent.
        dataset: names the columns and the classes.
    """
    rows = (
        (filename, class_name, encoded)
        for filename, image_rles in zip(filenames, rles)
        for class_name, encoded in zip(dataset.class_names, image_rles)
    )
    write_rows(path, rows, dataset)
