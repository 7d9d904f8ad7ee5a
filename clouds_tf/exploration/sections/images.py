"""Brightness, the black gap, sun glint."""

import functools

import numpy as np

from clouds_tf import figures
from clouds_tf.exploration import findings, page
from clouds_tf.exploration.sections.parts import Picture, counted, medians, per_class, percents
from clouds_tf.exploration.statistics import GRID
from clouds_tf.schema import CLASS_NAMES


def images(data):
    """Brightness, gap and glint."""
    summary = data.summary
    images = findings.per_image(data.statistics.rows)
    rows = data.statistics.rows
    masks = rows[rows["area"] > 0]
    bright, gap, glint = (summary["images"][key] for key in ("brightness", "gap", "glint"))
    by_class = per_class(data, "brightness")
    touching = summary["touches_gap"] / max(summary["num_masks"], 1)
    by_touch = {
        name: (
            float(masks["touches_gap"][masks["class"] == name].mean())
            if (masks["class"] == name).any()
            else 0.0
        )
        for name in CLASS_NAMES
    }
    on_black = {
        name: (
            float((masks["on_black"][masks["class"] == name] >= findings.ON_BLACK).mean())
            if (masks["class"] == name).any()
            else 0.0
        )
        for name in CLASS_NAMES
    }
    cards = [
        Picture(
            "brightness",
            functools.partial(
                figures.histogram,
                images["brightness"].to_numpy(),
                np.linspace(0, 255, 52),
                "Brightness of the images",
                "mean of what is not gap, 0 to 255",
            ),
            f"A histogram of image brightness, from {bright['min']:.0f} to {bright['max']:.0f}.",
            f"Half of the images have a mean brightness between {bright['q25']:.0f} and "
            f"{bright['q75']:.0f} of 255; the darkest has {bright['min']:.0f}, the brightest "
            f"{bright['max']:.0f}.",
        ),
        Picture(
            "brightness_by_class",
            functools.partial(
                figures.distributions,
                by_class,
                np.linspace(0, 255, 52),
                "Brightness of the images with each class",
                "mean of what is not gap, 0 to 255",
            ),
            "Histograms of image brightness for each class. Medians: "
            + medians(by_class, "{:.0f}")
            + ".",
            f"Medians: {medians(by_class, '{:.0f}')}.",
        ),
        Picture(
            "black_gap",
            _share_histogram(images["gap"], "Share of the black gap between two orbits"),
            f"A histogram of the share of black pixels, with a median of {gap['median']:.1%}.",
            f"The gap takes {gap['median']:.1%} of the median image and {gap['max']:.1%} of the "
            f"worst; {(images['gap'] < 0.005).mean():.1%} of the images have next to none.",
        ),
        Picture(
            "sun_glint",
            _share_histogram(images["glint"], "Share of sun glint"),
            f"A histogram of the share of sun glint, with a median of {glint['median']:.1%}.",
            f"{(images['glint'] > 0.1).mean():.1%} of the images have glint on more than a tenth. "
            "It is an estimate: the places where even the darkest spot between the clouds is grey "
            "and bright; haze and land can pass for it.",
        ),
        Picture(
            "masks_at_the_gap",
            functools.partial(
                figures.shares,
                by_touch,
                on_black,
                ("Masks that touch the gap", f"{findings.ON_BLACK:.0%} or more in it"),
            ),
            f"Two rows of bars. Masks that touch the gap: {percents(by_touch)}. "
            f"With {findings.ON_BLACK:.0%} or more in it: {percents(on_black)}.",
            f"{touching:.1%} of the masks reach the gap, as near as one of {GRID[0]} x {GRID[1]} "
            f"cells tells; {counted(len(summary['on_black']), 'mask').lower()} in it with at least "
            f"{findings.ON_BLACK:.0%} of their area.",
        ),
    ]
    return page.paragraph("Looked at in a reduced size."), cards


def _share_histogram(shares, title):
    """Draws how much of each image something takes; shares, a Series in [0, 1]."""
    return functools.partial(
        figures.histogram,
        shares.to_numpy(),
        np.linspace(0, max(shares.max(), 0.01), 41),
        title,
        "share of the image",
        percent=True,
    )
