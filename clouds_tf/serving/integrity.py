"""Checksums of a SavedModel, in the format of `sha256sum`, to detect any change."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from clouds_tf import files, gfile

_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_ENDING = ".sha256"


def checksums(saved_model: str) -> dict[str, str]:
    """The SHA-256 checksums of all files in a folder, by relative path, sorted."""
    paths = [
        os.path.join(folder, name) for folder, _, some in gfile.walk(saved_model) for name in some
    ]
    return {os.path.relpath(path, saved_model): files.sha256(path) for path in sorted(paths)}


def write(saved_model: str, sums: Mapping[str, str]) -> str:
    """Writes the checksums of a SavedModel to a file next to it.

    Args:
        saved_model: folder of a version, such as E/1.
        sums: its `checksums`.

    Returns:
        The path of the file, E/1.sha256. Its paths are relative to E, such as 1/saved_model.pb, so
        `cd E && sha256sum -c 1.sha256` can check it, too.
    """
    folder = saved_model.rstrip("/")
    lines = [f"{digest}  {os.path.basename(folder)}/{name}\n" for name, digest in sums.items()]
    files.write_text(folder + _ENDING, "".join(lines))
    return folder + _ENDING


def check(saved_model: str, manifest: str) -> None:
    """Checks that a SavedModel has exactly the files in a list of checksums.

    Args:
        saved_model: folder of a version, such as E/1.
        manifest: file of `write` or sha256sum for one or several versions; or a folder with a file
            for each, such as 1.sha256.

    Raises:
        FileNotFoundError: there is no such manifest.
        ValueError: a file was changed, added or removed, or the manifest does not list this version
            or is damaged.
    """
    name = os.path.basename(saved_model.rstrip("/"))
    if gfile.isdir(manifest):
        manifest = os.path.join(manifest, name + _ENDING)
    listed = {path: x for path, x in _read(manifest).items() if path.startswith(f"{name}/")}
    if not listed:
        raise ValueError(f"{saved_model}: not listed in {manifest}")
    found = {f"{name}/{path}": digest for path, digest in checksums(saved_model).items()}
    problems = {
        "not in the manifest": found.keys() - listed.keys(),
        "missing": listed.keys() - found.keys(),
        "changed": {path for path in found.keys() & listed.keys() if found[path] != listed[path]},
    }
    reasons = [f"{', '.join(sorted(paths))} {what}" for what, paths in problems.items() if paths]
    if reasons:
        raise ValueError(f"{saved_model}: not the SavedModel of {manifest}: {'; '.join(reasons)}")


def _read(manifest: str) -> dict[str, str]:
    listed: dict[str, str] = {}
    for number, line in enumerate(files.read_text(manifest).splitlines(), start=1):
        match = _LINE.fullmatch(line)
        if not match or match[2] in listed:
            raise ValueError(
                f"{manifest}: line {number}: got {line[:80]!r}, expected a SHA-256 checksum and "
                "the name of a file, each file once"
            )
        listed[match[2]] = match[1]
    return listed
