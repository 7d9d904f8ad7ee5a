"""train.csv and submissions: read, checked, split into folds, written."""

import csv
import io

import numpy as np
import pandas as pd
import tensorflow as tf
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from clouds_tf import files, rle
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, LABEL_COLUMN, RLE_COLUMN

_ROWS_AT_A_TIME = 1024  # bounds the memory of checking: a row is about 17 kB of text


def read_rows(path):
    """Reads the rows of a CSV of labels, in their order, without looking at the RLE.

    Args:
        path: a CSV with the columns Image_Label ("<file name>_<class>") and EncodedPixels.

    Returns:
        A DataFrame of strings, a row per line of the file, with the columns filename, class and rle
        ("" where the class is absent); its index is the line number, from 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or a label is malformed; the first line is named.
    """
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    with tf.io.gfile.GFile(path, "rb") as file:
        content = io.BytesIO(file.read())
    try:
        frame = pd.read_csv(content, dtype=str, keep_default_na=False)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from None
    for column in (LABEL_COLUMN, RLE_COLUMN):
        if column not in frame.columns:
            raise ValueError(
                f"{path}: no column {column!r}, got {', '.join(map(repr, frame.columns))}"
            )
    if frame.empty:
        raise ValueError(f"{path}: no rows below the header")
    frame.index = pd.RangeIndex(2, 2 + len(frame), name="line")
    labels = frame[LABEL_COLUMN].str.rsplit("_", n=1, expand=True).reindex(columns=[0, 1])
    rows = pd.DataFrame({"filename": labels[0], "class": labels[1], "rle": frame[RLE_COLUMN]})
    unknown = ~rows["class"].isin(CLASS_NAMES) | (rows["filename"] == "")
    if unknown.any():
        line = unknown.idxmax()
        raise ValueError(
            f"{path}, line {line}: got the label {frame[LABEL_COLUMN][line]!r}, expected "
            f"<file name>_<class> with a class of {', '.join(CLASS_NAMES)}"
        )
    return rows


def read_csv(path, size=IMAGE_SIZE):
    """Reads and checks a CSV of labels.

    Args:
        path: a CSV as `read_rows` takes it, with each of the four classes once for every image.
        size: (height, width) of the masks that the RLE encodes.

    Returns:
        A DataFrame of strings, a row per image in order of first appearance, with the columns
        filename and one for each of CLASS_NAMES: its RLE, "" where the class is absent.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column, label, class or RLE is wrong; file, line, image and class are named.
    """
    rows = read_rows(path)
    twice = rows.duplicated(["filename", "class"])
    if twice.any():
        row = rows.loc[twice.idxmax()]
        raise ValueError(
            f"{path}, line {row.name}: {row['filename']} has a second row for {row['class']}"
        )
    _check_rle(rows, path, size)
    table = rows.pivot(index="filename", columns="class", values="rle")
    table = table.reindex(index=rows["filename"].unique(), columns=list(CLASS_NAMES))
    missing = table.isna()
    if missing.any(axis=None):
        filename = missing.any(axis=1).idxmax()
        raise ValueError(
            f"{path}: {filename} has no row for {missing.loc[filename].idxmax()}; "
            f"expected one row for each of {', '.join(CLASS_NAMES)}"
        )
    return table.rename_axis(columns=None).reset_index()


def _check_rle(rows, path, size):
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows.iloc[start : start + _ROWS_AT_A_TIME]
        faults = rle.faults(tf.constant(some["rle"].tolist()), size).numpy()
        for row, fault in zip(some.itertuples(), faults):
            if fault:
                raise ValueError(
                    f"{path}, line {row.Index}: {row.filename}, {row[2]}: {fault.decode()}"
                )


def presence(table):
    """Which classes each image of a `read_csv` table has: bool [N, 4]."""
    return (table[list(CLASS_NAMES)] != "").to_numpy(dtype=bool)


def split_into_folds(labels, num_folds, seed):
    """Gives every image a fold, each fold with about the same share of every class.

    Args:
        labels: which classes each image has, bool [N, 4].
        num_folds: number of folds, from 2 to N.
        seed: another seed, another split.

    Returns:
        The fold of each image, int64 [N] in [0, num_folds).

    Raises:
        ValueError: fewer images than folds, or fewer than two folds.
    """
    if not 2 <= num_folds <= len(labels):
        raise ValueError(f"num_folds: got {num_folds}, expected 2 to {len(labels)}, one image each")
    folds = np.empty(len(labels), np.int64)
    splitter = MultilabelStratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, members) in enumerate(splitter.split(labels, labels)):
        folds[members] = fold
    return folds


def write_rows(path, rows):
    """Writes a CSV of labels, row by row as they come, whole or not at all.

    Args:
        path: the CSV to write.
        rows: an iterable of (file name, class name, RLE) strings.

    Returns:
        The number of rows.
    """
    count = 0
    with files.written_whole(path) as temporary, tf.io.gfile.GFile(temporary, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([LABEL_COLUMN, RLE_COLUMN])
        for filename, class_name, encoded in rows:
            writer.writerow([f"{filename}_{class_name}", encoded])
            count += 1
    return count


def write_csv(path, filenames, rles):
    """Writes the four rows of every image, in the order of CLASS_NAMES.

    Args:
        path: the CSV to write, whole or not at all.
        filenames: N file names.
        rles: N times four RLE strings, "" where the class is absent.
    """
    write_rows(
        path,
        (
            (filename, class_name, encoded)
            for filename, image_rles in zip(filenames, rles)
            for class_name, encoded in zip(CLASS_NAMES, image_rles)
        ),
    )
