"""Areas, places, boxes, components and encodings."""

import functools

import numpy as np

from clouds_tf import figures
from clouds_tf.exploration import findings, page
from clouds_tf.exploration.sections.parts import Picture, counted, medians, per_class
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES


def masks(data):
    """Areas, places, boxes, components and encodings."""
    summary, components = data.summary, data.statistics.components
    fractions = {name: 100 * some for name, some in per_class(data, "fraction").items()}
    count = per_class(data, "components")
    sizes = {
        name: components["area"][components["class"] == name].to_numpy(float)
        for name in CLASS_NAMES
    }
    characters = per_class(data, "characters")
    runs = per_class(data, "runs")
    average = data.statistics.average_masks
    crumbs = summary["components"]
    num_single = sum(int((some == 1).sum()) for some in count.values())
    boxes = {key: per_class(data, key) for key in ("top", "left", "bottom", "right")}
    widths = {name: boxes["right"][name] - boxes["left"][name] for name in CLASS_NAMES}
    heights = {name: boxes["bottom"][name] - boxes["top"][name] for name in CLASS_NAMES}
    whole = [
        (widths[name] >= 0.95 * data.mask_size[1]).mean() if len(widths[name]) else 0
        for name in CLASS_NAMES
    ]
    widest = int(np.argmax(whole))
    peak = average.reshape(NUM_CLASSES, -1)
    num_masks = max(summary["num_masks"], 1)
    cards = [
        Picture(
            "areas",
            functools.partial(
                figures.distributions,
                fractions,
                np.linspace(0, 100, 41),
                "How much of the image a mask covers",
                "% of the image",
            ),
            "Histograms of mask area for each class, and their shares in one. Medians: "
            + medians(fractions, "{:.1f} %")
            + ".",
            f"Medians: {medians(fractions, '{:.1f} %')} of the image; "
            f"{counted(len(summary['tiny']), 'mask').lower()} of less than {findings.TINY:.0%}.",
        ),
        Picture(
            "average_masks",
            functools.partial(
                figures.average_masks, average, data.mask_size, "Where each class is found"
            ),
            "A map for each class of the share of images in which a place is covered.",
            "Highest and lowest share of images that cover a place: "
            + ", ".join(
                f"{name} {p.max():.0%} and {p.min():.0%}" for name, p in zip(CLASS_NAMES, peak)
            )
            + ".",
        ),
        Picture(
            "bounding_boxes",
            functools.partial(
                figures.box_sizes, widths, heights, data.mask_size, "Bounding boxes of the masks"
            ),
            "A scatter plot of box width and height for each class.",
            f"{whole[widest]:.0%} of the boxes of {CLASS_NAMES[widest]} span at least 95 % of the "
            f"width, the most of all classes. Median width: {medians(widths, '{:,.0f}')} pixels.",
        ),
        Picture(
            "components",
            functools.partial(
                figures.distributions,
                count,
                _log_bins(count, 24),
                "Connected components of a mask",
                "components",
                log=True,
            ),
            "Histograms of the components of a mask for each class, and their shares in one. "
            f"Medians: {medians(count, '{:.0f}')}.",
            f"{num_single / num_masks:.1%} of the masks are of one piece, where pixels that "
            f"touch at a corner are one. Median pieces: {medians(count, '{:.0f}')}.",
        ),
        Picture(
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
            f"have fewer than {crumbs['crumb']} pixels, and the largest of each mask together hold "
            f"{crumbs['share_of_largest']:.1%} of all mask pixels.",
        ),
        Picture(
            "rle_lengths",
            functools.partial(
                figures.distributions,
                {name: some / 1000 for name, some in characters.items()},
                (
                    np.linspace(
                        0, max(max(c.max() for c in characters.values() if len(c)), 1) / 1000, 41
                    )
                    if summary["num_masks"]
                    else np.linspace(0, 1, 41)
                ),
                "How long the run-length encodings are",
                "thousand characters",
            ),
            "Histograms of the length of the encodings for each class. Medians: "
            + medians(characters, "{:,.0f}")
            + " characters.",
            (
                f"The median mask has {np.median(np.concatenate(list(runs.values()))):,.0f} runs; "
                f"the longest encoding {max(c.max() for c in characters.values() if len(c)):,.0f} "
                "characters."
                if summary["num_masks"]
                else "There are no masks."
            ),
        ),
    ]
    return page.paragraph("Counted on the runs of the encodings, at their own size."), cards


def _log_bins(values, count):
    """Edges between whole numbers from 1 on, about even on a logarithmic axis."""
    most = max((some.max() for some in values.values() if len(some)), default=10)
    return np.unique(np.floor(np.geomspace(1, max(most, 2) + 1, count + 1))) - 0.5
