"""A trace of a few training steps, for TensorBoard."""

from __future__ import annotations

from typing import Optional

import tensorflow as tf

_FIRST_PROFILED_STEP = 5  # the first ones trace the graph
_PROFILED_STEPS = 5


class Trace:
    """Context that traces a few of some steps for TensorBoard, the last ones of a short epoch."""

    def __init__(self, folder: Optional[str], steps: range) -> None:
        self._folder, self._running = folder, False
        self._start = min(steps.start + _FIRST_PROFILED_STEP, max(steps.stop - 1, steps.start))

    def before(self, step: int) -> None:
        """Starts or stops the trace where it is time."""
        if self._folder and step == self._start:
            tf.profiler.experimental.start(self._folder)
            self._running = True
        elif step == self._start + _PROFILED_STEPS:
            self._finish()

    def _finish(self) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
