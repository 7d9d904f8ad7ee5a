"""Reads COCO JSON: polygons and run-length encodings to a mask for each image and class."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data import spelling
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, about_the_data, raise_faults
from clouds_tf.settings import check_size

Size = tuple[int, int]

_AT_A_TIME = 1024  # encodings that are rewritten together
_KINDS = {int: "a whole number", str: "a text", list: "a list"}
_UPSAMPLING = 5  # of polygons, as in pycocotools


@dataclasses.dataclass
class Masks:
    """Masks of one image.

    Attributes:
        size: (height, width) of the masks.
        rles: RLE of each class, in the order of the data set.
        faults: what is wrong with them.
    """

    size: Size
    rles: tuple[str, ...] = ()
    faults: list[Fault] = dataclasses.field(default_factory=list)


def describe(path: str) -> Dataset:
    """Describes the data set of a COCO JSON: its categories by id, and its most frequent size.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is not COCO JSON.
    """
    images, categories, _ = _load(path)
    size = collections.Counter(size for _, size in images.values()).most_common(1)[0][0]
    try:
        return Dataset(
            class_names=tuple(categories[number] for number in sorted(categories)),
            mask_size=size,
            submission_size=size,
            label_columns=("file_name", "category"),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read(path: str, dataset: Dataset) -> tuple[dict[str, Masks], list[Fault]]:
    """Reads COCO JSON.

    Polygons are drawn as in pycocotools. All objects of a category in an image, including crowds,
    form one mask; images without objects have blank masks.

    Args:
        path: the JSON file.
        dataset: its classes are the categories.

    Returns:
        The masks of each image by file name, in the order of the file; and all faults.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is not COCO JSON.
    """
    images, categories, annotations = _load(path)
    found = {name: Masks(size) for name, size in images.values()}
    faults: list[Fault] = []
    parts: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    encoded: dict[tuple[type, Size], list[Any]] = collections.defaultdict(list)

    def add(place: str, name: str, error: ValueError) -> None:
        faults.append(Fault(path, 0, f"{place}{f' ({name})' if name else ''}: {error}"))
        if name:
            found[name].faults.append(faults[-1])

    for place, annotation in annotations:
        name = ""
        try:
            name, size = images[_known(annotation, "image_id", images)]
            category = categories[_known(annotation, "category_id", categories)]
            if category not in dataset.class_names:
                expected = ", ".join(dataset.class_names)
                raise ValueError(f"got the category {category!r}, expected one of {expected}")
            shape = annotation.get("segmentation")
            if isinstance(shape, dict):
                counts = _counts(shape, size)
                encoded[type(counts), size].append((place, name, category, counts))
            else:
                parts[name, category] += [draw_polygon(part, size) for part in _polygons(shape)]
        except ValueError as error:
            add(place, name, error)
    for (_, size), jobs in encoded.items():
        for start in range(0, len(jobs), _AT_A_TIME):
            some = jobs[start : start + _AT_A_TIME]
            for (place, name, category, _), text in zip(some, _decode([x[3] for x in some], size)):
                if isinstance(text, ValueError):
                    add(place, name, text)
                else:
                    parts[name, category].append(text)
    for name, masks in found.items():
        rles = [spelling.union(parts.get((name, category), ())) for category in dataset.class_names]
        if dataset.rle_order == "rows":
            drawn = rle.decode(rles, masks.size, masks.size)
            rles = [text.decode() for text in rle.encode(drawn, "rows").numpy()]
        masks.rles = tuple(rles)
    return found, faults


def _load(
    path: str,
) -> tuple[dict[int, tuple[str, Size]], dict[int, str], list[tuple[str, dict[str, Any]]]]:
    """Images (file name, size) and categories by id, and the annotations with their places."""
    try:
        content = files.parse_json(files.read_text(path))
        if not isinstance(content, dict):
            raise ValueError("got no object, expected one with images, annotations and categories")
        tables = [list(_entries(content, key)) for key in ("images", "categories", "annotations")]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    images: dict[int, tuple[str, Size]] = {}
    categories: dict[int, str] = {}
    faults, names = [], set()
    for place, entry in tables[0] + tables[1]:
        try:
            number = _field(entry, "id", int)
            known: dict[int, Any] = images if place.startswith("images") else categories
            if number in known:
                raise ValueError(f"a second one with the id {number}")
            if known is categories:
                categories[number] = _field(entry, "name", str)
                continue
            name = _field(entry, "file_name", str)
            size = _field(entry, "height", int), _field(entry, "width", int)
            check_size("height, width", size)
            if re.search(files.UNSAFE_NAME, name):
                raise ValueError(f"got the file name {name!r}, expected one without a folder")
            if name in names:
                raise ValueError(f"a second image {name}")
            names.add(name)
            images[number] = name, size
        except ValueError as error:
            faults.append(Fault(path, 0, f"{place}: {error}"))
    raise_faults(faults)
    if not images:
        raise ValueError(f"{path}: has no images")
    return images, categories, tables[2]


def _entries(content: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list of COCO JSON, with places such as "annotations[3]"."""
    for i, entry in enumerate(_field(content, key, list)):
        if not isinstance(entry, dict):
            raise ValueError(f"{key}[{i}]: got {entry!r}, expected an object")
        yield f"{key}[{i}]", entry


