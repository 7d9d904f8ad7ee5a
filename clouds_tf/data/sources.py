"""Reads the annotations of a data folder from a CSV, PNG masks or COCO JSON."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Optional

import pandas as pd
import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.data import coco, mask_files
from clouds_tf.data.annotations import check_csv, check_mask_size
from clouds_tf.data.source_images import TIFF_ENDINGS, how_to_convert
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault
from clouds_tf.settings import CheckedSettings, setting

Size = tuple[int, int]


@dataclasses.dataclass(frozen=True, repr=False)
class Source(CheckedSettings):
    """Location of the annotations of a data folder; its fields are flags of the tools."""

    masks_dir: Optional[str] = setting(
        None, "Folder of PNG masks, to use instead of the CSV of annotations."
    )
    mask_layout: str = setting(
        "values",
        "Layout of --masks_dir. values: one PNG for each image, a.png for a.jpg, where 0 is the "
        "background and 1, 2, ... are the classes in their order. classes: one PNG for each image "
        "and class, CLASS/a.png or a.jpg_CLASS.png, where every pixel above 0 belongs to the mask.",
        choices=mask_files.LAYOUTS,
    )
    coco: Optional[str] = setting(
        None, "COCO JSON, to use instead of the CSV of annotations; it also describes the data set."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.masks_dir and self.coco:
            raise ValueError(f"coco: got {self.coco} and masks_dir, expected one of the two")


@dataclasses.dataclass(frozen=True)
class Annotations:
    """Masks of the images of a data folder.

    Attributes:
        table: one row per image, with filename and the plain RLE of each class in the order of the
            data set; "" where the class is absent.
        sizes: (height, width) of the masks of images, by file name; images without an entry have
            masks of the data set's mask_size.
        named: names of all annotated images, including faulty ones.
        faults: faults of the annotations; their images are not in the table.
        unlisted: faults of images without annotations.
        origin: the file or folder of the annotations.
    """

    table: pd.DataFrame
    sizes: Mapping[str, Size]
    named: set[str]
    faults: list[Fault]
    unlisted: list[Fault]
    origin: str

    def at_mask_size(self, dataset: Dataset) -> pd.DataFrame:
        """The table with all masks at the data set's mask_size, by nearest neighbour."""
        table, size = self.table.copy(), dataset.mask_size
        found = table["filename"].map(self.sizes)
        for other in sorted(set(found.dropna()) - {size}):
            rows = table.index[[some == other for some in found]]
            cells = tf.constant(table.loc[rows, list(dataset.class_names)].to_numpy().tolist())
            resized = rle.resize(cells, other, size, dataset.rle_order).numpy()
            table.loc[rows, list(dataset.class_names)] = [
                [text.decode() for text in texts] for texts in resized
            ]
        return table


def read_annotations(
    data_dir: str, dataset: Dataset, source: Source = Source(), exclude: Collection[str] = ()
) -> Annotations:
    """Reads the annotations of a data folder.

    With missing_rows="absent", images without annotations get blank masks.

    Args:
        data_dir: folder with the images, and the CSV unless `source` names another one.
        dataset: the data set that the folder holds.
        source: location of the annotations.
        exclude: names of images to leave out.

    Raises:
        FileNotFoundError, ValueError: there are no annotations, they have another format, or the
            runs of a CSV belong to masks of another size.
    """
    images_dir = os.path.join(data_dir, dataset.train_images)
    images = [
        name
        for name in files.visible_names(images_dir)
        if name.lower().endswith((*dataset.image_endings, *TIFF_ENDINGS))
    ]
    sizes: Mapping[str, Size] = {}
    origin, noun = source.coco or source.masks_dir, "masks"
    if origin:
        if source.coco:
            found, faults = coco.read(origin, dataset)
        else:
            found, faults = mask_files.read(origin, source.mask_layout, images, dataset)
        names = [name for name in found if name not in exclude]
        rows = [[name, *found[name].rles] for name in names if not found[name].faults]
        table = pd.DataFrame(rows, columns=["filename", *dataset.class_names], dtype=object)
        named, sizes = set(names), {name: found[name].size for name in names}
    else:
        origin, noun = os.path.join(data_dir, dataset.train_csv), "rows"
        table, named, faults = check_csv(origin, dataset, exclude)
        if not faults:
            check_mask_size(table, dataset, origin, "--mask_size")
    others = [name for name in images if name not in named and name not in exclude]
    tiffs = [name for name in others if name.lower().endswith(TIFF_ENDINGS)]
    if dataset.missing_rows == "absent":
        blank = pd.DataFrame({"filename": [name for name in others if name not in tiffs]})
        table = pd.concat([table, blank.reindex(columns=table.columns, fill_value="")])
        others = tiffs
    unlisted = []
    for name in others:
        path = os.path.join(images_dir, name)
        reason = (
            how_to_convert(path, dataset.channels)
            if name in tiffs
            else f"no {noun} for it in {origin}"
        )
        unlisted.append(Fault(path, 0, reason))
    table = table.reset_index(drop=True)
    return Annotations(table, sizes, named, faults, unlisted, origin)
