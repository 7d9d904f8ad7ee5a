"""Sections of the report that show numbers: the folder, labels, masks and images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf import figures
from clouds_tf.dataset import Dataset
from clouds_tf.exploration.statistics import GRID, Statistics
from clouds_tf.exploration.summary import ON_BLACK, TINY, per_image
from clouds_tf.figures import charts
from clouds_tf.figures.page import Card, Section
from clouds_tf.messages import counted

_BRIGHTNESS = "mean outside the gap, 0 to 255"


@dataclasses.dataclass(frozen=True)
class Explored:
    """Contents of the report on a data folder.

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
        return self.statistics.rows[self.statistics.rows["area"] > 0]

    def by_class(self, values: pd.Series, classes: pd.Series | None = None) -> dict[str, pd.Series]:
        """Class name -> values of that class; without `classes`, values belong to the rows."""
        if classes is None:
            classes = self.statistics.rows["class"][values.index]
        return {name: values[classes == name] for name in self.dataset.class_names}


def _each(values: Mapping[str, Any], form: str) -> str:
    """Formats "Fish 3, Flower 4", with a format of the numbers such as "{:.0f}"."""
    return ", ".join(f"{name} {form.format(value)}" for name, value in values.items())


def _medians(values: Mapping[str, pd.Series], form: str = "{:,.0f}") -> str:
    return _each({name: some.median() for name, some in values.items() if len(some)}, form)


def _at(value: float, shares: Mapping[str, float]) -> str:
    """The classes with this value: "Fish" or, for ties, "Fish, Sugar"."""
    return ", ".join(name for name, share in shares.items() if share == value)


def folder(data: Explored) -> Section:
    """Shows the number of images and rows, their sizes, and the first rows."""
    summary, names, columns = data.summary, data.dataset.class_names, data.dataset.columns
    num_rows, num_masks = summary["num_rows"], summary["num_masks"]
    images = per_image(data.statistics.rows)
    numbers = {
        "training images": f"{summary['num_train_images']:,}",
        "test images": f"{summary['num_test_images']:,}",
        "images measured": f"{summary['num_images']:,}",
        "rows measured": f"{num_rows:,}",
        "masks (rows that are not empty)": f"{num_masks:,}",
        "image height, smallest to largest": _span(images["height"]),
        "image width, smallest to largest": _span(images["width"]),
        "problems": str(len(summary["problems"])),
    }
    head = []
    for filename, row in data.table.head(2).iterrows():
        for name in names:
            label, rle = data.dataset.label(str(filename), name), row[name]
            head.append([*label, f"{rle[:24]}…" if len(rle) > 24 else rle or "(empty)"])
    cards = [
        Card("The masks of the first images.", table=pd.DataFrame(head, columns=list(columns))),
        Card(
            f"{1 - num_masks / num_rows:.1%} of the rows are empty: this is the score of a "
            "submission without any mask.",
            "rows",
            partial(
                charts.bars,
                {"with a mask": num_masks, "empty": num_rows - num_masks},
                "Rows with and without a mask",
                "rows",
            ),
        ),
    ]
    return Section("The folder", "What was found and measured.", cards, numbers)


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def labels(data: Explored) -> Section:
    """Shows the frequency of each class, and of its combinations with others."""
    summary, names = data.summary, data.dataset.class_names
    counts, num_labels = summary["present"], summary["labels_per_image"]
    num_images = summary["num_images"]
    present = {name: count / num_images for name, count in counts.items()}
    total = max(sum(summary["pixels"].values()), 1e-12)
    pixels = {name: share / total for name, share in summary["pixels"].items()}
    most, least, largest = max(present.values()), min(present.values()), max(pixels.values())
    several = 1 - (num_labels[0] + num_labels[1]) / num_images
    combined = {
        tuple(text.split(" + ")) if text != "none" else (): count
        for text, count in summary["combinations"].items()
    }
    first, count = next(iter(summary["combinations"].items()))
    cards = [
        Card(
            f"Most frequent: {_at(most, present)}, in {most:.1%} of the images; rarest: "
            f"{_at(least, present)}, in {least:.1%}.",
            "masks_per_class",
            partial(
                charts.bars, counts, "Masks of each class", "masks", figures.class_colors(names)
            ),
        ),
        Card(
            f"Most mask pixels: {_at(largest, pixels)}, {largest:.1%} of all; in the most images: "
            f"{_at(most, present)}.",
            "class_balance",
            partial(charts.shares, present, pixels, ("Share of images", "Share of mask pixels")),
        ),
        Card(
            f"An image has {summary['num_masks'] / num_images:.2f} labels on average; "
            f"{several:.1%} have more than one; {num_labels[0] or 'none'} without a label.",
            "labels_per_image",
            partial(charts.bars, num_labels, "Labels per image", "images"),
        ),
        Card(
            f"{len(combined)} of {2 ** len(names)} combinations occur; the most frequent is "
            f"{first}, in {count / num_images:.1%} of the images.",
            "combinations",
            partial(charts.combinations, combined, names, "Combinations of classes"),
        ),
    ]
    if len(names) > 1:
        cards += _pairs_of_classes(data)
    return Section("Labels", "How often each class occurs, and with which others.", cards)


