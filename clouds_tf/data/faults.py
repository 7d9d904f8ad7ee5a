"""Faults in the data, collected so that all of them are reported at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

_LISTED_FAULTS = 10  # in an error


@dataclasses.dataclass(frozen=True, order=True)
class Fault:
    """One thing that is wrong with the data.

    Attributes:
        file: path of the file.
        line: line in that file, from 1; 0 where the fault belongs to no line.
        reason: what is wrong.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}{f', line {self.line}' if self.line else ''}: {self.reason}"


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raises one ValueError that lists the first ten faults, one a line; nothing without faults."""
    if len(faults) == 1:
        raise ValueError(str(faults[0]))
    if faults:
        lines = [f"{len(faults)} faults:", *map(str, faults[:_LISTED_FAULTS])]
        if len(faults) > _LISTED_FAULTS:
            lines.append(f"and {len(faults) - _LISTED_FAULTS} more")
        raise ValueError("\n  ".join(lines))
