"""Reads CSV and Parquet files as tables of strings with line numbers."""

from __future__ import annotations

import codecs
import gzip
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import files, gfile
from clouds_tf.messages import Fault

ROWS_AT_A_TIME = 1024  # bounds memory: a row of RLE is about 17 kB of text


def read_table(path: str, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV or a Parquet file as strings.

    Args:
        path: a CSV, which may be gzip-compressed or begin with a byte order mark; or a file whose
            name ends in .parquet.
        columns: required columns; blanks around a name in the CSV are ignored.

    Returns:
        A DataFrame of strings, "" for empty cells; its index is the line number, from 2.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, has no rows, or lacks a column.
    """
    if path.endswith(".parquet"):
        return _read_parquet(path, columns)
    return pd.concat(read_frames(path, columns))


def _read_parquet(path: str, columns: Sequence[str]) -> pd.DataFrame:
    files.require("pyarrow", "parquet", f"{path}: reading Parquet")
    with files.local_copy(path) as local:
        try:
            table = pd.read_parquet(local)
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise ValueError(f"{path}: not a Parquet file, or damaged: {error}") from None
    _check_columns(path, table, columns)
    if table.empty:
        raise ValueError(f"{path}: no rows")
    table = table[list(columns)].fillna("").astype(str)
    return table.set_index(pd.RangeIndex(2, len(table) + 2, name="line"))


def read_frames(path: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Reads like `read_table`, but yields some rows at a time."""
    if not gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    empty, line = True, 2
    with gfile.opened(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        text = codecs.getreader("utf-8-sig")(gzip.GzipFile(fileobj=file) if compressed else file)
        for frame in _parse(path, text):
            frame.columns = frame.columns.str.strip()
            _check_columns(path, frame, columns)
            for column in columns:
                second = list(frame.columns).count(column) > 1
                if second or f"{column}.1" in frame.columns:  # as pandas calls a second one
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


def _check_columns(path: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        got = ", ".join(map(repr, table.columns))
        raise ValueError(f"{path}: no column {missing[0]!r}, got {got}")


def repeated(path: str, table: pd.DataFrame, column: str) -> list[Fault]:
    """Finds rows of a `read_table` table that repeat the cell of a column of an earlier row."""
    again = table[column][table.duplicated(column)]
    return [Fault(path, line, f"second row for {name}") for line, name in again.items()]


def parse_cells(
    source: str | Iterable[str], rows_at_a_time: int, **options: Any
) -> Iterator[pd.DataFrame]:
    """Parses a CSV as text, some rows at a time: "" for empty cells, and a row for a blank line.

    Args:
        source: local path, or open file.
        rows_at_a_time: maximum number of rows in a DataFrame.
        **options: other arguments of `pandas.read_csv`.
    """
    frames = pd.read_csv(
        source,
        chunksize=rows_at_a_time,
        dtype=str,
        keep_default_na=False,
        skip_blank_lines=False,
        **options,
    )
    with frames:
        for frame in frames:
            yield frame.fillna("")


def _parse(path: str, text: Iterable[str]) -> Iterator[pd.DataFrame]:
    """Parses a CSV some rows at a time; any error becomes a ValueError with the path."""
    try:
        with warnings.catch_warnings():
            # Rows longer than the header: pandas would drop cells, or use them as an index.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield from parse_cells(text, ROWS_AT_A_TIME, index_col=False)
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
