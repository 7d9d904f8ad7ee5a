"""Reads masks in PNG files: one with class values per image, or one per image and class."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from concurrent import futures

import numpy as np

from clouds_tf import files, gfile, rle
from clouds_tf.data.coco import Masks
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault

LAYOUTS = ("values", "classes")
_ENDING = ".png"


def read(
    masks_dir: str, layout: str, images: Sequence[str], dataset: Dataset
) -> tuple[dict[str, Masks], list[Fault]]:
    """Reads the masks of images.

    Args:
        masks_dir: folder of the PNG files.
        layout: "values" has a.png for a.jpg, where 0 is the background and i the i-th class (with a
            single class, also 255); "classes" has CLASS/a.png or a.jpg_CLASS.png, where nonzero
            pixels belong to the mask. Files are grey-scale or have a palette.
        images: file names of the images.
        dataset: names the classes; with missing_rows="absent", images and classes without a file
            have blank masks.

    Returns:
        The masks of each image that has a file, in the order of the images, and all faults.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: Pillow is not installed.
    """
    files.require("PIL", "masks", "--masks_dir")
    if not gfile.isdir(masks_dir):
        raise FileNotFoundError(f"{masks_dir}: no such folder")
    names = set(files.visible_names(masks_dir))
    if layout == "classes":
        for name in dataset.class_names:
            inside = files.visible_names(os.path.join(masks_dir, name))
            names |= {f"{name}/{file}" for file in inside}
    expected = {image: list(_expected(image, layout, names, dataset)) for image in images}
    used = {file for found in expected.values() for file in found}
    faults = [
        Fault(os.path.join(masks_dir, name), 0, "no image for this mask")
        for name in sorted(names - used)
        if name.lower().endswith(_ENDING)
    ]
    wanted = {image: found for image, found in expected.items() if any(found)}

    def read_one(image: str) -> Masks:
        return _read_masks(masks_dir, layout, image, wanted[image], dataset)

    # NumPy, zlib and TensorFlow let other threads run while they compute.
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(wanted, pool.map(read_one, wanted)))
    return found, sum((masks.faults for masks in found.values()), faults)


def _expected(image: str, layout: str, names: set[str], dataset: Dataset) -> Iterator[str]:
    """Yields the name of the file of the image, or of each class; "" if it is missing."""
    stem = os.path.splitext(image)[0]
    for name in dataset.class_names if layout == "classes" else [None]:
        spellings = [f"{stem}{_ENDING}", f"{image}{_ENDING}"]
        if name is not None:
            spellings = [f"{name}/{spelling}" for spelling in spellings]
            spellings += [f"{image}_{name}{_ENDING}", f"{stem}_{name}{_ENDING}"]
        yield next((spelling for spelling in spellings if spelling in names), "")


def _read_masks(
    masks_dir: str, layout: str, image: str, names: Sequence[str], dataset: Dataset
) -> Masks:
    """The masks of one image; a name is "" where there is no file."""
    masks: list[np.ndarray | None] = []
    found = Masks((0, 0))
    for name, class_name in zip(names, dataset.class_names):
        path = os.path.join(masks_dir, name)
        try:
            if not name:
                if dataset.missing_rows == "error":
                    raise ValueError(f"no mask of {class_name} for {image}")
                masks.append(None)
                continue
            values = _read_values(path)
            values = _by_value(values, dataset) if layout == "values" else _is_mask(values)
            size = values.shape[-2], values.shape[-1]
            if found.size not in ((0, 0), size):
                (h, w), (height, width) = size, found.size
                raise ValueError(f"{h}x{w}, but another mask of {image} is {height}x{width}")
            found.size = size
            masks.append(values)
        except ValueError as error:
            found.faults.append(Fault(path, 0, str(error)))
    if not found.faults:
        if layout == "classes":
            blank = np.zeros(found.size, bool)
            masks = [np.stack([blank if mask is None else mask for mask in masks])]
        encoded = rle.encode(masks[0], dataset.rle_order).numpy()
        found.rles = tuple(text.decode() for text in encoded)
    return found


def _by_value(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Class values [h, w] -> masks bool [C, h, w]."""
    if dataset.num_classes == 1 and set(np.unique(values)) <= {0, 255}:
        return values[np.newaxis] > 0
    if values.max() > dataset.num_classes:
        raise ValueError(
            f"got the value {values.max()}, expected 0 to {dataset.num_classes}: the background "
            f"and {', '.join(dataset.class_names)}"
        )
    return values == np.arange(1, dataset.num_classes + 1)[:, np.newaxis, np.newaxis]


def _is_mask(values: np.ndarray) -> np.ndarray:
    """Values of one class, 0 and one other -> bool [h, w]."""
    found = np.unique(values)
    if len(found[found > 0]) > 1:
        raise ValueError(
            f"got the values {', '.join(map(str, found[:5]))}{', ...' * (len(found) > 5)}; "
            "expected 0 and one other, or --mask_layout=values"
        )
    return values > 0


def _read_values(path: str) -> np.ndarray:
    """Reads grey values, or palette indices, [h, w]; a ValueError does not repeat the path."""
    from PIL import Image, UnidentifiedImageError

    with gfile.opened(path, "rb") as file:
        content = file.read()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            values = np.asarray(image).astype(np.int64)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise ValueError("not a whole, readable PNG") from None
    if values.ndim == 3:  # grey with transparency, or RGB with or without it
        if values.shape[2] > 2 and (values[..., :3] != values[..., :1]).any():
            raise ValueError("has colours, expected grey values or a palette")
        values = values[..., 0]
    return values
