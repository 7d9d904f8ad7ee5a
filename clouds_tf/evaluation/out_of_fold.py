"""Out-of-fold predictions: a table with a row for each image and class, and 8-bit maps."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile, rle
from clouds_tf.data import soft_targets
from clouds_tf.data.records import Records
from clouds_tf.evaluation.counts import HUNDREDTHS, TWENTIETHS, Counts, levels
from clouds_tf.evaluation.search import SearchResult, places_of
from clouds_tf.models.probabilities import for_masks
from clouds_tf.prediction.postprocessing import limits_of

_AREAS = [f"area_{round(100 * threshold):02d}" for threshold in HUNDREDTHS[TWENTIETHS]]
_TRUTH = 128  # added to the level of a pixel in the true mask
_BATCH_SIZE = 16


def check_outputs(table: str | None, maps_dir: str | None) -> None:
    """Checks that a table and a folder of maps can be written; ValueError if not."""
    if table:
        files.require("pyarrow", "parquet", "out_of_fold")
        if not table.endswith(".parquet"):
            raise ValueError(f"out_of_fold: got {table}, expected a path that ends in .parquet")
        files.check_output(table)
    if maps_dir:
        if files.list_names(maps_dir):
            raise ValueError(f"out_of_fold_maps: {maps_dir} is not empty, expected a new folder")
        files.check_output(os.path.join(maps_dir, soft_targets.INFO_FILE))


class Recorder:
    """Keeps predictions on local disk until the rules that turn them into masks are known.

    An image takes about 50 kB on disk, and in memory its name and a number for each class.

    Args:
        records: the records.
        folds: the predicted folds, in order.
        folder: an empty folder.
        table: the Parquet file to write; None writes none.
        maps_dir: folder for maps of the probabilities; None writes none.
    """

    def __init__(
        self,
        records: Records,
        folds: Sequence[int],
        folder: str,
        table: str | None,
        maps_dir: str | None,
    ) -> None:
        self._dataset, self._table, self._maps_dir = records.dataset, table, maps_dir
        self._names = [name for fold in folds for name in records.first_names([fold])]
        self._num_images = 0
        self._path = os.path.join(folder, "pixels.tfrecord")
        self._writer = tf.io.TFRecordWriter(self._path)

    def add(self, masks: tf.Tensor, probabilities: tf.Tensor) -> None:
        """Stores a batch: true masks uint8 [B, h, w, C] of {0, 1}, and float32 probabilities."""
        kept = for_masks(probabilities, self._dataset.exclusive)
        pixels = levels(kept, HUNDREDTHS) + _TRUTH * tf.cast(masks, tf.int32)
        pixels = tf.cast(tf.transpose(pixels, [0, 3, 1, 2]), tf.uint8)
        for image in pixels:
            encoded = tf.io.encode_png(tf.reshape(image, [-1, image.shape[2], 1]))
            self._writer.write(encoded.numpy())
        if self._maps_dir:
            names = self._names[self._num_images : self._num_images + len(pixels)]
            size = soft_targets.map_size(self._dataset)
            soft_targets.write_maps(self._maps_dir, names, probabilities, size)
        self._num_images += len(pixels)

    def write(self, counts: Counts, found: SearchResult, source: str) -> None:
        """Writes the table and a description of the maps; `source` names the models."""
        self._writer.close()
        if self._table:
            files.write_parquet(self._table, _schema(), self._rows(counts, found))
        if self._maps_dir:
            size = soft_targets.map_size(self._dataset)
            soft_targets.write_info(self._maps_dir, self._dataset, size, source)

    def _rows(self, counts: Counts, found: SearchResult) -> Iterator[tuple[Any, ...]]:
        """The rows of the table, in the order of the images and then of the classes."""
        dataset = self._dataset
        limits = limits_of(counts.top_means, found.rules).numpy()
        kept = np.isfinite(limits)
        cuts = places_of(np.where(kept, limits, HUNDREDTHS[0]))
        above = counts.areas
        areas = kept * np.take_along_axis(above, cuts[..., np.newaxis], axis=2)[..., 0]
        shape = [-1, dataset.num_classes, *dataset.submission_size]
        pixels = tf.data.TFRecordDataset(self._path).map(tf.io.decode_png)
        batches = tf.data.Dataset.zip((pixels, tf.data.Dataset.from_tensor_slices(cuts)))
        encoded = (
            encoded
            for some, limits in batches.batch(_BATCH_SIZE)
            for encoded in _encode(tf.reshape(some, shape), limits, dataset.rle_order)
        )
        for i, (truths, masks) in enumerate(encoded):
            for c, name in enumerate(dataset.class_names):
                yield (
                    *(self._names[i], name, counts.folds[i], counts.truths[i, c] > 0),
                    *(counts.presence[i, c], counts.top_means[i, c], counts.truths[i, c]),
                    *(areas[i, c], found.tuned[i, c], found.cross_fitted[i, c]),
                    *above[i, c, TWENTIETHS],
                    *(masks[c] if kept[i, c] else "", truths[c]),
                )


@contextlib.contextmanager
def recording(
    records: Records, folds: Sequence[int], table: str | None, maps_dir: str | None
) -> Iterator[Recorder | None]:
    """Context with a Recorder, or None without outputs; maps are written whole or not at all."""
    if not (table or maps_dir):
        yield None
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if maps_dir:
            maps_dir = stack.enter_context(files.written_whole(maps_dir))
            gfile.makedirs(maps_dir)
        yield Recorder(records, folds, folder, table, maps_dir)


def _schema() -> Any:
    """The columns of the table as a pyarrow.Schema."""
    import pyarrow as pa

    kinds = {
        **{"filename": pa.string(), "class": pa.string(), "fold": pa.int32()},
        **{"present": pa.bool_(), "presence": pa.float32(), "top_mean": pa.float32()},
        **{"true_area": pa.int64(), "area": pa.int64()},
        **{"dice": pa.float64(), "dice_cross_fitted": pa.float64()},
        **dict.fromkeys(_AREAS, pa.int64()),
        **{"encoded_pixels": pa.string(), "true_pixels": pa.string()},
    }
    return pa.schema(list(kinds.items()))


def _encode(pixels: tf.Tensor, cuts: tf.Tensor, order: str) -> list[list[list[str]]]:
    """RLE of true masks and of pixels above thresholds: [B, C, h, w] to B pairs of C strings."""
    levels = tf.cast(pixels % _TRUTH, tf.int64)
    masks = [pixels >= _TRUTH, levels > cuts[..., tf.newaxis, tf.newaxis]]
    encoded = rle.encode(tf.cast(tf.stack(masks, axis=1), tf.uint8), order).numpy()
    return [[[text.decode() for text in some] for some in pair] for pair in encoded]
