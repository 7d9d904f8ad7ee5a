"""Writes, parses and decodes tf.train.Examples."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.mask_words import from_words
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.dataset import Dataset
from clouds_tf.rle.masks import draw_words

_FILENAME_KEY = "image/filename"
_ENCODED_KEY = "image/encoded"
_HEIGHT_KEY = "image/height"
_WIDTH_KEY = "image/width"
_RUNS_KEY = "mask/runs"
_MASK_HEIGHT_KEY = "mask/height"
_MASK_WIDTH_KEY = "mask/width"
_FOLD_KEY = "fold"

# Incremented whenever the meaning of the records changes.
SCHEMA_VERSION = 2


def to_column_major(
    rles: tf.Tensor | Sequence[str], dataset: Dataset, size: tuple[int, int] | None = None
) -> tf.Tensor:
    """Rewrites the RLE of a data set so that runs count down the columns, as `rle` expects.

    Args:
        rles: string [...], in the order of the data set.
        dataset: has the order of the RLE.
        size: (height, width) of the masks; None takes the data set's mask_size.

    Returns:
        String [...]; unchanged if the data set already counts down the columns.

    Raises:
        tf.errors.InvalidArgumentError: a RLE is malformed.
    """
    if dataset.rle_order == "columns":
        return tf.convert_to_tensor(rles, tf.string)
    size = size or dataset.mask_size
    return rle.encode(rle.decode(rles, size, size, order="rows"))


def check_exclusive(rles: Sequence[str], dataset: Dataset) -> None:
    """Raises ValueError if masks of exclusive classes overlap; `rles` has an RLE for each class."""
    if not dataset.exclusive:
        return
    pairs = list(itertools.combinations(range(dataset.num_classes), 2))
    one, other = ([rles[pair[i]] for pair in pairs] for i in (0, 1))
    shared = rle.intersection(one, other).numpy() if pairs else np.zeros(0)
    if shared.any():
        worst = shared.argmax()
        names = " and ".join(dataset.class_names[i] for i in pairs[worst])
        raise ValueError(
            f"{shared[worst]} pixels belong to both {names}, but the data set says that its "
            "classes are exclusive"
        )


def make_example(
    filename: str,
    encoded: bytes,
    size: tuple[int, int],
    rles: Sequence[str],
    fold: int,
    dataset: Dataset,
    mask_size: tuple[int, int] | None = None,
) -> tf.train.Example:
    """Makes the tf.train.Example of one image.

    Args:
        filename: the name of the image's file.
        encoded: the bytes of its JPEG, PNG or NumPy file.
        size: (height, width) of that image.
        rles: one RLE string per class, in the order of the data set.
        fold: the fold in which the image is held out.
        dataset: has the size of the masks and the order of the RLE; the example's runs are always
            column-major.
        mask_size: (height, width) of the masks; None takes the data set's.

    Returns:
        A tf.train.Example, which `parse_example` reads.

    Raises:
        tf.errors.InvalidArgumentError: a RLE is malformed.
    """

    def string(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integers(*values: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    # Parsed once, here: parsing the text in every epoch would take longer than drawing the mask.
    mask_size = mask_size or dataset.mask_size
    runs = rle.parse(to_column_major(tf.constant(rles), dataset, mask_size), mask_size)
    runs = np.column_stack([runs.value_rowids(), runs.values])
    feature = {
        _FILENAME_KEY: string(filename.encode()),
        _ENCODED_KEY: string(encoded),
        _HEIGHT_KEY: integers(size[0]),
        _WIDTH_KEY: integers(size[1]),
        _RUNS_KEY: integers(*runs.ravel()),
        _MASK_HEIGHT_KEY: integers(mask_size[0]),
        _MASK_WIDTH_KEY: integers(mask_size[1]),
        _FOLD_KEY: integers(fold),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def parse_example(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses an example of `make_example`, without decoding image and mask.

    Args:
        serialized: a serialized tf.train.Example, string [].

    Returns:
        A dict: filename string [], encoded string [] (an image file), size int64 [2], runs int64
        [R, 3] (class, start, length, as `rle.draw` takes them), mask_size int64 [2], fold int64 [].
    """
    scalars = {key: tf.io.FixedLenFeature([], tf.string) for key in (_FILENAME_KEY, _ENCODED_KEY)}
    for key in (_HEIGHT_KEY, _WIDTH_KEY, _MASK_HEIGHT_KEY, _MASK_WIDTH_KEY, _FOLD_KEY):
        scalars[key] = tf.io.FixedLenFeature([], tf.int64)
    parsed = tf.io.parse_single_example(
        serialized,
        {**scalars, _RUNS_KEY: tf.io.FixedLenSequenceFeature([3], tf.int64, allow_missing=True)},
    )
    return {
        "filename": parsed[_FILENAME_KEY],
        "encoded": parsed[_ENCODED_KEY],
        "size": tf.stack([parsed[_HEIGHT_KEY], parsed[_WIDTH_KEY]]),
        "runs": parsed[_RUNS_KEY],
        "mask_size": tf.stack([parsed[_MASK_HEIGHT_KEY], parsed[_MASK_WIDTH_KEY]]),
        "fold": parsed[_FOLD_KEY],
    }


def load_example(
    record: dict[str, tf.Tensor],
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    dataset: Dataset,
) -> dict[str, tf.Tensor]:
    """Decodes image and masks of a parsed record, each at a given size.

    Args:
        record: a dict as `parse_example` returns it.
        image_size: (height, width) of the image.
        mask_size: (height, width) of the masks.
        dataset: gives the number of classes C and of channels.

    Returns:
        A dict: image uint8 [h, w, channels], mask uint8 [h', w', C] of {0, 1}.
    """
    load = _loader(tuple(image_size), tuple(mask_size), dataset.num_classes, dataset.channels)
    return load(record["encoded"], record["runs"], record["mask_size"])


@functools.lru_cache(maxsize=32)  # a graph of 600 operations, which takes 0.2 seconds to trace
def _loader(
    image_size: tuple[int, int], mask_size: tuple[int, int], num_classes: int, channels: int
) -> Any:
    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.string),
            tf.TensorSpec([None, 3], tf.int64),
            tf.TensorSpec([2], tf.int64),
        ],
        autograph=False,
    )
    def load(encoded: tf.Tensor, runs: tf.Tensor, true_size: tf.Tensor) -> dict[str, tf.Tensor]:
        words = draw_words(tf.cast(runs, tf.int32), num_classes, true_size, mask_size)
        return {
            "image": decode_image(encoded, image_size, channels),
            "mask": from_words(
                tf.unstack(tf.ensure_shape(words, [-(-num_classes // 4), *mask_size])), num_classes
            ),
        }

    return load