def _pairs_of_classes(data: Explored) -> list[Card]:
    """Co-occurrence and correlation of the classes."""
    names = data.dataset.class_names
    same = np.eye(len(names), dtype=bool)
    together = np.array(data.summary["cooccurrence"], float)
    given = np.where(same, np.nan, together / np.maximum(np.diag(together), 1)[:, np.newaxis])
    i, j = np.unravel_index(np.nanargmax(given), given.shape)
    highest = np.nanmax(given)
    title = "Share of the row's images with the column"
    correlation = np.array(data.summary["correlation"], float)
    strength = np.nan_to_num(np.where(same, 0, np.abs(correlation)))
    k, m = np.unravel_index(strength.argmax(), strength.shape)
    return [
        Card(
            f"Of the images with {names[i]}, {highest:.0%} also show {names[j]}, the most of all "
            "pairs.",
            "cooccurrence",
            partial(charts.matrix, given, names, title, "{:.0%}", (0, max(highest, 0.01))),
        ),
        Card(
            (
                f"Strongest correlation: {names[k]} with {names[m]}, {correlation[k, m]:.2f}."
                if strength.any()
                else "No class varies, so there is nothing to correlate."
            ),
            "correlation",
            partial(
                charts.matrix,
                correlation,
                names,
                "Correlation of presence",
                "{:.2f}",
                (-1, 1),
                True,
            ),
        ),
    ]


def _per_class(
    name: str,
    values: Mapping[str, pd.Series],
    title: str,
    unit: str,
    more: str = "",
    form: str = "{:,.0f}",
    log: bool = False,
) -> Card:
    """A card with the distribution of a quantity for each class, and its medians."""
    draw = partial(charts.distributions, values, title, unit, log=log)
    medians = f"Medians: {_medians(values, form)}."
    has_any = any(len(some) for some in values.values())
    return Card(f"{medians} {more}".strip() if has_any else "There are none.", name, draw)


def masks(data: Explored) -> Section:
    """Shows areas, positions, bounding boxes, components and encodings of the masks."""
    found, components = data.masks, data.statistics.components
    sizes = data.by_class(components["area"], components["class"])
    crumbs, tiny = data.summary["components"], counted(len(data.summary["tiny"]), "mask")
    single = int((found["components"] == 1).sum()) / max(len(found), 1)
    single_text = f"{single:.1%} have one; pixels that touch at a corner are connected."
    crumbs_text = (
        f"{crumbs['num_crumbs'] / max(crumbs['num'], 1):.1%} of {crumbs['num']:,} components have "
        f"fewer than {crumbs['crumb']} pixels; the largest component of each mask together hold "
        f"{crumbs['share_of_largest']:.1%} of all mask pixels."
    )
    runs = f"The median mask has {found['runs'].median():,.0f} runs."
    percent = data.by_class(100 * found["fraction"])
    area, form = f"Less than {TINY:.0%}: {tiny}.", "{:.1f}%"
    counts, characters = (data.by_class(found[key]) for key in ("components", "characters"))
    cards = [
        _per_class("areas", percent, "Area of the masks", "% of the image", area, form),
        *_places(data),
        _per_class(
            "components", counts, "Components of a mask", "components", single_text, log=True
        ),
        _per_class(
            "component_sizes", sizes, "Size of the components", "pixels", crumbs_text, log=True
        ),
        _per_class("rle_lengths", characters, "Length of the RLE", "characters", runs),
    ]
    text = "Measured on the runs of the encodings, at their own size."
    return Section("Masks", text if len(found) else "There are no masks.", cards)


