"""Which classes there are, and together with which."""

import functools

import numpy as np

from clouds_tf import figures
from clouds_tf.exploration import page
from clouds_tf.exploration.sections.parts import Picture, percents
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES


def labels(data):
    """Which classes there are, and together with which."""
    summary = data.summary
    num_images = summary["num_images"]
    present = {name: count / num_images for name, count in summary["present"].items()}
    total = max(sum(summary["pixels"].values()), 1e-12)
    pixels = {name: share / total for name, share in summary["pixels"].items()}
    most, least = max(present, key=present.get), min(present, key=present.get)
    largest = max(pixels, key=pixels.get)
    counts = summary["labels_per_image"]
    mean_labels = summary["num_masks"] / num_images
    combined = summary["combinations"]
    (first, first_count), *_ = combined.items()
    together = np.array(summary["cooccurrence"], float)
    given = together / np.maximum(np.diag(together), 1)[:, np.newaxis]
    correlation = np.array(summary["correlation"], float)
    cards = [
        Picture(
            "masks_per_class",
            functools.partial(figures.bars, summary["present"], "Masks of each class", "masks"),
            "Bars of the number of masks: "
            + ", ".join(f"{name} {count}" for name, count in summary["present"].items())
            + ".",
            f"{most} is the most frequent class, in {present[most]:.1%} of the images, and {least} "
            f"the rarest, in {present[least]:.1%}.",
        ),
        Picture(
            "class_balance",
            functools.partial(
                figures.shares, present, pixels, ("Share of images", "Share of mask pixels")
            ),
            f"Two rows of bars. Share of images: {percents(present)}. "
            f"Share of mask pixels: {percents(pixels)}.",
            f"By pixel {largest} weighs most, with {pixels[largest]:.1%} of all mask pixels; by "
            f"presence {most} does.",
        ),
        Picture(
            "labels_per_image",
            functools.partial(figures.bars, counts, "Labels per image", "images"),
            "Bars of images: " + ", ".join(f"{n} labels {c}" for n, c in counts.items()) + ".",
            f"An image has {mean_labels:.2f} labels on average; "
            f"{1 - (counts[0] + counts[1]) / num_images:.1%} have more than one"
            + (f", and {counts[0]} have none." if counts[0] else ", and none is without a label."),
        ),
        Picture(
            "combinations",
            functools.partial(
                figures.combinations,
                {
                    () if name == "none" else tuple(name.split(" + ")): count
                    for name, count in combined.items()
                },
                "Which classes come together",
            ),
            f"Bars above dots: {len(combined)} combinations, from {first} ({first_count} images).",
            f"{len(combined)} of 16 combinations occur; the most frequent is {first}, in "
            f"{first_count / num_images:.1%} of the images.",
        ),
        Picture(
            "cooccurrence",
            functools.partial(
                figures.matrix,
                _off_diagonal(given),
                "Where the row is, how often is the column?",
                "{:.0%}",
                (0, max(np.nanmax(_off_diagonal(given)), 0.01)),
            ),
            "A matrix of classes by classes: the share of the row's images that show the column.",
            _strongest_pair(given),
        ),
        Picture(
            "correlation",
            functools.partial(
                figures.matrix, correlation, "Correlation of presence", "{:.2f}", (-1, 1), True
            ),
            "A matrix of the correlations between the classes' presence.",
            _strongest_correlation(correlation),
        ),
    ]
    return page.paragraph("How often each class is there, and with which others."), cards


def _off_diagonal(values):
    return np.where(np.eye(NUM_CLASSES, dtype=bool), np.nan, values)


def _strongest_pair(given):
    i, j = np.unravel_index(np.nanargmax(_off_diagonal(given)), given.shape)
    return (
        f"Of the images with {CLASS_NAMES[i]}, {given[i, j]:.0%} show {CLASS_NAMES[j]} too, the "
        "most of all pairs."
    )


def _strongest_correlation(correlation):
    off = np.abs(_off_diagonal(correlation))
    if np.isnan(off).all():
        return "No class varies, so that there is nothing to correlate."
    i, j = np.unravel_index(np.nanargmax(off), off.shape)
    how = "avoid" if correlation[i, j] < 0 else "attract"
    return (
        f"{CLASS_NAMES[i]} and {CLASS_NAMES[j]} {how} each other most, with a correlation of "
        f"{correlation[i, j]:.2f}."
    )
