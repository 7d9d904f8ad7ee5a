"""Atomic writes of files, local or remote, and checks before any work."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import itertools
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from clouds_tf import gfile

# Temporary names of `written_whole`, now and in earlier versions.
_UNFINISHED = re.compile(r"\.([0-9a-f]{16}|\d+)\..+")
# Matches names that lead to another folder, or are not names of files.
UNSAFE_NAME = r"[/\\\0]|^\.*$"
_ROWS_AT_A_TIME = 4096  # rows of a Parquet row group


@contextlib.contextmanager
def written_whole(path: str) -> Iterator[str]:
    """Yields a temporary local path, which becomes `path` when the block succeeds.

    It works for files and folders. The temporary name keeps the extension of `path`, which some
    writers depend on. A local file or folder is written next to `path` and then renamed.

    Remote ones are written locally and then copied. A remote folder cannot appear at once, so its
    files are copied one by one: first those in its subfolders, then its own, sorted by name. Thus
    train.csv and saved_model.pb come last, and readers refuse a folder that still lacks them.

    Args:
        path: final path of the file or folder; an existing file there is replaced, and an existing
            folder if it is empty.

    Yields:
        The path to write to. It is removed if the block raises.
    """
    path = path.rstrip("/")
    if gfile.is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, os.path.basename(path))
            yield local
            _copy_whole(local, path)
        return
    with _renamed(path) as temporary:
        yield temporary


@contextlib.contextmanager
def _renamed(path: str) -> Iterator[str]:
    """Yields a path next to `path`, which is renamed to it, or removed if the block raises."""
    temporary = _beside(path)
    try:
        yield temporary
        gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        _discard(temporary)
        raise


def _beside(path: str) -> str:
    """A temporary path next to a file or folder, whose parent folder is created."""
    folder, name = os.path.split(path)
    if folder:
        gfile.makedirs(folder)
    # Random, because containers that share a folder may have the same process numbers.
    return os.path.join(folder, f".{secrets.token_hex(8)}.{name}")


def remove(path: str) -> None:
    """Removes a file, or a folder with its content, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        if gfile.isdir(path):
            gfile.rmtree(path)
        else:
            gfile.remove(path)


def _discard(path: str) -> None:
    """Removes a file or folder after an error, ignoring a second error."""
    with contextlib.suppress(OSError):
        remove(path)


def _copy_whole(local: str, path: str) -> None:
    """Copies a file or folder to a remote path; if that fails, nothing stays there."""
    if not os.path.isdir(local):
        with _renamed(path) as temporary:
            gfile.copy(local, temporary)
        return
    if list_names(path):
        raise FileExistsError(f"{path}: already exists, expected a new or an empty folder")
    try:
        for folder, _, names in os.walk(local, topdown=False):
            place = path + folder[len(local) :]
            gfile.makedirs(place)
            for name in sorted(names):
                gfile.copy(os.path.join(folder, name), os.path.join(place, name))
    except BaseException:
        _discard(path)
        raise


def require_local(path: str, name: str) -> None:
    """Raises ValueError, with the name of the argument, for a remote path."""
    if gfile.is_remote(path):
        raise ValueError(f"{name}: got {path}, expected a path on this machine; copy it first")


def is_unfinished(name: str) -> bool:
    """Whether a file name is that of a temporary file of an interrupted `written_whole`."""
    return bool(_UNFINISHED.fullmatch(name))


