"""Section "Masks": areas, positions, bounding boxes, components and encodings."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from clouds_tf import figures
from clouds_tf.exploration import findings
from clouds_tf.exploration.page import Picture, Section
from clouds_tf.exploration.sections.parts import Explored, counted, medians


def masks(data: Explored) -> Section:
    """Shows areas, positions, bounding boxes, components and encodings of the masks."""
    cards = [
        _areas(data),
        _average_masks(data),
        _bounding_boxes(data),
        _components(data),
        _component_sizes(data),
        _rle_lengths(data),
    ]
    return Section("Masks", cards, "Measured on the runs of the encodings, at their own size.")


def _areas(data: Explored) -> Picture:
    percent = {name: 100 * some for name, some in data.per_class("fraction").items()}
    found = medians(percent, "{:.1f} %")
    tiny = counted(len(data.summary["tiny"]), "mask")
    return Picture(
        "areas",
        functools.partial(
            figures.distributions,
            percent,
            np.linspace(0, 100, 41),
            "Share of the image that a mask covers",
            "% of the image",
        ),
        "Histograms of mask area for each class, and the shares of all classes together. "
        f"Medians: {found}.",
        f"Medians: {found} of the image; {tiny.lower()} of less than {findings.TINY:.0%}.",
    )


def _average_masks(data: Explored) -> Picture:
    average, dataset = data.statistics.average_masks, data.dataset
    spans = ", ".join(
        f"{name} {mask.max():.0%} and {mask.min():.0%}"
        for name, mask in zip(dataset.class_names, average)
    )
    return Picture(
        "average_masks",
        functools.partial(
            figures.average_masks,
            average,
            dataset.class_names,
            dataset.mask_size,
            "Where each class is found",
        ),
        "A map for each class of the share of images in which a place is covered.",
        f"Highest and lowest share of images that cover a place: {spans}.",
    )


def _bounding_boxes(data: Explored) -> Picture:
    top, left, bottom, right = (data.per_class(key) for key in ("top", "left", "bottom", "right"))
    names, size = data.dataset.class_names, data.dataset.mask_size
    widths = {name: right[name] - left[name] for name in names}
    heights = {name: bottom[name] - top[name] for name in names}
    wide = {
        name: (some >= 0.95 * size[1]).mean() if len(some) else 0.0 for name, some in widths.items()
    }
    widest = max(wide, key=wide.__getitem__)
    span = "No boxes span"
    if wide[widest]:
        span = f"{wide[widest]:.0%} of the boxes of {widest}, the most of all classes, span"
    return Picture(
        "bounding_boxes",
        functools.partial(
            figures.box_sizes, widths, heights, size, "Bounding boxes of the masks"
        ),
        "A scatter plot of box width and height for each class.",
        f"{span} at least 95% of the width. Median width: {medians(widths, '{:,.0f}')} pixels.",
    )


def _components(data: Explored) -> Picture:
    counts = data.per_class("components")
    found = medians(counts, "{:.0f}")
    num_single = sum(int((some == 1).sum()) for some in counts.values())
    single = num_single / max(data.summary["num_masks"], 1)
    return Picture(
        "components",
        functools.partial(
            figures.distributions,
            counts,
            _log_bins(counts, 24),
            "Connected components of a mask",
            "components",
            log=True,
        ),
        "Histograms of the number of components of a mask for each class, and the shares of all "
        f"classes together. Medians: {found}.",
        f"{single:.1%} of the masks have one component; pixels that touch at a corner are "
        f"connected. Median number: {found}.",
    )


def _component_sizes(data: Explored) -> Picture:
    components, crumbs = data.statistics.components, data.summary["components"]
    sizes = {
        name: components["area"][components["class"] == name].to_numpy(float)
        for name in data.dataset.class_names
    }
    return Picture(
        "component_sizes",
        functools.partial(
            figures.distributions,
            sizes,
            _log_bins(sizes, 32),
            "Size of the components",
            "pixels",
            log=True,
        ),
        "Histograms of component size for each class, on a logarithmic axis.",
        f"{crumbs['num_crumbs'] / max(crumbs['num'], 1):.1%} of {crumbs['num']:,} components "
        f"have fewer than {crumbs['crumb']} pixels; the largest component of each mask together "
        f"hold {crumbs['share_of_largest']:.1%} of all mask pixels.",
    )


def _rle_lengths(data: Explored) -> Picture:
    characters = data.per_class("characters")
    runs = np.concatenate(list(data.per_class("runs").values()))
    longest = max((some.max() for some in characters.values() if len(some)), default=1000)
    sentence = "There are no masks."
    if len(runs):
        sentence = (
            f"The median mask has {np.median(runs):,.0f} runs; the longest encoding has "
            f"{longest:,.0f} characters."
        )
    return Picture(
        "rle_lengths",
        functools.partial(
            figures.distributions,
            {name: some / 1000 for name, some in characters.items()},
            np.linspace(0, longest / 1000, 41),
            "Length of the run-length encodings",
            "thousand characters",
        ),
        "Histograms of the length of the encodings for each class. Medians: "
        f"{medians(characters, '{:,.0f}')} characters.",
        sentence,
    )


def _log_bins(values: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Edges between whole numbers from 1 on, roughly even on a logarithmic axis."""
    most = max((some.max() for some in values.values() if len(some)), default=10)
    return np.unique(np.floor(np.geomspace(1, max(most, 2) + 1, count + 1))) - 0.5
