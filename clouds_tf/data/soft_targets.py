"""Folders of soft targets: a probability for each pixel and class, as 8-bit PNG files.

The map of a.jpg is a.jpg.png, grey, with the classes one below the other: [C * h, w], where 255 is
a probability of 1. Each map covers its whole image; all maps of a folder have one size.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence

import tensorflow as tf

from clouds_tf import files
from clouds_tf.dataset import Dataset
from clouds_tf.messages import counted

INFO_FILE = "soft_targets.json"  # written last
_VERSION = 1
_REDUCTION = 4  # of the submission size, in each direction


def map_size(dataset: Dataset) -> tuple[int, int]:
    """(height, width) of the maps that `evaluate` writes: a quarter of the submission size."""
    height, width = (-(-side // _REDUCTION) for side in dataset.submission_size)
    return height, width


def write_maps(
    folder: str, filenames: Sequence[str], probabilities: tf.Tensor, size: tuple[int, int]
) -> None:
    """Writes the maps of a batch of images into a folder that exists.

    Probabilities, float32 [B, h, w, C] in [0, 1], are averaged over the area of each pixel of the
    maps, whose (height, width) is `size`.
    """
    smaller = tf.image.resize(probabilities, size, "area")
    maps = tf.cast(tf.round(255 * tf.transpose(smaller, [0, 3, 1, 2])), tf.uint8)
    for filename, classes in zip(filenames, maps):
        encoded = tf.io.encode_png(tf.reshape(classes, [-1, size[1], 1]))
        tf.io.write_file(os.path.join(folder, f"{filename}.png"), encoded)


def write_info(
    folder: str, dataset: Dataset, size: tuple[int, int], source: str, partial: bool = False
) -> None:
    """Writes the description of a folder of maps; `source` tells readers their origin."""
    content = {
        "version": _VERSION,
        "class_names": list(dataset.class_names),
        "size": list(size),
        "source": source,
        **({"partial": True} if partial else {}),
    }
    files.write_text(os.path.join(folder, INFO_FILE), json.dumps(content, indent=1) + "\n")


@dataclasses.dataclass(frozen=True)
class SoftTargets:
    """A folder of maps to learn from in addition to the masks; create it with `open`.

    Attributes:
        folder: the folder.
        size: (height, width) of its maps.
        weight: weight of the maps in the targets, 0 to 1; the masks have the rest.
        names: names of the maps in a partial folder, in which images without a map are learned from
            their masks alone; None for other folders.
    """

    folder: str
    size: tuple[int, int]
    weight: float
    names: tuple[str, ...] | None = None

    @classmethod
    def open(cls, folder: str, weight: float, dataset: Dataset) -> SoftTargets:
        """Opens a folder of maps.

        Args:
            folder: the folder.
            weight: weight of the maps in the targets.
            dataset: the Dataset to train on.

        Raises:
            FileNotFoundError: there is no soft_targets.json.
            ValueError: soft_targets.json is damaged, or names other classes than the data set.
        """
        path = os.path.join(folder, INFO_FILE)
        try:
            info = files.parse_json(files.read_text(path))
            version, names, (height, width) = info["version"], info["class_names"], info["size"]
            partial = info.get("partial", False)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: damaged, or another kind of file: {error!r}") from None
        if version != _VERSION:
            raise ValueError(f"{path}: version: got {version}, expected {_VERSION}")
        if names != list(dataset.class_names):
            expected = list(dataset.class_names)
            raise ValueError(f"{path}: class_names: got {names}, expected {expected}")
        if not isinstance(partial, bool):
            raise ValueError(f"{path}: partial: got {partial!r}, expected true or false")
        maps = tuple(sorted({*files.list_names(folder)} - {INFO_FILE})) if partial else None
        return cls(folder, (int(height), int(width)), weight, maps)

    def check(self, filenames: Iterable[str]) -> list[str]:
        """Looks for images without a map.

        Returns:
            A remark with their number, or none if all images have one.

        Raises:
            ValueError: there are some although the folder is not partial, or a partial folder has
                none of these images; the first ones are named.
        """
        there, names = set(files.list_names(self.folder)), list(filenames)
        missing = [name for name in names if f"{name}.png" not in there]
        if not missing:
            return []
        if self.names is None or len(missing) == len(names):
            listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ValueError(
                f"soft_targets: {self.folder} has no map of {counted(len(missing), 'image')} to "
                f"train on: {listed}"
            )
        some = f"{len(missing):,} of {counted(len(names), 'image')}"
        where = f"have no map in {self.folder}"
        return [f"soft_targets: {some} {where}; their targets are their masks alone"]

    def blend(self, filename: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Blends the map of an image, resized bilinearly, with its mask.

        Args:
            filename: name of the image, string [].
            mask: uint8 [h, w, C] of {0, 1}.

        Returns:
            Targets, uint8 [h, w, C], in 1/255.

        Raises:
            tf.errors.OpError: the map cannot be read or has another size; the message has its path.
        """
        hard = 255.0 * tf.cast(mask, tf.float32)
        if self.names is None:
            soft = self._read(filename, mask)
        else:
            exists = tf.reduce_any(tf.constant(self.names) == filename + ".png")
            soft = tf.cond(exists, lambda: self._read(filename, mask), lambda: hard)
        return tf.cast(tf.round(hard + self.weight * (soft - hard)), tf.uint8)

    def _read(self, filename: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """The map of an image at the size of its mask, float32 [h, w, C] of 0 to 255."""
        (height, width), classes = self.size, mask.shape[-1]
        path = tf.strings.join([self.folder.rstrip("/"), "/", filename, ".png"])
        found = tf.io.decode_png(tf.io.read_file(path), channels=1)
        fits = tf.reduce_all(tf.shape(found) == [classes * height, width, 1])
        message = tf.strings.join(
            [path, f": expected {classes * height} rows and {width} columns, got (height, width) "]
        )
        with tf.control_dependencies([tf.debugging.Assert(fits, [message, tf.shape(found)[:2]])]):
            soft = tf.transpose(tf.reshape(found, [classes, height, width]), [1, 2, 0])
        return tf.image.resize(soft, mask.shape[:2])
