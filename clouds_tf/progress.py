"""Shows the progress of long work: a bar in a terminal or notebook, lines in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm.auto import tqdm

Progress = Callable[[int, int], None]  # called with (done, total)

SILENCE = 60.0  # seconds between two lines
PATIENCE = 10.0  # seconds before the first line; shorter work shows none


def is_watched() -> bool:
    """Whether a bar can be shown, in a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def shown(progress: Progress | bool, unit: str) -> Progress:
    """The function that library functions call with (done, total).

    Args:
        progress: such a function; True for a bar in a terminal or notebook; False for nothing.
        unit: name of the counted things, such as "image".
    """
    if not isinstance(progress, bool):
        return progress
    return Bar(unit) if progress else lambda done, total: None


class Bar:
    """A bar in a terminal or notebook, from the first call until everything is done.

    Args:
        unit: name of the counted things, such as "image".
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: tqdm | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None and done < total and is_watched():
            self._bar = tqdm(total=total, initial=done, unit=self._unit)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
            if done >= total:
                self.close()

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class Pace:
    """Speed since the start, and time of the next line.

    Args:
        done: number of things that were done earlier.
        patience: seconds until the first line.
    """

    def __init__(self, done: int, patience: float | None = None) -> None:
        self._first, self._began = done, time.monotonic()
        self._due = self._began + (SILENCE if patience is None else patience)

    def is_due(self) -> bool:
        """Whether it is time for a line; if so, the next minute begins."""
        now = time.monotonic()
        is_due = now >= self._due
        self._due = now + SILENCE if is_due else self._due
        return is_due

    def seconds_each(self, done: int) -> float:
        """Mean seconds per thing since the start."""
        return (time.monotonic() - self._began) / max(done - self._first, 1)


class Lines:
    """Writes a line to stderr after ten seconds, and then at most one per minute.

    Args:
        unit: name of the counted things, such as "image".
    """

    def __init__(self, unit: str) -> None:
        self._unit, self._last = unit, 0
        self._pace = Pace(0, PATIENCE)

    def __call__(self, done: int, total: int) -> None:
        if done < self._last:  # the next part of the work
            self._pace = Pace(done, PATIENCE)
        self._last = done
        if self._pace.is_due():
            each = self._pace.seconds_each(done)
            speed = f"{1 / each:.3g} {self._unit}s/s, {duration(each * (total - done))} left"
            print(f"{self._unit} {done:,} of {total:,}: {speed}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Does nothing: every line is complete."""


def say(line: str) -> None:
    """Prints a line without delay, also to a file, and without breaking a bar."""
    with tqdm.external_write_mode(file=sys.stdout):
        print(line, flush=True)


def duration(seconds: float) -> str:
    """Seconds as text: "90 s", "1 h 40 min"."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes // 60} h {minutes % 60:02} min"
