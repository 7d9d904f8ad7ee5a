"""Finds the images to predict: all images of a folder, or those of a sample submission."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from clouds_tf import files, gfile
from clouds_tf.data.annotations import iterate_rows
from clouds_tf.data.source_images import TIFF_ENDINGS
from clouds_tf.dataset import Dataset

_LISTED = 3  # skipped files in an error


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The images to predict, and the requested rows.

    Attributes:
        images: (file name, class names of the requested rows) of each image.
        skipped: files of the folder that are not images, each with the reason: "a.tif: a TIFF".
        sample: path of a sample submission in which the rows of an image are not consecutive, so
            that rows have another order than images; otherwise None.
    """

    images: tuple[tuple[str, tuple[str, ...]], ...]
    skipped: tuple[str, ...] = ()
    sample: str | None = None


def read_inputs(images_dir: str, sample_submission: str | None, dataset: Dataset) -> Inputs:
    """Finds the images to predict.

    Args:
        images_dir: folder of the images.
        sample_submission: CSV with the rows to fill in; None takes every image of the folder,
            sorted by name, with a row for every class.
        dataset: the Dataset of the predictions.

    Raises:
        FileNotFoundError: there is no such folder or sample, or no image that the sample names.
        ValueError: the sample is malformed, or there are no images.
    """
    if not gfile.isdir(images_dir):
        raise FileNotFoundError(f"{images_dir}: no such folder")
    if sample_submission is None:
        return _read_folder(images_dir, dataset)
    return _read_sample(images_dir, sample_submission, dataset)


def _read_folder(images_dir: str, dataset: Dataset) -> Inputs:
    images, skipped = [], []
    # An id without file extension must name a single file.
    endings = (dataset.image_ending.lower(),) if dataset.image_ending else dataset.image_endings
    for name in files.visible_names(images_dir):
        if name.lower().endswith(endings):
            images.append((name, dataset.class_names))
        else:
            skipped.append(f"{name}: {_why_skipped(os.path.join(images_dir, name), endings)}")
    if not images:
        found = "; ".join(skipped[:_LISTED])
        more = f" and {len(skipped) - _LISTED} more" if len(skipped) > _LISTED else ""
        raise ValueError(
            f"{images_dir}: no images, expected files that end in {', '.join(endings)}"
            + (f"; skipped {found}{more}" if found else "")
        )
    return Inputs(tuple(images), tuple(skipped))


def _why_skipped(path: str, endings: tuple[str, ...]) -> str:
    if path.lower().endswith(TIFF_ENDINGS):
        return "a TIFF, which tools/predict_scenes.py reads"
    if gfile.isdir(path):
        return "a folder"
    return f"does not end in {' or '.join(filter(None, (', '.join(endings[:-1]), endings[-1])))}"


def _read_sample(images_dir: str, sample: str, dataset: Dataset) -> Inputs:
    rows: dict[str, list[str]] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # images share the tuple of their classes
    grouped, last = True, None
    for filename, class_name in read_sample_rows(sample, dataset):
        if class_name in rows.get(filename, ()):
            raise ValueError(f"{sample}: {filename} has a second row for {class_name}")
        if filename != last and filename in rows:
            grouped = False
        rows.setdefault(filename, []).append(class_name)
        last = filename
    for filename in rows:
        path = os.path.join(images_dir, filename)
        if not gfile.exists(path):
            raise FileNotFoundError(f"{path}: no such image, but {sample} names it")
    images = ((name, tuple(classes)) for name, classes in rows.items())
    shared = tuple((name, known.setdefault(classes, classes)) for name, classes in images)
    return Inputs(shared, sample=None if grouped else sample)


def read_sample_rows(sample: str, dataset: Dataset) -> Iterator[tuple[str, str]]:
    """Yields (file name, class name) of every row of a sample submission.

    Repeated rows of a data set are yielded once.
    """
    seen: set[tuple[str, str]] = set()
    for filename, class_name, _ in iterate_rows(sample, dataset):
        if dataset.repeated_rows != "error":
            if (filename, class_name) in seen:
                continue
            seen.add((filename, class_name))
        yield filename, class_name
