"""train.csv and submissions: read, checked, split into folds, written."""

import codecs
import csv
import gzip
import typing
import warnings
import zlib

import numpy as np
import pandas as pd
import tensorflow as tf
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from clouds_tf import files, rle
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, LABEL_COLUMN, RLE_COLUMN

_ROWS_AT_A_TIME = 1024  # bounds memory: a row is about 17 kB of text
_LISTED_FAULTS = 10  # in an error
_MAX_FOLDS = 1000
_TELLING_STEPS = 100  # the fewest steps from run to run that tell the height of masks
_TELLING_SHARE = 0.25  # of all steps; it is 0.63 to 0.74 in the masks of the competition


class Fault(typing.NamedTuple):
    """What is wrong with the data: the file, the line in it (0 if there are none), the reason."""

    file: str
    line: int
    reason: str

    def __str__(self):
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


def raise_faults(faults):
    """Raises one ValueError that lists the first ten faults, one a line; nothing without faults."""
    if len(faults) == 1:
        raise ValueError(str(faults[0]))
    if faults:
        lines = [f"{len(faults)} faults:", *map(str, faults[:_LISTED_FAULTS])]
        if len(faults) > _LISTED_FAULTS:
            lines.append(f"and {len(faults) - _LISTED_FAULTS} more")
        raise ValueError("\n  ".join(lines))


def read_rows(path):
    """Reads the rows of a CSV of labels, in their order, without looking at the RLE.

    The file may be compressed by gzip, begin with a byte order mark, and have other columns too.

    Args:
        path: a CSV with the columns Image_Label ("<file name>_<class>") and EncodedPixels.

    Returns:
        A DataFrame of strings, a row per line of the file, with the columns filename, class and rle
        ("" where the class is absent); its index is the line number, from 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or labels are malformed; all of them are named.
    """
    rows, faults = _read_labels(path)
    raise_faults(faults)
    return rows


def iterate_rows(path):
    """Yields (file name, class name, RLE) of what `read_rows` reads, in constant memory."""
    for frame in _read_frames(path, (LABEL_COLUMN, RLE_COLUMN)):
        rows, faults = _split_labels(path, frame)
        raise_faults(faults)
        yield from rows.itertuples(index=False, name=None)


def _read_labels(path):
    """As `read_rows`, but gives the well-formed rows and the faults of the others."""
    return _split_labels(path, _read_frame(path, (LABEL_COLUMN, RLE_COLUMN)))


def _split_labels(path, frame):
    """The columns of labels and RLE -> rows as `read_rows` gives them, and faults."""
    labels = frame[LABEL_COLUMN].str.rsplit("_", n=1, expand=True).reindex(columns=[0, 1])
    rows = pd.DataFrame({"filename": labels[0], "class": labels[1], "rle": frame[RLE_COLUMN]})
    unknown = ~rows["class"].isin(CLASS_NAMES) | (rows["filename"] == "")
    faults = [
        Fault(
            path,
            line,
            f"got the label {label!r}, expected <file name>_<class> with a class of "
            + ", ".join(CLASS_NAMES),
        )
        for line, label in frame[LABEL_COLUMN][unknown].items()
    ]
    return rows[~unknown], faults


def _read_frame(path, columns):
    """A DataFrame of strings, "" for what is empty; its index is the line number, from 2."""
    return pd.concat(_read_frames(path, columns))


def _read_frames(path, columns):
    """As `_read_frame`, but yields some rows at a time."""
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    empty = True
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
            frame.index = (frame.index + 2).rename("line")
            frame = frame[(frame != "").any(axis=1)]
            empty &= frame.empty
            yield frame
    if empty:
        raise ValueError(f"{path}: no rows below the header")


