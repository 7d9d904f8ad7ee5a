"""The rows of a submission: in parts while they are predicted, then in one file."""

import itertools
import json
import os

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import annotations
from clouds_tf.schema import LABEL_COLUMN, RLE_COLUMN

_SETTINGS_FILE = "settings.json"
_ROWS_AT_A_TIME = 4096  # of a row group of Parquet


def start_parts(folder, settings):
    """Makes a folder for the parts of a run, or finds that it holds parts of this run already.

    Args:
        folder: where the parts are.
        settings: a JSON-like dict; another one is another run.

    Raises:
        ValueError: the folder holds parts of another run.
    """
    path = os.path.join(folder, _SETTINGS_FILE)
    if tf.io.gfile.exists(path):
        earlier = json.loads(files.read_text(path))
        for key, value in settings.items():
            if earlier.get(key) != value:
                raise ValueError(
                    f"{folder}: holds parts of a run with {key}={earlier.get(key)}, got "
                    f"{key}={value}; give the same flags to go on with it, or remove the folder"
                )
    else:
        files.write_text(path, json.dumps(settings, indent=1) + "\n")


def _part(folder, number):
    return os.path.join(folder, f"{number:06d}.jsonl")


def has_part(folder, number):
    """Whether a part has been written."""
    return tf.io.gfile.exists(_part(folder, number))


def write_part(folder, number, rows):
    """Writes (file name, class name, RLE) rows, whole or not at all; None is unreadable."""
    files.write_text(_part(folder, number), "".join(json.dumps(row) + "\n" for row in rows))


def read_parts(folder, numbers):
    """Yields the rows of parts, one at a time."""
    for number in numbers:
        with tf.io.gfile.GFile(_part(folder, number)) as file:
            for line in file:
                yield json.loads(line)


def check_ending(path):
    """Raises ValueError if a file of this name cannot be written."""
    if _is_parquet(path):
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError(f"{path}: Parquet needs pip install 'clouds_tf[parquet]'") from None


def _is_parquet(path):
    return path.endswith(".parquet")


def write(path, rows):
    """Writes (file name, class name, RLE) rows as they come, whole or not at all.

    Args:
        path: a Parquet file if it ends in .parquet (which must be local), otherwise a CSV.
        rows: an iterable.
    """
    if not _is_parquet(path):
        annotations.write_rows(path, rows)
        return
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(LABEL_COLUMN, pyarrow.string()), (RLE_COLUMN, pyarrow.string())])
    rows = iter(rows)
    with files.written_whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while some := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
            columns = [f"{name}_{class_name}" for name, class_name, _ in some], [
                r for *_, r in some
            ]
            writer.write_table(pyarrow.table([pyarrow.array(c) for c in columns], schema=schema))
