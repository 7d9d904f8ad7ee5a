"""Measures all images and masks, on runs and on reduced images, in tf.data.

No mask is drawn at its full size: areas, boxes and components are computed from runs, and positions
in the image on a grid of GRID cells.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.examples import to_column_major
from clouds_tf.data.preprocessing import decode_image, encoded_size
from clouds_tf.data.source_images import read_image
from clouds_tf.dataset import Dataset
from clouds_tf.lazy import unconverted
from clouds_tf.messages import counted, native_lines
from clouds_tf.progress import Progress

GRID = (70, 105)  # cells in which masks and the black gap are compared
_THUMBNAIL = (14, 21)  # size of the grey thumbnails by which images are compared
_DECODED = (140, 210)  # size at which images are measured, twice GRID

# A pixel at the edge of the gap is a mixture of gap and sea. It counts as gap up to this
# brightness, about half of that of the darkest sea.
_RIM = 20
# Sun glint: even the darkest cell nearby is grey, and brighter than clear sea. Even brighter cells
# are thick clouds.
_GLINT_RANGE = (50, 140)
_GLINT_GREY = 12  # largest difference of red from blue and from green
_GLINT_WINDOW = 7  # cells; wider than the gaps between small clouds

_BATCH_SIZE = 16
_OF_IMAGE = ("brightness", "contrast", "blueness", "gap", "glint")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Measurements of N readable images with C classes.

    Attributes:
        rows: a row per image and class, in the order of the annotations; see `measure`.
        components: a row per connected component (8 neighbours), with filename, class and area in
            pixels at the mask size.
        average_masks: float32 [C, *GRID], share of images in which a cell is covered, 0 to 1.
        thumbnails: uint8 [N, *THUMBNAIL], grey, with the gap filled with the mean.
        problems: messages about files that could not be used.
    """

    rows: pd.DataFrame
    components: pd.DataFrame
    average_masks: np.ndarray
    thumbnails: np.ndarray
    problems: list[str]

    def __repr__(self) -> str:
        images = counted(len(self.thumbnails), "image")
        return f"Statistics({images}, {counted(len(self.problems), 'problem')})"