def _places(data: Explored) -> list[Card]:
    """Average masks and bounding boxes."""
    found, names, size = data.masks, data.dataset.class_names, data.dataset.mask_size
    average = data.statistics.average_masks
    widths = data.by_class((found["right"] - found["left"]).astype(float))
    heights = data.by_class((found["bottom"] - found["top"]).astype(float))
    wide = {name: (some >= 0.95 * size[1]).mean() for name, some in widths.items() if len(some)}
    highest = _each(dict(zip(names, average.max(axis=(1, 2)))), "{:.0%}")
    lowest = _each(dict(zip(names, average.min(axis=(1, 2)))), "{:.0%}")
    return [
        Card(
            f"Highest share of images that cover a place: {highest}. Lowest: {lowest}.",
            "average_masks",
            partial(charts.average_masks, average, names, size, "Where each class is found"),
        ),
        Card(
            f"Median widths: {_medians(widths)}. Boxes that span at least 95% of the width: "
            f"{_each(wide, '{:.0%}') or 'none'}.",
            "bounding_boxes",
            partial(charts.box_sizes, widths, heights, size, "Bounding boxes of the masks"),
        ),
    ]


def images(data: Explored) -> Section:
    """Shows brightness, black gap and sun glint of the images."""
    found, summary = per_image(data.statistics.rows), data.summary["images"]
    bright, by_class = summary["brightness"], data.by_class(data.masks["brightness"])
    cards = [
        Card(
            f"Half of the images have a mean brightness between {bright['q25']:.0f} and "
            f"{bright['q75']:.0f} of 255; the darkest has {bright['min']:.0f}, the brightest "
            f"{bright['max']:.0f}.",
            "brightness",
            partial(charts.histogram, found["brightness"], "Brightness of the images", _BRIGHTNESS),
        ),
        _per_class("brightness_by_class", by_class, "Brightness, by class", _BRIGHTNESS),
    ]
    if "glint" in found:
        cards.append(_glint(found["glint"]))
    if data.dataset.gap_brightness is not None:
        cards += _gap(data, found["gap"])
    return Section("Images", "Measured on images of a reduced size.", cards)


def _glint(shares: pd.Series) -> Card:
    return Card(
        f"Glint on more than a tenth: {counted(int((shares > 0.1).sum()), 'image')}. "
        "This is an estimate: places where even the darkest spot between the clouds is grey "
        "and bright; haze and land can look the same.",
        "sun_glint",
        _share(shares, "Share of sun glint"),
    )


def _gap(data: Explored, shares: pd.Series) -> list[Card]:
    """The black gap, and the masks at it."""
    found = data.masks
    touching, on_black = (
        {name: float(some.mean()) if len(some) else 0.0 for name, some in data.by_class(x).items()}
        for x in (found["touches_gap"], found["on_black"] >= ON_BLACK)
    )
    titles = ("Masks that touch the gap", f"{ON_BLACK:.0%} or more in it")
    without = counted(int((shares < 0.005).sum()), "image")
    touched = data.summary["touches_gap"] / max(len(found), 1)
    return [
        Card(
            f"The gap takes {shares.median():.1%} of the median image and {shares.max():.1%} of "
            f"the worst; less than 0.5%: {without}.",
            "black_gap",
            _share(shares, "Share of the black gap between two orbits"),
        ),
        Card(
            f"{touched:.1%} of the masks touch the gap, to the precision of one of {GRID[0]} x "
            f"{GRID[1]} cells; with {ON_BLACK:.0%} or more of the area in it: "
            f"{counted(len(data.summary['on_black']), 'mask')}.",
            "masks_at_the_gap",
            partial(charts.shares, touching, on_black, titles),
        ),
    ]


def _share(shares: pd.Series, title: str) -> Callable[..., Any]:
    return partial(charts.histogram, shares, title, "share of the image", shares=True)
