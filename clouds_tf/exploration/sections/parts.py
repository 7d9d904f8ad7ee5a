"""What the sections are made from, and wording that they share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import figures
from clouds_tf.dataset import Dataset
from clouds_tf.exploration.statistics import Statistics

NUM_SHOWN = 6  # images in a grid


@dataclasses.dataclass(frozen=True)
class Explored:
    """Everything that is known of a data folder when the report is written.

    Attributes:
        dataset: its Dataset.
        table: RLE of the measured images; the index is the file name, the columns are the classes.
        statistics: measurements of images and masks.
        summary: content of statistics.json.
        load: file name -> image uint8 [h, w, 3] and masks uint8 [h, w, C] at the submission size.
    """

    dataset: Dataset
    table: pd.DataFrame
    statistics: Statistics
    summary: dict[str, Any]
    load: Callable[[str], tuple[np.ndarray, np.ndarray]]

    def __repr__(self) -> str:
        return f"Explored({self.statistics})"

    @property
    def masks(self) -> pd.DataFrame:
        """The rows whose masks are not empty."""
        rows = self.statistics.rows
        return rows[rows["area"] > 0]

    def per_class(self, column: str) -> dict[str, np.ndarray]:
        """Class name -> numbers of a column, of the masks that are not empty."""
        masks = self.masks
        return {
            name: masks[column][masks["class"] == name].to_numpy(float)
            for name in self.dataset.class_names
        }


def listed(names: Sequence[str]) -> str:
    """Joins names to "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def percents(values: Mapping[str, float]) -> str:
    """Writes shares as "Fish 50.0%, Flower 43.1%"."""
    return ", ".join(f"{name} {value:.1%}" for name, value in values.items())


def counted(number: int, noun: str) -> str:
    """Writes a count as "3 masks", "1 mask" or "No masks"."""
    return f"{number or 'No'} {noun}{'' if number == 1 else 's'}"


def medians(values: Mapping[str, np.ndarray], label: str) -> str:
    """Writes medians as "Fish 3, Flower 4", each with a format such as "{:.0f}"."""
    return ", ".join(
        f"{name} {label.format(np.median(some))}" for name, some in values.items() if len(some)
    )


def overlays(
    data: Explored,
    filenames: Iterable[str],
    titles: Sequence[str] | None = None,
    outlines: bool = True,
) -> Callable[..., Any]:
    """A function that draws images with the outlines of their masks, two in a row.

    Args:
        data: where to load the images.
        filenames: names of the images.
        titles: title of each image; None takes the file names.
        outlines: whether masks are drawn.
    """
    loaded = [data.load(filename) for filename in filenames]
    return functools.partial(
        figures.overlays,
        [image for image, _ in loaded],
        [masks * np.uint8(outlines) for _, masks in loaded],
        titles or list(filenames),
        data.dataset.class_names,
        num_columns=2,
    )