def _boxes(runs: tf.RaggedTensor, height: tf.Tensor | int) -> tf.Tensor:
    """Bounding boxes of runs [N, R, 2]: int64 [N, 4], top, left, bottom, right (both exclusive).

    Zeros for empty masks.
    """
    count, row, height = runs.nrows(), runs.value_rowids(), tf.cast(height, tf.int64)
    first, last = runs.values[:, 0], runs.values[:, 0] + runs.values[:, 1] - 1
    # A run that continues in the next column touches both the bottom and the top.
    crosses = first // height != last // height
    top = tf.where(crosses, tf.zeros_like(first), first % height)
    bottom = tf.where(crosses, height - 1, last % height)
    least = tf.math.unsorted_segment_min(tf.stack([top, first // height], 1), row, count)
    most = tf.math.unsorted_segment_max(tf.stack([bottom, last // height], 1), row, count)
    is_empty = runs.row_lengths()[:, tf.newaxis] == 0
    return tf.where(is_empty, tf.zeros_like(least[:, :1]), tf.concat([least, most + 1], 1))


def _describe_image(
    encoded: tf.Tensor | bytes, gap_brightness: int | None, channels: int = 3
) -> dict[str, tf.Tensor]:
    """Measures the bytes of an image, string [], decoded at a reduced scale.

    Returns:
        A dict: size int32 [2]; brightness and contrast (mean and standard deviation, 0 to 255) and
        blueness (mean of blue minus red) outside the gap; gap and glint, shares of the image, 0 to
        1, all float32 [], blueness and glint only for RGB; black bool [*GRID], the cells entirely
        in the gap; thumbnail uint8 [*_THUMBNAIL].
    """
    pixels = decode_image(encoded, _DECODED, channels)
    image = tf.cast(pixels, tf.float32)
    seen = tf.cast(~_in_gap(pixels, gap_brightness), tf.float32)
    is_gap = seen == 0
    num_seen = tf.maximum(tf.reduce_sum(seen), 1)
    grey = tf.reduce_mean(image, axis=2)
    brightness = tf.reduce_sum(grey * seen) / num_seen
    variance = tf.reduce_sum(tf.square(grey - brightness) * seen) / num_seen
    filled = tf.where(is_gap, brightness, grey)[..., tf.newaxis]
    thumbnail = tf.image.resize(filled, _THUMBNAIL, method="area")[..., 0]
    of_colours = {}
    if channels == 3:
        blueness = tf.reduce_sum((image[..., 2] - image[..., 0]) * seen) / num_seen
        of_colours = {"blueness": blueness, "glint": _glint(image, seen)}
    return {
        **of_colours,
        "size": encoded_size(encoded, channels),
        "brightness": brightness,
        "contrast": tf.sqrt(variance),
        "gap": 1 - tf.reduce_mean(seen),
        "black": -tf.nn.max_pool2d(seen[tf.newaxis, ..., tf.newaxis], 2, 2, "VALID")[0, ..., 0]
        > -1,
        "thumbnail": tf.cast(tf.round(thumbnail), tf.uint8),
    }


def _in_gap(pixels: tf.Tensor, gap_brightness: int | None) -> tf.Tensor:
    """Finds pixels of an image uint8 [h, w, 3] in the black gap or at its edge: bool [h, w]."""
    if gap_brightness is None:
        return tf.zeros(tf.shape(pixels)[:2], tf.bool)
    brightest = tf.reduce_max(pixels, axis=2)
    black = tf.cast(brightest <= gap_brightness, tf.float32)[tf.newaxis, ..., tf.newaxis]
    near = tf.nn.max_pool2d(black, 3, 1, "SAME")[0, ..., 0] > 0
    return near & (brightest <= _RIM)


def _glint(image: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Share of an image with sun glint, where the sea between the clouds is bright and grey."""
    seen = seen[..., tf.newaxis]
    # A cell at the gap is half black and would be mistaken for dark sea.
    inside = -tf.nn.max_pool2d(-seen[tf.newaxis], 3, 1, "SAME")
    cells = tf.where(inside > 0, image[tf.newaxis], 255.0)
    cells = -tf.nn.max_pool2d(-cells, 2, 2, "VALID")
    darkest = -tf.nn.max_pool2d(-cells, _GLINT_WINDOW, 1, "SAME")
    # Morphological opening: undoes the spreading of the darkest cells.
    sea = tf.nn.max_pool2d(darkest, _GLINT_WINDOW, 1, "SAME")[0]
    red = sea[..., :1]
    low, high = _GLINT_RANGE
    is_glint = (red >= low) & (red < high) & (tf.abs(sea - red) <= _GLINT_GREY)
    return tf.reduce_mean(tf.cast(tf.reduce_all(is_glint, axis=2), tf.float32))


def _describe_masks(encoded: tf.Tensor, size: tuple[int, int], black: tf.Tensor) -> dict[str, Any]:
    """Measures column-major RLE, string [B, C], on the runs.

    Returns:
        A dict: component_areas int64 RaggedTensor [B, C, K]; runs int64 [B, C]; box int64
        [B, C, 4], as `_boxes` returns it; on_black float32 [B, C], share of the mask on black
        cells; touches_gap bool [B, C], whether it reaches a black cell or a neighbour of one;
        covered float32 [C, *GRID], sum of the coverage of the masks.
    """
    runs = rle.parse(tf.reshape(encoded, [-1]), size)
    cover = rle.coverage(encoded, size, GRID)
    black = tf.cast(black, tf.float32)[:, tf.newaxis]
    near = tf.nn.max_pool2d(tf.transpose(black, [0, 2, 3, 1]), 3, 1, "SAME")
    near = tf.transpose(near, [0, 3, 1, 2])
    total = tf.reduce_sum(cover, axis=[2, 3])
    return {
        "component_areas": rle.component_areas(encoded, size),
        "runs": tf.reshape(runs.row_lengths(), tf.shape(encoded)),
        "box": tf.reshape(_boxes(runs, size[0]), [-1, encoded.shape[1], 4]),
        "on_black": tf.math.divide_no_nan(tf.reduce_sum(cover * black, axis=[2, 3]), total),
        "touches_gap": tf.reduce_any(cover * near > 0, axis=[2, 3]),
        "covered": tf.reduce_sum(cover, axis=0),
    }


def measure(
    table: pd.DataFrame,
    images_dir: str,
    dataset: Dataset,
    progress: Progress = lambda done, total: None,
) -> Statistics:
    """Measures images and masks.

    Images that are missing or unreadable are left out and named in the problems.

    Args:
        table: a row per image, as `annotations.read_csv` returns it.
        images_dir: folder of the images.
        dataset: the Dataset of the table.
        progress: called with (images done, images in all) after every batch.

    Returns:
        Statistics of the N readable images. The columns of rows are filename and class; of the
        mask: area (pixels), fraction (share of the mask size), runs (down the columns), characters
        (of the plain RLE), components, smallest_component and largest_component (pixels), top,
        left, bottom, right, on_black, touches_gap; of the image: height, width, brightness,
        contrast, gap and, of RGB, blueness and glint.

    Raises:
        ValueError: none of the images can be read.
        tf.errors.InvalidArgumentError: as `rle.parse` does.
    """
    paths = [os.path.join(images_dir, filename) for filename in table["filename"]]
    batches = []
    said: list[str] = []
    covered = np.zeros((dataset.num_classes, *GRID))
    for batch in _quietly(_measured_batches(table, paths, dataset), said):
        areas = batch.pop("component_areas")
        covered += batch.pop("covered").numpy()
        arrays = {key: value.numpy() for key, value in batch.items()}
        arrays["components"] = areas.values.row_lengths().numpy()
        batches.append({**arrays, "component_areas": areas.flat_values.numpy()})
        progress(int(arrays["index"][-1]) + 1, len(paths))
    if not batches:
        images = counted(len(paths), "image")
        raise ValueError(f"none of {images} can be read; {_find_problem(paths[0], dataset)}")
    progress(len(paths), len(paths))
    found = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    rows = _make_rows(found, table["filename"].to_numpy()[found["index"]], dataset)
    per_component = rows[["filename", "class"]].loc[rows.index.repeat(rows["components"])]
    unread = np.setdiff1d(np.arange(len(paths)), found["index"])
    return Statistics(
        rows=rows,
        components=per_component.assign(area=found["component_areas"]).reset_index(drop=True),
        average_masks=(covered / len(found["index"])).astype(np.float32),
        thumbnails=found["thumbnail"],
        problems=[_find_problem(paths[i], dataset) for i in unread]
        + (_name_lines([paths[i] for i in found["index"]], dataset.channels) if said else []),
    )


def _quietly(batches: Iterable[Any], said: list[str]) -> Iterator[Any]:
    """Yields batches; collects the messages of libjpeg, which do not name the file, in `said`."""
    remaining = iter(batches)
    while True:
        with native_lines() as lines:
            batch = next(remaining, None)
        said += lines
        if batch is None:
            return
        yield batch


def _name_lines(paths: Sequence[str], channels: int) -> list[str]:
    """Decodes images again, one at a time, to add their names to the messages of libjpeg."""
    problems = []
    for path in paths:
        with native_lines() as lines:
            decode_image(tf.io.read_file(path), _DECODED, channels)
        problems += [f"{path}: {line}" for line in lines]
    return problems


@functools.lru_cache(maxsize=8)  # tracing takes longer than measuring a small folder
def _traced(gap_brightness: int | None, channels: int, size: tuple[int, int]) -> tuple[Any, Any]:
    """`_describe_image` of a path, and `_describe_masks`, as functions of TensorFlow."""

    def describe(path: tf.Tensor) -> dict[str, tf.Tensor]:
        return _describe_image(tf.io.read_file(path), gap_brightness, channels)

    def describe_masks(encoded: tf.Tensor, black: tf.Tensor) -> dict[str, Any]:
        return _describe_masks(encoded, size, black)

    return tf.function(describe, autograph=False), tf.function(describe_masks, autograph=False)


@unconverted  # AutoGraph would take most of the time of small folders
def _measured_batches(table: pd.DataFrame, paths: list[str], dataset: Dataset) -> Any:
    """A tf.data.Dataset of measured images and masks, without unreadable images."""
    names = list(dataset.class_names)
    encoded = tf.constant(table[names].to_numpy(dtype=object).tolist(), tf.string)
    describe_image, describe_masks = _traced(
        dataset.gap_brightness, dataset.channels, tuple(dataset.mask_size)
    )

    def describe(index: tf.Tensor, path: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"index": index, **describe_image(path)}

    def add_masks(images: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        strings = tf.reshape(tf.gather(encoded, images["index"]), [-1, len(names)])
        by_column = to_column_major(strings, dataset)
        found = describe_masks(by_column, images.pop("black"))
        return {**images, **found, "characters": tf.strings.length(strings)}

    images = tf.data.Dataset.from_tensor_slices((np.arange(len(paths)), paths))
    images = images.map(describe, tf.data.AUTOTUNE).ignore_errors()
    return images.batch(_BATCH_SIZE).map(add_masks, tf.data.AUTOTUNE).prefetch(1)


def _find_problem(path: str, dataset: Dataset) -> str:
    """Reason why an image could not be measured."""
    try:
        read_image(path, dataset.mask_size, channels=dataset.channels)
    except ValueError as error:
        return f"{path}: {error}"
    return f"{path}: could not be read at the first attempt"


def _make_rows(
    found: dict[str, np.ndarray], filenames: np.ndarray, dataset: Dataset
) -> pd.DataFrame:
    """A row per image and class."""
    count, num_classes = found["components"], dataset.num_classes
    mask_of_component = np.arange(len(count)).repeat(count)
    by_mask = pd.Series(found["component_areas"]).groupby(mask_of_component)
    component = by_mask.agg(["sum", "min", "max"]).reindex(np.arange(len(count)), fill_value=0)
    box = found["box"].reshape(-1, 4).T
    height, width = found["size"].repeat(num_classes, axis=0).T
    return pd.DataFrame(
        {
            "filename": filenames.repeat(num_classes),
            "class": np.tile(dataset.class_names, len(filenames)),
            "area": component["sum"],
            "fraction": component["sum"] / np.prod(dataset.mask_size),
            "runs": found["runs"].ravel(),
            "characters": found["characters"].ravel(),
            "components": count,
            "smallest_component": component["min"],
            "largest_component": component["max"],
            **{
                edge: pd.Series(values, dtype="Int64").where(count > 0)
                for edge, values in zip(("top", "left", "bottom", "right"), box)
            },
            "on_black": found["on_black"].ravel(),
            "touches_gap": found["touches_gap"].ravel(),
            "height": height,
            "width": width,
            **{key: found[key].repeat(num_classes) for key in _OF_IMAGE if key in found},
        }
    )