def _parse(path, text):
    options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False}
    try:
        with warnings.catch_warnings():
            # Rows longer than the header: pandas would drop cells, or make an index of them.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frames = pd.read_csv(text, chunksize=_ROWS_AT_A_TIME, index_col=False, **options)
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
        ValueError: columns, labels, classes or RLE are wrong; all of them are named by file, line,
            image and class.
    """
    table, _, faults = check_csv(path, size)
    raise_faults(faults)
    return table


def check_csv(path, size=IMAGE_SIZE, exclude=()):
    """Reads a CSV of labels as `read_csv` does, without those images that have a fault.

    Args:
        path: as `read_csv` has it.
        size: as `read_csv` has it.
        exclude: file names whose rows are not looked at.

    Returns:
        The table of the images without fault, the set of the names of all images, and the list of
        all faults.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no such table.
    """
    rows, faults = _read_labels(path)
    rows = rows[~rows["filename"].isin(exclude)]
    twice = rows.duplicated(["filename", "class"])
    faulty = set()

    def add(line, filename, reason):
        faulty.add(filename)
        faults.append(Fault(path, line, f"{filename}{reason}"))

    for row in rows[twice].itertuples():
        add(row.Index, row.filename, f" has a second row for {row[2]}")
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        some = rows.iloc[start : start + _ROWS_AT_A_TIME]
        reasons = rle.faults(tf.constant(some["rle"].tolist()), size).numpy()
        for row, reason in zip(some.itertuples(), reasons):
            if reason:
                add(row.Index, row.filename, f", {row[2]}: {reason.decode()}")
    table = rows[~twice].pivot(index="filename", columns="class", values="rle")
    table = table.reindex(index=rows["filename"].unique(), columns=list(CLASS_NAMES))
    for filename, missing in table[table.isna().any(axis=1)].isna().iterrows():
        names = ", ".join(missing.index[missing])
        expected = ", ".join(CLASS_NAMES)
        add(0, filename, f" has no row for {names}; expected one row for each of {expected}")
    table = table[~table.index.isin(faulty)]
    table = table.rename_axis(columns=None).reset_index()
    return table, set(rows["filename"]), sorted(faults)


def read_folds(path, filenames):
    """Reads the fold of every image.

    Args:
        path: a CSV with the columns filename and fold, as folds.csv beside the shards.
        filenames: N file names; the CSV may have more.

    Returns:
        The folds, int64 [N] from 0 on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an image has no fold, or a fold is not a whole number.
    """
    frame = _read_frame(path, ("filename", "fold"))
    faults = [
        Fault(path, line, f"got the fold {fold!r}, expected 0, 1, 2, ...")
        for line, fold in frame["fold"][~frame["fold"].str.fullmatch("[0-9]+")].items()
    ]
    folds = dict(zip(frame["filename"], frame["fold"]))
    faults += [Fault(path, 0, f"no fold for {name}") for name in filenames if name not in folds]
    raise_faults(faults)
    taken = np.array([int(folds[name]) for name in filenames], np.int64)
    check_folds(taken, path)
    return taken


def check_folds(folds, origin):
    """Makes sure that every fold from 0 to the last one has an image.

    Args:
        folds: the fold of each image, int [N].
        origin: where the folds come from, for the message.

    Raises:
        ValueError: a fold has no image, or there are more than 1,000; says which.
    """
    if max(folds, default=0) >= _MAX_FOLDS:
        raise ValueError(f"{origin}: got the fold {max(folds)}, expected less than {_MAX_FOLDS}")
    empty = sorted(set(range(max(folds, default=0) + 1)) - set(map(int, folds)))
    if empty:
        raise ValueError(
            f"{origin}: no image has the fold {', '.join(map(str, empty))}; expected images in "
            f"every fold from 0 to {max(folds, default=0)}"
        )


def write_table(path, columns, rows):
    """Writes a CSV with these columns, whole or not at all."""
    with files.written_whole(path) as temporary, tf.io.gfile.GFile(temporary, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def check_geometry(table, size, path, flag):
    """Makes sure that masks can be of a size, by the step from run to run.

    Masks are blunt shapes, so that most runs begin one column after the run before them: the most
    frequent step between starts is the height of the masks.

    Args:
        table: as `read_csv` gives it; its masks have been read as those of `size`.
        size: (height, width).
        path: the file, for the message.
        flag: the flag that sets the size, for the message.

    Raises:
        ValueError: the runs are those of masks of another height.
    """
    height = _height(table[list(CLASS_NAMES)].to_numpy().ravel())
    if height is not None and height != size[0]:
        raise ValueError(
            f"{path}: the runs are those of masks of {height} rows, got {size[0]}x{size[1]} "
            f"(height x width); give their size with {flag}"
        )


def _height(rles):
    """The height of the masks of some RLE, None where it does not show."""
    steps = []
    for text in filter(None, rles):
        steps.append(np.diff(np.array(text.split()[::2], np.int64)))
        if sum(map(len, steps)) > 1_000_000:
            break
    values, counts = np.unique(np.concatenate([[], *steps]), return_counts=True)
    if counts.sum() < _TELLING_STEPS or counts.max() < _TELLING_SHARE * counts.sum():
        return None
    return int(values[counts.argmax()])


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

    def cells():
        nonlocal count
        for filename, class_name, encoded in rows:
            count += 1
            yield f"{filename}_{class_name}", encoded

    write_table(path, (LABEL_COLUMN, RLE_COLUMN), cells())
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
