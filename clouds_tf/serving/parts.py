"""The parts of an unfinished prediction: files that survive a kill and are merged in the end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import filelock
import tensorflow as tf

from clouds_tf import files
from clouds_tf.serving.answers import Answer

_SETTINGS_FILE = "settings.json"


class Parts:
    """Numbered files of Answers in a folder that belongs to one run.

    The folder's name has a hash of the settings: a run with another model, other images or another
    batch size has another folder, and cannot take these parts for its own.

    Args:
        output: file that the parts will be merged into; the folder is `output`.parts/HASH.
        settings: JSON-like, whatever the parts depend on.
    """

    def __init__(self, output: str, settings: dict[str, Any]):
        self._text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        self._parent = f"{output}.parts"
        digest = hashlib.sha256(self._text.encode()).hexdigest()[:16]
        self.folder = os.path.join(self._parent, digest)

    def __repr__(self) -> str:
        return f"Parts({self.folder!r})"

    def start(self) -> None:
        """Makes the folder, or finds that it is there from an earlier process of this run.

        Raises:
            ValueError: the folder holds files but not these settings.
        """
        path = os.path.join(self.folder, _SETTINGS_FILE)
        if tf.io.gfile.exists(path):
            if files.read_text(path) != self._text:
                raise ValueError(f"{path}: altered or damaged; remove the folder and start again")
            return
        if tf.io.gfile.isdir(self.folder) and any(
            name.endswith(".jsonl") for name in tf.io.gfile.listdir(self.folder)
        ):
            raise ValueError(
                f"{self.folder}: holds parts without {_SETTINGS_FILE}, so nothing says which model "
                "made them; remove the folder and start again"
            )
        files.write_text(path, self._text)

    @contextlib.contextmanager
    def in_use(self, alone: bool) -> Iterator[None]:
        """Marks the parts as in use by this process, until the block or the process ends.

        Where the folder is not local, processes do not notice each other.

        Args:
            alone: whether no other process may use them meanwhile, as for a merge.

        Raises:
            ValueError: other processes use them.
        """
        if "://" in self.folder:
            yield
            return
        if alone:
            running = sum(not _is_stale(path) for path in self._locks())
            if running:
                raise ValueError(
                    f"{self.folder}: {running} other process{'es' * (running > 1)} still predict"
                    f"{'s' * (running == 1)} parts of this; run the command again when they have "
                    "ended"
                )
        lock = filelock.FileLock(os.path.join(self.folder, f"{secrets.token_hex(8)}.lock"))
        with lock:
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(lock.lock_file)

    def _locks(self) -> list[str]:
        names = os.listdir(self.folder)
        return [os.path.join(self.folder, name) for name in names if name.endswith(".lock")]

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"{number:06d}.jsonl")

    def has(self, number: int) -> bool:
        """Whether a part has been written."""
        return tf.io.gfile.exists(self._path(number))

    def write(self, number: int, answers: Iterable[Answer]) -> None:
        """Writes a part, whole or not at all.

        Raises:
            ValueError: another process has merged and removed the parts meanwhile.
        """
        if not tf.io.gfile.exists(os.path.join(self.folder, _SETTINGS_FILE)):
            raise ValueError(f"{self.folder}: has been merged or removed by another process")
        lines = (json.dumps(answer.to_json()) + "\n" for answer in answers)
        files.write_text(self._path(number), "".join(lines))

    def read(self, numbers: Iterable[int]) -> Iterator[Answer]:
        """Yields the answers of parts, one at a time."""
        for number in numbers:
            with tf.io.gfile.GFile(self._path(number)) as file:
                for line in file:
                    yield Answer.from_json(json.loads(line))

    def remove(self) -> None:
        """Removes the parts, and the folder above if there are no parts of another run in it."""
        tf.io.gfile.rmtree(self.folder)
        if not tf.io.gfile.listdir(self._parent):
            tf.io.gfile.rmtree(self._parent)


def _is_stale(path: str) -> bool:
    """Whether the process that held a lock has ended; its file is removed then."""
    try:
        with filelock.FileLock(path, timeout=0):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        return True
    except filelock.Timeout:
        return False
