"""Access to local files and folders with Python, and to remote ones with tf.io.gfile.

The functions are those of tf.io.gfile, but all errors are Python's: FileNotFoundError,
FileExistsError, PermissionError or another OSError. Local paths do not need TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import glob as globbing
import os
import shutil
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple


class Stat(NamedTuple):
    """Length of a file in bytes, and the time of its last change in nanoseconds."""

    length: int
    mtime_nsec: int


def is_remote(path: str) -> bool:
    """Whether a path is not on this machine's file system, such as gs://bucket/folder."""
    return "://" in path


def is_pattern(path: str) -> bool:
    """Whether a path has a character that `glob` expands."""
    return any(mark in path for mark in "*?[")


@contextlib.contextmanager
def _with_errors_of_python(path: str) -> Iterator[Any]:
    """Yields tf.io.gfile, and converts its errors to Python's."""
    import tensorflow as tf

    kinds: dict[type, type[OSError]] = {
        tf.errors.NotFoundError: FileNotFoundError,
        tf.errors.AlreadyExistsError: FileExistsError,
        tf.errors.PermissionDeniedError: PermissionError,
    }
    try:
        yield tf.io.gfile
    except tf.errors.OpError as error:
        raise kinds.get(type(error), OSError)(error.message or path) from None


def _or_remote(local: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function of local paths to call its namesake in tf.io.gfile for remote ones."""

    @functools.wraps(local)
    def either(*args: object, **kwargs: object) -> Any:
        if not any(isinstance(path, str) and is_remote(path) for path in args):
            return local(*args, **kwargs)
        with _with_errors_of_python(str(args[0])) as gfile:
            return getattr(gfile, local.__name__)(*args, **kwargs)

    return either


@contextlib.contextmanager
def opened(path: str, mode: str = "r") -> Iterator[IO[Any]]:
    """Opens a file; text is UTF-8, and line ends are not converted."""
    if not is_remote(path):
        text: Any = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with open(path, mode, **text) as file:
            yield file
        return
    with _with_errors_of_python(path) as gfile, gfile.GFile(path, mode) as file:
        yield file


@_or_remote
def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    return os.path.exists(path)


@_or_remote
def isdir(path: str) -> bool:
    """Whether there is such a folder."""
    return os.path.isdir(path)


@_or_remote
def listdir(folder: str) -> list[str]:
    """Names of the files and folders in a folder; remote subfolders may end with a slash."""
    return os.listdir(folder)


@_or_remote
def glob(pattern: str) -> list[str]:
    """Paths that match a pattern."""
    return globbing.glob(pattern)


@_or_remote
def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (folder, names of subfolders, names of files) of a folder and all its subfolders."""
    return os.walk(folder)


@_or_remote
def stat(path: str) -> Stat:
    """Length and modification time of a file."""
    found = os.stat(path)
    return Stat(found.st_size, found.st_mtime_ns)


@_or_remote
def makedirs(folder: str) -> None:
    """Creates a folder and its parents, unless they exist."""
    os.makedirs(folder, exist_ok=True)


@_or_remote
def remove(path: str) -> None:
    """Removes a file."""
    os.remove(path)


@_or_remote
def rmtree(folder: str) -> None:
    """Removes a folder with its content."""
    shutil.rmtree(folder)


@_or_remote
def rename(path: str, target: str, overwrite: bool = False) -> None:
    """Renames a file or folder; `overwrite` replaces an existing file or empty folder."""
    if not overwrite and os.path.exists(target):
        raise FileExistsError(f"{target}: already exists")
    os.replace(path, target)


@_or_remote
def copy(path: str, target: str, overwrite: bool = False) -> None:
    """Copies a file."""
    if not overwrite and os.path.exists(target):
        raise FileExistsError(f"{target}: already exists")
    shutil.copyfile(path, target)
