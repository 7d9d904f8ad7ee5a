"""Records the finished pieces of work in a folder: input and files of each.

Shards of records, batches of predictions, scenes and days are all stored like this:

    manifest = Manifest(folder, {"model": predictor.identity, "overlap": 0.25})
    with manifest.open(alone=True):
        manifest.prune(keep=inputs.__contains__)  # pieces whose input has gone
        for key, path in inputs.items():
            source = file_identity(path)
            if not manifest.is_done(key, source):
                with manifest.piece(key, source, [f"{key}.nc"]) as piece:
                    piece.value = ...  # write the files; keep what readers of the manifest need
        for piece in manifest.pieces():
            ...

Each piece has its own entry, a small file that is written when the piece is finished. So a killed
process loses only the pieces in progress, memory does not grow with their number, and processes on
several machines can work in one folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from clouds_tf import files, gfile, locks

_FOLDER = "manifest"  # in the folder of the results
_SETTINGS = "settings"
_DONE, _STARTED = ".json", ".started"


def checksum(value: Any) -> str:
    """Returns 16 hexadecimal digits that differ between JSON-like values.

    >>> checksum({"a": 1, "b": [2]}) == checksum({"b": (2,), "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_identity(path: str) -> str:
    """Identifies the content of a file or folder by the lengths and times of its files.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        if not gfile.isdir(path):
            stat = gfile.stat(path)
            return f"{stat.length}-{stat.mtime_nsec}"
        names = [
            os.path.join(folder, name) for folder, _, names in gfile.walk(path) for name in names
        ]
        return checksum([[name[len(path) :], file_identity(name)] for name in sorted(names)])
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file or folder") from None


@dataclasses.dataclass
class Piece:
    """A finished or failed piece.

    Attributes:
        key: its name, unique in the folder.
        source: identity of its input, such as `file_identity` or a checksum.
        files: its files, relative to the folder, with their lengths.
        value: JSON-like value for readers of the manifest.
        error: the reason if it failed, otherwise "".
    """

    key: str
    source: str
    files: dict[str, int] = dataclasses.field(default_factory=dict)
    value: Any = None
    error: str = ""


class Manifest:
    """The finished pieces in a local or remote folder.

    The only state of a Manifest is its folder and settings: it can be pickled, and worker processes
    may add pieces while another process has it `open`.

    Args:
        folder: the folder of the results; the entries are in its subfolder "manifest".
        settings: JSON-like; everything except its input that a piece depends on.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any]) -> None:
        self.folder = folder.rstrip("/")
        self._settings = json.loads(json.dumps(settings))
        self._identity = checksum(self._settings)
        self._entries = os.path.join(self.folder, _FOLDER)

    def __repr__(self) -> str:
        return f"Manifest({self.folder!r}, {self._settings!r})"

    @contextlib.contextmanager
    def open(self, alone: bool = True, redo: bool = True) -> Iterator[None]:
        """Reserves the folder for this process until the block or the process ends.

        Pieces that were made with other settings are removed, or refused. Unfinished pieces of
        killed processes are removed if no other process works here.

        Args:
            alone: whether to exclude other processes; if not, others with the same settings may
                work here, each on its own pieces.
            redo: whether to remove pieces with other settings; False refuses them.

        Raises:
            ValueError: another process works here, or the pieces have other settings.
        """
        gfile.makedirs(self._entries)
        differences = self._differences()
        if differences and not redo and any(True for _ in self._keys()):
            raise ValueError(
                f"{self.folder}: has results of {'; '.join(differences)}; choose another folder, "
                "or delete this one"
            )
        if differences or alone:
            with locks.reserved(self._entries):
                self._tidy()
                if alone:
                    yield
                    return
        with locks.reserved(self._entries, alone=False):
            if self._differences():  # another process was faster
                raise ValueError(f"{self.folder}: another process works here with other settings")
            yield

    def _differences(self) -> list[str]:
        """Describes settings that differ from those that the folder was used with before."""
        path = os.path.join(self._entries, _SETTINGS)
        if not gfile.exists(path):
            return ["unknown settings"]
        try:
            before = dict(json.loads(files.read_text(path)))
        except (ValueError, TypeError):
            return ["unknown settings"]
        names = sorted({*before, *self._settings})
        pairs = [(name, before.get(name), self._settings.get(name)) for name in names]
        return [f"{name} {old}, got {new}" for name, old, new in pairs if old != new]

    def _tidy(self) -> None:
        """Removes pieces with other settings, and leftovers of killed processes."""
        unfinished = [n for n in files.list_names(self._entries) if n.endswith(_STARTED)]
        targets = {name for entry in unfinished for name in self._read_files(entry)}
        for folder in {self._entries, *(os.path.dirname(self._path(name)) for name in targets)}:
            for name in files.list_names(folder):
                target = os.path.join(folder, name.split(".", 2)[-1])
                ours = folder == self._entries or target in map(self._path, targets)
                if files.is_unfinished(name) and ours:
                    files.remove(os.path.join(folder, name))
        for name in unfinished:
            self.drop(_key(name))
        if self._differences():
            for key in list(self._keys()):
                if self.read(key) is None:
                    self.drop(key)
            text = json.dumps(self._settings, indent=1, sort_keys=True)
            files.write_text(os.path.join(self._entries, _SETTINGS), text + "\n")

    def is_done(self, key: str, source: str) -> bool:
        """Whether a piece was made from this input with these settings and its files exist."""
        piece = self.read(key)
        if piece is None or piece.error or piece.source != source:
            return False
        return all(_length(self._path(name)) == length for name, length in piece.files.items())

    @contextlib.contextmanager
    def piece(self, key: str, source: str, names: Sequence[str] = ()) -> Iterator[Piece]:
        """Makes a piece: the block writes its files, and may set `value`.

        Earlier files of the piece are removed first. If the block raises, the new files are removed
        as well, and the piece counts as not done.

        Args:
            key: name of the piece, unique in the folder.
            source: identity of its input.
            names: files that the block may write, relative to the folder.

        Raises:
            ValueError: a name leads outside the folder.
        """
        self._start(key, names)
        piece = Piece(key, source)
        try:
            yield piece
            lengths = {name: _length(self._path(name)) for name in names}
            piece.files = {name: n for name, n in lengths.items() if n is not None}
            self._finish(piece)
        except Exception:
            self.drop(key)
            raise

    def fail(self, key: str, source: str, error: str) -> None:
        """Records why a piece could not be made, and removes its earlier files."""
        self._start(key, ())
        self._finish(Piece(key, source, error=error))

    def drop(self, key: str) -> None:
        """Removes a piece with its files."""
        self._start(key, ())
        files.remove(self._entry(key, _STARTED))

    def prune(self, keep: Callable[[str], bool]) -> None:
        """Removes the pieces for whose keys `keep` is False, with their files."""
        for key in [key for key in self._keys() if not keep(key)]:
            self.drop(key)

    def read(self, key: str) -> Piece | None:
        """Reads a finished or failed piece; None if there is none with these settings."""
        try:
            fields = json.loads(files.read_text(self._entry(key, _DONE)))
            return Piece(**fields) if fields.pop("settings") == self._identity else None
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def pieces(self) -> Iterator[Piece]:
        """Reads all finished and failed pieces with these settings, one at a time, by key."""
        return filter(None, map(self.read, self._keys()))

    def remove(self) -> None:
        """Removes the folder of the results with its content."""
        gfile.rmtree(self.folder)

    def _keys(self) -> Iterator[str]:
        names = files.list_names(self._entries)
        return iter(sorted(_key(name) for name in names if name.endswith(_DONE) and name[0] != "."))

    def _start(self, key: str, names: Sequence[str]) -> None:
        """Removes a piece, and records the files that may be written from now on.

        An entry always names every file that may exist, so that the next process can remove the
        files of a piece whose input was removed meanwhile.
        """
        done, started = self._entry(key, _DONE), self._entry(key, _STARTED)
        old = [
            name for ending in (_DONE, _STARTED) for name in self._read_files(_name(key) + ending)
        ]
        for name in (*old, *names):
            self._path(name)
        files.write_text(started, json.dumps(sorted({*old, *names})))
        files.remove(done)
        for name in old:
            files.remove(self._path(name))

    def _finish(self, piece: Piece) -> None:
        fields = {**dataclasses.asdict(piece), "settings": self._identity}
        files.write_text(self._entry(piece.key, _DONE), json.dumps(fields))
        files.remove(self._entry(piece.key, _STARTED))

    def _entry(self, key: str, ending: str) -> str:
        return os.path.join(self._entries, _name(key) + ending)

    def _read_files(self, entry: str) -> list[str]:
        """The files that an entry names; none if it is missing or damaged."""
        try:
            fields = json.loads(files.read_text(os.path.join(self._entries, entry)))
            return list(fields if entry.endswith(_STARTED) else fields["files"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return []

    def _path(self, name: str) -> str:
        if name.startswith("/") or "://" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise ValueError(f"{self.folder}: got the file name {name!r}, expected one inside it")
        return os.path.join(self.folder, name)


def _name(key: str) -> str:
    """A file name for a key, which `_key` reads; only temporary names begin with a dot."""
    name = key.replace("%", "%25").replace("/", "%2F")
    return name if name[:1] != "." else "%2E" + name[1:]


def _key(name: str) -> str:
    return urllib.parse.unquote(os.path.splitext(name)[0])


def _length(path: str) -> int | None:
    try:
        return gfile.stat(path).length
    except FileNotFoundError:
        return None