def _field(entry: dict[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key)
    if type(value) is not kind:
        got = f"got {value!r:.40}" if key in entry else "missing"
        raise ValueError(f"{key}: {got}, expected {_KINDS[kind]}")
    return value


def _known(entry: dict[str, Any], key: str, known: dict[int, Any]) -> int:
    """Reads the id in a field; ValueError if it is unknown."""
    number = _field(entry, key, int)
    if number not in known:
        raise ValueError(f"{key}: got {number}, which does not exist")
    return number


def _counts(shape: dict[str, Any], size: Size) -> str | list[int]:
    """The counts of a run-length encoding, a compressed text or a list."""
    if shape.get("size") != list(size):
        raise ValueError(f"segmentation: got the size {shape.get('size')}, expected {list(size)}")
    counts = shape.get("counts")
    if not isinstance(counts, str) and not (
        isinstance(counts, list) and all(type(count) is int for count in counts)
    ):
        raise ValueError(f"segmentation: got the counts {counts!r:.40}, expected a text or a list")
    return counts


def _decode(counts: list[Any], size: Size) -> list[str | ValueError]:
    """Converts texts, or lists of counts, to plain RLE; malformed ones become errors."""
    try:
        if isinstance(counts[0], str):
            texts = rle.from_coco_string(counts, size)
        else:
            lists = tf.ragged.constant(counts, tf.int64, ragged_rank=1)
            texts = rle.from_coco_counts(lists, size)
        return [text.decode() for text in texts.numpy()]
    except tf.errors.InvalidArgumentError as error:
        if len(counts) > 1:
            middle = len(counts) // 2
            return _decode(counts[:middle], size) + _decode(counts[middle:], size)
        reason = re.sub(r"^\w+\[\d*\]: ", "", about_the_data(error.message))
        return [ValueError(f"segmentation: {reason}")]


def _polygons(shape: object) -> Iterator[np.ndarray]:
    """The polygons of a segmentation, each float64 [N, 2] of (x, y)."""
    if not isinstance(shape, list) or not shape:
        raise ValueError(f"segmentation: got {shape!r:.40}, expected polygons, or counts and size")
    for part in shape:
        numbers = part if isinstance(part, list) else []
        is_good = all(isinstance(x, (int, float)) and np.isfinite(x) for x in numbers)
        if not is_good or len(numbers) < 6 or len(numbers) % 2:
            raise ValueError(
                f"segmentation: got the polygon {part!r:.40}, expected x, y of three points or more"
            )
        yield np.array(numbers, np.float64).reshape(-1, 2)


def draw_polygon(points: np.ndarray, size: Size) -> str:
    """Rasterises a polygon to plain RLE, pixel for pixel as pycocotools does; runs may touch.

    The outline is followed in steps of a fifth of a pixel. Wherever it enters another column of
    pixels, the mask begins or ends.

    Args:
        points: float64 [N, 2], x and y in pixels from the upper left corner of the image.
        size: (height, width) of the mask.
    """
    height, width = size
    first = np.trunc(_UPSAMPLING * points + 0.5).astype(np.int64)
    last = np.roll(first, -1, axis=0)
    length = np.abs(last - first)
    is_wide = length[:, 0] >= length[:, 1]  # these edges have a point for each x, others for each y
    edges, along = np.arange(len(first)), np.where(is_wide, 0, 1)
    backwards = (first[edges, along] > last[edges, along])[:, np.newaxis]
    low, high = np.where(backwards, last, first), np.where(backwards, first, last)
    steps = length[edges, along]
    across = 1 - along
    slope = (high - low)[edges, across] / np.maximum(steps, 1)

    edge = np.repeat(edges, steps + 1)
    step = np.arange(len(edge)) - (np.cumsum(steps + 1) - steps - 1)[edge]
    step = np.where(backwards[edge, 0], steps[edge] - step, step)
    main = low[edge, along[edge]] + step
    other = np.trunc(low[edge, across[edge]] + slope[edge] * step + 0.5).astype(np.int64)
    x, y = np.where(is_wide[edge], main, other), np.where(is_wide[edge], other, main)

    enters = x[1:] != x[:-1]
    x, y = (x[1:] - (x[1:] > x[:-1]))[enters], np.minimum(y[1:], y[:-1])[enters]
    column = (x + 0.5) / _UPSAMPLING - 0.5
    row = np.ceil(np.clip((y + 0.5) / _UPSAMPLING - 0.5, 0, height))
    inside = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    places = np.sort((column * height + row)[inside])
    places = np.append(places, [height * width] * (len(places) % 2)).astype(np.int64)
    start, end = places.reshape(-1, 2)[places[::2] < places[1::2]].T
    return spelling.write_runs(start + 1, end - start)
