"""Finds versions of the model in a folder, and loads and switches them while serving."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import Coroutine
from typing import Any

from clouds_tf import files
from clouds_tf.manifest import file_identity
from clouds_tf.messages import about_the_data
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.server.batching import Batcher, Workers
from clouds_tf.server.errors import RequestError
from clouds_tf.server.metrics import Metrics
from clouds_tf.server.settings import ServerSettings
from clouds_tf.serving import integrity

_LOG = logging.getLogger("clouds_tf.server")
_MARK = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Found:
    """A version in the folder.

    Attributes:
        number: its version.
        path: its folder.
        identity: `file_identity` of the folder; changes whenever one of its files does.
    """

    number: int
    path: str
    identity: str


def find_versions(saved_model: str) -> list[Found]:
    """Versions in a folder such as E, or the single version E/1, newest first."""
    if os.path.exists(os.path.join(saved_model, _MARK)):
        name = os.path.basename(os.path.abspath(saved_model))
        number = int(name) if _is_number(name) else 1
        return [Found(number, saved_model, _identity(saved_model))]
    found = []
    for name in filter(_is_number, files.list_names(saved_model)):
        path = os.path.join(saved_model, name)
        if os.path.exists(os.path.join(path, _MARK)):
            found.append(Found(int(name), path, _identity(path)))
    return sorted(found, key=lambda version: version.number, reverse=True)


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _identity(path: str) -> str:
    """`file_identity`, or "" if a file is missing or has just been removed."""
    try:
        return file_identity(path)
    except OSError:
        return ""


class Versions:
    """The loaded versions of a model.

    Args:
        saved_model: folder of versions, or of one version.
        settings: interval of checks, and number of versions to keep.
        metrics: metrics to count versions and failures in.

    Attributes:
        workers: threads and limits that all versions share, from `start` on.
    """

    workers: Workers

    def __init__(self, saved_model: str, settings: ServerSettings, metrics: Metrics) -> None:
        self._folder, self._settings, self._metrics = saved_model, settings, metrics
        self._loaded: dict[Found, Batcher] = {}
        self._refused: dict[Found, str] = {}
        self._loading: Found | None = None
        self._seen: list[Found] = []
        self._manifest = _identity(settings.manifest or "")
        self._tasks: set[asyncio.Future[Any]] = set()

    def load_first(self) -> None:
        """Loads the newest versions that can be loaded, before there is an event loop.

        Raises:
            FileNotFoundError: there is no version.
            ValueError: none can be loaded; the message has the reason for the newest.
        """
        self._seen = find_versions(self._folder)
        if not self._seen:
            raise FileNotFoundError(
                f"{self._folder}: no SavedModel; expected a folder that export wrote, E or E/1"
            )
        while version := self._missing(self._seen):
            self._keep(version, self._load(version))
        if not self._loaded:
            raise ValueError(self._refused[self._seen[0]])

    def start(self) -> None:
        """Starts answering and looking for new versions, in the running event loop."""
        self.workers = Workers(self._settings, self._metrics)
        for batcher in self._loaded.values():
            batcher.start(self.workers)
        if self._settings.poll_seconds:
            self._in_background(self._look_again())

    def find(self, number: int | None = None) -> tuple[int, Batcher]:
        """Number and batcher of a loaded version, by default of the newest.

        Raises:
            RequestError: there is no such version.
        """
        found = [v for v in self._loaded if number in (None, v.number)]
        if not found:
            sentence = f"version {number} is not loaded, expected one of {self.numbers}"
            raise RequestError(404, sentence)
        version = max(reversed(found), key=lambda v: v.number)  # of two, the one loaded last
        return version.number, self._loaded[version]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the loaded versions, the newest first."""
        return sorted({version.number for version in self._loaded}, reverse=True)

    def status(self, number: int | None = None) -> list[dict[str, Any]]:
        """State of all versions, or of one, as GET /v1/models/NAME has it; [] if unknown."""
        states = {version: ("END", reason) for version, reason in self._refused.items()}
        if self._loading:
            states[self._loading] = "LOADING", ""
        states.update({version: ("AVAILABLE", "") for version in self._loaded})
        return [
            {
                "version": str(version.number),
                "state": state,
                "status": {"error_code": "UNKNOWN" if reason else "OK", "error_message": reason},
            }
            for version, (state, reason) in sorted(states.items(), key=lambda x: -x[0].number)
            if number in (None, version.number)
        ]

    def _missing(self, found: list[Found]) -> Found | None:
        """The next version to load, of those that are wanted."""
        return next((v for v in self._wanted(found) if v not in self._loaded), None)

    def _wanted(self, found: list[Found]) -> list[Found]:
        able = [version for version in found if version not in self._refused]
        return able[: self._settings.keep_versions]

    def _load(self, version: Found) -> Batcher | str:
        """Loads and warms up a version; or says why that is impossible."""
        try:
            if self._settings.manifest:
                integrity.check(version.path, self._settings.manifest)
            predictor = Predictor.open(version.path, self._settings.engine)
            batcher = Batcher(predictor)
            batcher.warm_up(self._settings.max_batch)
        except Exception as error:  # bytes that are damaged raise anything
            if isinstance(error, (ValueError, OSError)):
                return str(error)
            return f"{version.path}: {about_the_data(str(error)) or type(error).__name__}"
        if predictor.warning:
            _LOG.warning(predictor.warning)
        return batcher

    def _keep(self, version: Found, loaded: Batcher | str) -> None:
        """Takes a version into service, or remembers why it cannot be."""
        if isinstance(loaded, str):
            self._refused[version] = loaded
            self._metrics.versions_refused.inc()
            _LOG.error("version %s is refused: %s", version.number, loaded)
            return
        self._loaded[version] = loaded
        self._announce(version, "is loaded")

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                await self.look()
            except OSError as error:  # a disk that is away for a while
                _LOG.error("%s: cannot be read: %s", self._folder, error)

    async def look(self) -> None:
        """Loads new versions and ends old ones.

        A folder counts once it is the same in two looks, so that nothing half-copied is loaded.
        """
        found = await asyncio.to_thread(find_versions, self._folder)
        settled = [v for v in found if v in self._seen or v in self._loaded]
        self._seen = found
        manifest = _identity(self._settings.manifest or "")
        if manifest != self._manifest:  # what it did not list may be in it now
            self._refused, self._manifest = {}, manifest
        self._refused = {v: why for v, why in self._refused.items() if v in found}
        while version := self._missing(settled):
            self._loading = version
            loaded = await asyncio.to_thread(self._load, version)
            self._loading = None
            if isinstance(loaded, Batcher):
                loaded.start(self.workers)
            self._keep(version, loaded)
        wanted = self._wanted(settled)
        for version in [v for v in self._loaded if wanted and v not in wanted]:
            self._end(version)

    def _end(self, version: Found) -> None:
        batcher = self._loaded.pop(version)
        self._announce(version, "ends")
        self._in_background(batcher.close())

    def _announce(self, version: Found, what: str) -> None:
        """Writes a change of the loaded versions to log and metrics."""
        current = self.numbers[0]
        _LOG.info("version %s %s; version %s answers", version.number, what, current)
        self._metrics.current_version.set(current)
        self._metrics.model_info.clear()
        for loaded, batcher in self._loaded.items():
            self._metrics.model_info.labels(loaded.number, batcher.predictor.identity).set(1)

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
