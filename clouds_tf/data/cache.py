"""Caches of decoded images, in memory or on disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import gfile, locks
from clouds_tf.dataset import Dataset

CACHES = ("none", "memory", "disk")
# Folders that this process reserves until it ends; it may open a cache several times.
_folders: set[str] = set()
_reserved = contextlib.ExitStack()


class Cache:
    """Decoded examples (image and mask) by number; each is decoded when first needed.

    Args:
        folder: a local folder, or None for memory. Images from earlier runs are used; one that was
            not written whole is decoded again.
        size: (height, width) of images and masks.
        dataset: gives the number of channels and of classes.
        count: number of images.

    Raises:
        ValueError: another process is filling the folder.
    """

    def __init__(
        self, folder: str | None, size: tuple[int, int], dataset: Dataset, count: int
    ) -> None:
        depths = dataset.channels, dataset.num_classes
        image, mask = (tf.TensorSpec([*size, depth], tf.uint8) for depth in depths)
        self._specs = tf.TensorSpec([], tf.int64), {"image": image, "mask": mask}
        self._folder = folder
        self._sizes = [s.shape.num_elements() * s.dtype.size for s in tf.nest.flatten(self._specs)]
        # Number -> the serialized image, or the path of its file.
        self._table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.string, "")
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
            found = self._find_files(folder)
            if len(found) < count:
                _reserve(folder)
                found = self._find_files(folder)
            if found:
                self._table.insert(tf.constant([*found], tf.int64), tf.constant([*found.values()]))

    @classmethod
    def open(
        cls,
        kind: str,
        cache_dir: str | None,
        name: Sequence[Any],
        size: tuple[int, int],
        dataset: Dataset,
        count: int,
    ) -> Cache | None:
        """Makes a Cache of one of CACHES, or None for the kind "none".

        For the kind "disk", `name` has the parts of the name of a folder in `cache_dir`, which
        must differ between records, folds and sizes.
        """
        if kind == "none":
            return None
        folder = os.path.join(cache_dir or "", "_".join(map(str, name))) if kind == "disk" else None
        return cls(folder, size, dataset, count)

    def _find_files(self, folder: str) -> dict[int, str]:
        """Paths of the files that are whole, by the number of their image."""
        whole = len(tf.io.serialize_tensor(tf.zeros([sum(self._sizes)], tf.uint8)).numpy())
        entries = [entry for entry in os.scandir(folder) if entry.name[0].isdigit()]
        return {
            int(entry.name.split("-")[0]): entry.path
            for entry in entries
            if entry.stat().st_size == whole
        }

    def get(self, number: tf.Tensor, epoch: tf.Tensor, decode: Callable[[], Any]) -> Any:
        """Returns the example of a number, int64 []; calls `decode` if it is not cached yet."""
        found = self._table.lookup(number)

        def put() -> Any:
            image = decode()
            words = [tf.bitcast(part, tf.uint8) for part in tf.nest.flatten(image)]
            packed = tf.concat([tf.reshape(part, [-1]) for part in words], axis=0)
            value = tf.io.serialize_tensor(packed)
            if self._folder is not None:
                # The epoch is in the name, so that no file is written while another epoch reads it.
                name = tf.strings.join([tf.strings.as_string(x) for x in (number, epoch)], "-")
                path = tf.strings.join([self._folder, name], os.sep)
                with tf.control_dependencies([tf.io.write_file(path, value)]):
                    value = tf.identity(path)
            with tf.control_dependencies([self._table.insert(number, value)]):
                return tf.nest.map_structure(tf.identity, image)

        def parse() -> Any:
            packed = tf.io.parse_tensor(
                found if self._folder is None else tf.io.read_file(found), tf.uint8
            )
            flat = tf.split(packed, self._sizes)
            return tf.nest.pack_sequence_as(
                self._specs, [*map(_from_bytes, flat, tf.nest.flatten(self._specs))]
            )

        return tf.cond(tf.strings.length(found) > 0, parse, put)


def check_cache(kind: str, cache_dir: str | None) -> None:
    """Checks the kind of a cache and its folder.

    Raises:
        ValueError: unknown kind, or no folder on this machine for "disk".
    """
    if kind not in CACHES:
        raise ValueError(f"cache: got {kind!r}, expected one of {', '.join(CACHES)}")
    if kind == "disk" and (not cache_dir or gfile.is_remote(cache_dir)):
        raise ValueError(
            f"cache_dir: got {cache_dir or 'nothing'}, expected a folder on this machine for "
            "cache=disk"
        )


def _from_bytes(values: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    shape = [*spec.shape] if spec.dtype.size == 1 else [*spec.shape, spec.dtype.size]
    return tf.bitcast(tf.reshape(values, shape), spec.dtype)


def _reserve(folder: str) -> None:
    """Reserves a folder until this process ends; ValueError if another one has it."""
    if folder in _folders:
        return
    try:
        _reserved.enter_context(locks.reserved(folder))
    except ValueError:
        raise ValueError(
            f"cache_dir: another run is filling {folder}; wait until its first epoch has ended, "
            "or use another folder"
        ) from None
    _folders.add(folder)
