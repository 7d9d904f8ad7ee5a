"""Caches of decoded images on disk: complete or begun anew, and filled by one run at a time."""

from __future__ import annotations

import glob
import os

import filelock

from clouds_tf.data.reading import SHUFFLE_BUFFER

# Decoded images that the shuffle behind a cache on disk may hold; a cache in memory holds them all.
_DISK_SHUFFLE_BYTES = 256 << 20
# Locks that this process holds until it ends, by path; it may open a cache several times.
_held: dict[str, filelock.FileLock] = {}


def prepare(cache_dir: str | None, name: str) -> str:
    """Prepares a cache for `tf.data.Dataset.cache`.

    A cache that is complete is used as it is. Otherwise what a killed run left is removed, and the
    cache is locked until this process ends.

    Args:
        cache_dir: a folder on this machine.
        name: name of the cache in that folder, which says what is in it.

    Returns:
        The path to give to `tf.data.Dataset.cache`.

    Raises:
        ValueError: no folder is given, or another process is filling this cache.
    """
    if not cache_dir:
        raise ValueError("cache_dir: got nothing, expected a folder for the cache on disk")
    folder = os.path.join(cache_dir, name)
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "images")
    if not os.path.exists(path + ".index"):  # which is written last
        _lock(os.path.join(folder, "lock"))
        for unfinished in glob.glob(glob.escape(path) + "*"):
            os.remove(unfinished)
    return path


def _lock(path: str) -> None:
    """Locks a file until this process ends, in whatever way; ValueError if another one has it."""
    if path in _held:
        return
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"cache_dir: another run is filling {os.path.dirname(path)}; wait until its first "
            "epoch has ended, or give another folder"
        ) from None
    _held[path] = lock


def shuffle_buffer(cache: str, image_size: tuple[int, int], num_classes: int) -> int:
    """How many decoded images the shuffle behind a cache holds."""
    if cache == "memory":  # whose images are held anyway, and not copied
        return SHUFFLE_BUFFER
    bytes_per_image = image_size[0] * image_size[1] * (3 + num_classes)
    return min(max(_DISK_SHUFFLE_BYTES // bytes_per_image, 1), SHUFFLE_BUFFER)
