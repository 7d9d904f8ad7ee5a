"""Tables of predictions: the submission as CSV or Parquet, and numbers per image and class."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from clouds_tf import files
from clouds_tf.data.annotations import spelled, write_rows
from clouds_tf.dataset import Dataset
from clouds_tf.serving.answers import Answer

TABLE_COLUMNS = (
    *("filename", "class", "presence", "area_fraction", "expected_area_fraction"),
    "likeness",
)


def check_output(path: str) -> None:
    """Makes sure that a submission can be written; ValueError says why it cannot."""
    files.check_output(path)
    if _is_parquet(path):
        files.require("pyarrow", "parquet", path)


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


def write(path: str, rows: Iterable[tuple[str, str, str]], dataset: Dataset) -> None:
    """Writes the rows of a submission as they come, whole or not at all.

    Args:
        path: a Parquet file if it ends in .parquet, otherwise a CSV.
        rows: (file name, class name, RLE).
        dataset: names the columns and the spelling.
    """
    if not _is_parquet(path):
        write_rows(path, rows, dataset)
        return
    import pyarrow

    schema = pyarrow.schema([(name, pyarrow.string()) for name in dataset.columns])
    files.write_parquet(path, schema, spelled(rows, dataset))


def write_table(path: str, answers: Iterable[Answer], dataset: Dataset) -> None:
    """Writes a CSV of presence, areas and likeness, a row for every image and class.

    Numbers of unreadable images, and those that an older SavedModel does not give, are blank.
    """

    def rows() -> Iterator[tuple[object, ...]]:
        for answer in answers:
            numbers = (answer.presence, answer.area_fraction, answer.expected_area_fraction)
            columns = (dataset.class_names, *numbers)
            for row in itertools.zip_longest(*columns, fillvalue=""):
                yield (answer.filename, *row, answer.likeness)

    files.write_table(path, TABLE_COLUMNS, rows())
