"""Profiles a few training steps, for TensorBoard."""

from __future__ import annotations

from typing import Optional

import tensorflow as tf

_FIRST_PROFILED_STEP = 5  # the first ones are slower
_PROFILED_STEPS = 5


class Profile:
    """Context that profiles a few of the steps of an epoch; if there are few, the last ones.

    Args:
        folder: folder of the TensorBoard events; None for no profile.
        steps: numbers of the steps that will be taken.
    """

    def __init__(self, folder: Optional[str], steps: range) -> None:
        self._folder, self._running = folder, False
        self._start = min(steps.start + _FIRST_PROFILED_STEP, max(steps.stop - 1, steps.start))

    def before(self, step: int) -> None:
        """Call it before each step: starts or ends the profile where it is time."""
        if self._folder and step == self._start:
            tf.profiler.experimental.start(self._folder)
            self._running = True
        elif step == self._start + _PROFILED_STEPS:
            self._finish()

    def _finish(self) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()