def write_text(path: str, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with written_whole(path) as temporary, gfile.opened(temporary, "w") as file:
        file.write(text)


def write_table(path: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV, row by row, whole or not at all."""
    with written_whole(path) as temporary, gfile.opened(temporary, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_parquet(path: str, schema: Any, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows to a Parquet file with a pyarrow.Schema, in batches, whole or not at all."""
    import pyarrow
    from pyarrow import parquet

    rows = iter(rows)
    with written_whole(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(itertools.islice(rows, _ROWS_AT_A_TIME)):
            columns = zip(zip(*group), schema.types)
            arrays = [pyarrow.array(column, kind) for column, kind in columns]
            writer.write_table(pyarrow.table(arrays, schema=schema))


def write_frame(path: str, frame: Any) -> None:
    """Writes a pandas.DataFrame without its index as CSV, with six digits, whole or not at all."""
    dates = "%Y-%m-%dT%H:%M:%S"
    write_text(path, frame.to_csv(index=False, float_format="%.6g", date_format=dates))


def read_text(path: str) -> str:
    """Reads a text file in UTF-8.

    Raises:
        FileNotFoundError, ValueError: the file, named by its path, is missing or not UTF-8.
    """
    try:
        with gfile.opened(path) as file:
            return file.read().removeprefix("\ufeff")  # a byte order mark
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error.reason}") from None


def parse_json(text: str) -> Any:
    """Parses JSON; raises ValueError if an object has a key twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"has two values for {max(names, key=names.count)!r}")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=unique)


def sha256(path: str) -> str:
    """The SHA-256 checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with gfile.opened(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yields a local path of a file, for libraries that read local files only.

    Yields:
        The path itself, or that of a temporary copy if it is remote.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not gfile.exists(path):
        raise FileNotFoundError(f"{path}: no such file")
    if not gfile.is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, os.path.basename(path))
        gfile.copy(path, copy)
        yield copy


def check_output(path: str) -> None:
    """Checks that a file can be written, before any work.

    Args:
        path: the file to write; its folder is created if needed.

    Raises:
        ValueError: the path is a folder, or cannot be written; the message has the reason.
    """
    if path.endswith("/") or gfile.isdir(path):
        raise ValueError(f"{path}: is a folder, expected the name of a file to write")
    try:
        probe = _beside(path)
        with gfile.opened(probe, "w") as file:
            file.write("")
        gfile.remove(probe)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from None


def list_names(folder: str) -> list[str]:
    """Sorted names in a folder; none if there is no such folder.

    In names that are not UTF-8, invalid bytes are escaped, as in \\xff.jpg.
    """
    if not gfile.isdir(folder):
        return []
    names = [os.fsencode(n).decode(errors="backslashreplace") for n in gfile.listdir(folder)]
    return sorted(name.rstrip("/") for name in names)


def visible_names(folder: str) -> list[str]:
    """`list_names` without hidden names, such as ._a.jpg, which macOS writes next to a.jpg."""
    return [name for name in list_names(folder) if not name.startswith(".")]


def list_paths(place: str) -> list[str]:
    """Sorted paths in a folder or of a pattern, without hidden files.

    The path of an existing file is not a pattern, whatever characters it has.
    """
    if gfile.isdir(place):
        return [os.path.join(place, name) for name in visible_names(place)]
    if gfile.exists(place):
        return [place]
    found = gfile.glob(place)
    return sorted(path for path in found if not os.path.basename(path).startswith("."))


def check_loadable(path: str) -> None:
    """Raises ValueError for a path from which TensorFlow cannot load checkpoints or SavedModels."""
    if "[" in path or "\\" in path:  # TensorFlow would treat it as a pattern
        raise ValueError(f"{path}: TensorFlow cannot load a path with [ or \\; rename it")


def expand(patterns: Sequence[str]) -> list[str]:
    """Replaces patterns such as "W/fold_*" by the paths that match them, sorted.

    An existing path is not a pattern, whatever characters it has.

    Raises:
        FileNotFoundError: nothing matches a pattern.
    """
    paths: list[str] = []
    for pattern in patterns:
        if not gfile.is_pattern(pattern) or gfile.exists(pattern):
            paths.append(pattern)
            continue
        found = gfile.glob(pattern)
        if not found:
            raise FileNotFoundError(f"{pattern}: no such file or folder")
        paths += sorted(found)
    return paths


def check_distinct(paths: Sequence[str]) -> None:
    """Raises ValueError if two paths name the same file or folder, directly or through a link."""
    real = [os.path.realpath(path) for path in paths]
    for path, place in zip(paths, real):
        if real.count(place) > 1:
            raise ValueError(f"{path}: given {real.count(place)} times, expected once")


def require(module: str, extra: str, purpose: str) -> None:
    """Checks that an optional package is installed.

    Args:
        module: name of the module to import, such as "matplotlib".
        extra: the extra of clouds_tf that installs it, such as "plots".
        purpose: the feature that needs it, for the message.

    Raises:
        ValueError: the package is missing; the message has the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"{purpose} needs the package {module}: in the folder of clouds_tf, run "
            f"pip install -e '.[{extra}]'"
        )
