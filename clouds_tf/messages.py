"""Messages: faults of data in one line, counts with nouns, tables, short reprs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from typing import Any

_LISTED_FAULTS = 10  # in an error
_REDIRECTING = threading.Lock()
# Lines about the graph instead of the data.
_ABOUT_THE_GRAPH = re.compile(
    r"\s*(\[\[|Graph execution error|Detected at node|File \"|<stack|\d+ root error|$)"
)
# Prefix of errors of the input pipeline since TensorFlow 2.20.
_OF_THE_PIPELINE = re.compile(r"Error in user-defined function .* with iterator: [\w:\[\]]+: ")


def about_the_data(message: str) -> str:
    """Reduces a message of TensorFlow to its first line about the data, without graph nodes.

    >>> about_the_data("{{function_node __wrapped__X}} Input is empty. [Op:DecodeJpeg]")
    'Input is empty.'

    Returns:
        The line, "" if there is none.
    """
    lines = [line for line in message.splitlines() if not _ABOUT_THE_GRAPH.match(line)]
    line = lines[0] if lines else ""
    line = re.sub(r"^.*\}\} |^\s*\(0\) [A-Z_]+: *| \[Op:.*$", "", line).strip()
    line = _OF_THE_PIPELINE.sub("", line)
    return re.sub(r"^.*assertion failed: \[(.*?)\]$", r"\1", line).replace("] [", " ")


@dataclasses.dataclass(frozen=True, order=True)
class Fault:
    """A fault of the data.

    Attributes:
        file: path of the file.
        line: line in that file, from 1; 0 if the fault does not belong to a line.
        reason: description of the fault.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raises a ValueError that lists the first ten faults, one per line, if there are any."""
    if len(faults) == 1:
        raise ValueError(str(faults[0]))
    if faults:
        lines = [f"{counted(len(faults), 'fault')}:", *map(str, faults[:_LISTED_FAULTS])]
        if len(faults) > _LISTED_FAULTS:
            lines.append(f"and {len(faults) - _LISTED_FAULTS} more")
        raise ValueError("\n  ".join(lines))


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(0, "fault"), counted(1, "epoch"), counted(4946, "image")
    ('0 faults', '1 epoch', '4,946 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows of cells as lines with right-aligned columns.

    >>> print(aligned([["", "Fish"], ["Dice", "0.5"]]))
          Fish
    Dice   0.5
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)


def short_repr(result: Any) -> str:
    """A one-line repr of a dataclass, with only the sizes of long tuples and arrays."""

    def shown(value: Any) -> str:
        if hasattr(value, "shape"):
            return f"{value.dtype}{list(value.shape)}"
        is_long = isinstance(value, (tuple, dict)) and len(repr(value)) > 100
        return f"({counted(len(value), 'item')})" if is_long else repr(value)

    parts = [f"{f.name}={shown(getattr(result, f.name))}" for f in dataclasses.fields(result)]
    return f"{type(result).__name__}({', '.join(parts)})"


@contextlib.contextmanager
def native_lines() -> Iterator[list[str]]:
    """Catches lines of C libraries on stderr, such as libjpeg's, which do not name the file.

    Yields:
        A list that has these lines after the block, even if the block raises.
    """
    lines: list[str] = []
    with _REDIRECTING, tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            lines += written.read().decode(errors="replace").splitlines()


@contextlib.contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Context in which a logger writes no lines below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def warnings_only() -> contextlib.AbstractContextManager[None]:
    """Context without TensorFlow's messages below warnings, which notebooks would show."""
    return log_level("tensorflow", logging.WARNING)
