"""Soft targets from the boxes of several people: the share of people who marked each pixel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

import numpy as np

from clouds_tf import files, gfile
from clouds_tf.data import soft_targets
from clouds_tf.data.csv_tables import read_table
from clouds_tf.data.records import Records
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, raise_faults
from clouds_tf.progress import Progress, shown

COLUMNS = ("image", "person", "label", "x1", "y1", "x2", "y2")
_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True)
class Views:
    """Boxes that people drew in one image.

    Attributes:
        num_people: number of people who looked at it, with or without a box.
        people: int [n], the person who drew each box, from 0.
        labels: int [n], class of each box.
        boxes: float64 [n, 4]: x1, y1, x2, y2 as shares of the width and height.
    """

    num_people: int
    people: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    def shares(self, size: tuple[int, int], num_classes: int) -> np.ndarray:
        """Share of people with a box of a class over the centre of a pixel: float32 [h, w, C]."""
        height, width = size
        found = np.zeros((self.num_people, height, width, num_classes), bool)
        # Rounded, so that an edge at the centre of a pixel is always on the same side of it.
        edges = np.round(self.boxes * [width, height, width, height] - 0.5, 6)
        edges = np.ceil(edges).clip(0).astype(int)
        for person, label, (left, top, right, bottom) in zip(self.people, self.labels, edges):
            found[person, top:bottom, left:right, label] = True
        return found.mean(0, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Summary:
    """Result of `write_shares`.

    Attributes:
        num_maps: images of the records with a map.
        num_others: images of the records without boxes, which have no map.
        num_unknown: images of the table that are not in the records.
        outside: share of the boxes' area that is outside the masks and counts as 0.
    """

    num_maps: int
    num_others: int
    num_unknown: int
    outside: float


def read_boxes(path: str, dataset: Dataset, size: tuple[int, int]) -> dict[str, Views]:
    """Reads a table of boxes: a row for each box, or one for a person who drew none.

    Args:
        path: a CSV with the `COLUMNS`. Empty label and corners mean that the person looked at the
            image and saw nothing.
        dataset: the Dataset of the labels.
        size: (height, width) of the images, in the pixels of the corners. Boxes are clipped to the
            image.

    Returns:
        A dict from file name to Views.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing or a row is faulty; the first ten are named by their lines.
    """
    rows: dict[str, dict[int, list[str]]] = {}
    faults = []
    table = read_table(path, COLUMNS)[list(COLUMNS)].apply(lambda column: column.str.strip())
    for line, (image, *cells) in zip(table.index.tolist(), table.to_numpy().tolist()):
        reason = _fault(image, cells, dataset, size)
        if reason:
            faults.append(Fault(path, line, reason))
        rows.setdefault(image, {})[line] = cells
    for of_image in rows.values():
        drew = {person for person, label, *_ in of_image.values() if label}
        for line, (person, label, *_) in of_image.items():
            if not label and person in drew:
                faults.append(Fault(path, line, f"person {person} saw nothing, but drew a box"))
    raise_faults(sorted(faults))
    return {image: _views([*found.values()], dataset, size) for image, found in rows.items()}


def _fault(image: str, cells: Sequence[str], dataset: Dataset, size: tuple[int, int]) -> str:
    """Describes what is wrong with a row; "" if nothing is."""
    person, label, *corners = cells
    if not image or not person:
        return "expected an image and a person"
    if not label and not any(corners):
        return ""
    if label not in dataset.class_names:
        return f"{image}: label: got {label!r}, expected one of {', '.join(dataset.class_names)}"
    try:
        left, top, right, bottom = map(float, corners)
    except ValueError:
        return f"{image}: got {', '.join(corners)}, expected numbers x1, y1, x2 and y2"
    height, width = size
    if not (max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)):
        return (
            f"{image}: got {', '.join(corners)}, expected x1 < x2, y1 < y2 and an area within "
            f"{height}x{width} (height x width)"
        )
    return ""


def _views(rows: Sequence[Sequence[str]], dataset: Dataset, size: tuple[int, int]) -> Views:
    height, width = size
    people = {name: number for number, name in enumerate(sorted({row[0] for row in rows}))}
    drawn = [row for row in rows if row[1]]
    return Views(
        len(people),
        np.array([people[row[0]] for row in drawn], int),
        np.array([dataset.class_names.index(row[1]) for row in drawn], int),
        np.array([row[2:] for row in drawn], float).reshape(-1, 4) / [width, height, width, height],
    )


def write_shares(
    records: Records,
    views: Mapping[str, Views],
    folder: str,
    source: str,
    progress: Progress | bool = False,
) -> Summary:
    """Writes the share of people who marked a pixel as a folder of soft targets.

    Where a mask is 0, such as in the black gap of an image, the share is 0. Images without boxes
    get no map and are learned from their masks alone.

    Args:
        records: the records that the folder is for.
        views: the boxes of each image, by file name.
        folder: the folder to write: a new or an empty one.
        source: description of the origin of the boxes, for readers.
        progress: called with (done, total) images; True shows a bar.

    Raises:
        ValueError: the folder is not empty, or no image of the records has a view.
    """
    if files.list_names(folder):
        raise ValueError(f"{folder}: is not empty, expected a new folder")
    dataset, folds = records.dataset, records.info.all_folds
    names = records.first_names(folds)
    unknown = views.keys() - {*names}
    if len(unknown) == len(views):
        raise ValueError(
            f"{source}: none of its images is in {records.path}, for example "
            f"{min(unknown, default='none')}"
        )
    files.check_output(os.path.join(folder, soft_targets.INFO_FILE))
    covered, outside, done = 0.0, 0.0, 0
    map_size, tell = soft_targets.map_size(dataset), shown(progress, "image")
    with files.written_whole(folder) as temporary:
        gfile.makedirs(temporary)
        for _, masks in records.held_out_batches(folds, map_size, _BATCH_SIZE):
            for name, mask in zip(names[done : done + len(masks)], masks.numpy()):
                done += 1
                if name in views:
                    drawn = views[name].shares(dataset.submission_size, dataset.num_classes)
                    soft_targets.write_maps(temporary, [name], (drawn * mask)[None], map_size)
                    covered, outside = covered + drawn.sum(), outside + (drawn * (1 - mask)).sum()
            tell(done, len(names))
        soft_targets.write_info(temporary, dataset, map_size, source, partial=True)
    num_maps = len(views) - len(unknown)
    share = float(outside / covered) if covered else 0.0
    return Summary(num_maps, len(names) - num_maps, len(unknown), share)
