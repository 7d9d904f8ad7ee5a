"""Section "Labels": how often each class occurs, and with which others."""

from __future__ import annotations

import functools

import numpy as np

from clouds_tf import figures
from clouds_tf.exploration.page import Card, Picture, Section
from clouds_tf.exploration.sections.parts import Explored, percents


def labels(data: Explored) -> Section:
    """Shows how often each class occurs, and with which others."""
    cards: list[Card] = [
        _masks_per_class(data),
        _class_balance(data),
        _labels_per_image(data),
        _combinations(data),
    ]
    if data.dataset.num_classes > 1:
        cards += [_cooccurrence(data), _correlation(data)]
    return Section("Labels", cards, "How often each class occurs, and with which others.")


def _present(data: Explored) -> dict[str, float]:
    """Class name -> share of images with the class."""
    counts = data.summary["present"]
    return {name: count / data.summary["num_images"] for name, count in counts.items()}


def _those_at(value: float, shares: dict[str, float]) -> str:
    """The classes with this value, as "Fish" or, where several tie, "Fish, Sugar"."""
    return ", ".join(name for name, share in shares.items() if share == value)


def _masks_per_class(data: Explored) -> Picture:
    present, counts = _present(data), data.summary["present"]
    most, least = max(present.values()), min(present.values())
    colors = figures.class_colors(counts)
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    return Picture(
        "masks_per_class",
        functools.partial(figures.bars, counts, "Masks of each class", "masks", colors),
        f"Bars of the number of masks: {listed}.",
        f"Most frequent: {_those_at(most, present)}, in {most:.1%} of the images; rarest: "
        f"{_those_at(least, present)}, in {least:.1%}.",
    )


def _class_balance(data: Explored) -> Picture:
    present = _present(data)
    total = max(sum(data.summary["pixels"].values()), 1e-12)
    pixels = {name: share / total for name, share in data.summary["pixels"].items()}
    most = max(pixels.values())
    return Picture(
        "class_balance",
        functools.partial(
            figures.shares, present, pixels, ("Share of images", "Share of mask pixels")
        ),
        f"Two rows of bars. Share of images: {percents(present)}. "
        f"Share of mask pixels: {percents(pixels)}.",
        f"Most mask pixels: {_those_at(most, pixels)}, {most:.1%} of all; in the most images: "
        f"{_those_at(max(present.values()), present)}.",
    )


def _labels_per_image(data: Explored) -> Picture:
    counts, num_images = data.summary["labels_per_image"], data.summary["num_images"]
    mean = data.summary["num_masks"] / num_images
    several = 1 - (counts[0] + counts[1]) / num_images
    without = f"{counts[0]} have none" if counts[0] else "none is without a label"
    listed = ", ".join(f"{number} labels {count}" for number, count in counts.items())
    return Picture(
        "labels_per_image",
        functools.partial(figures.bars, counts, "Labels per image", "images"),
        f"Bars of images: {listed}.",
        f"An image has {mean:.2f} labels on average; {several:.1%} have more than one, and "
        f"{without}.",
    )


def _combinations(data: Explored) -> Picture:
    combined, num_images = data.summary["combinations"], data.summary["num_images"]
    (first, count), *_ = combined.items()
    drawn = {
        () if name == "none" else tuple(name.split(" + ")): number
        for name, number in combined.items()
    }
    return Picture(
        "combinations",
        functools.partial(
            figures.combinations, drawn, data.dataset.class_names, "Combinations of classes"
        ),
        f"Bars above dots: {len(combined)} combinations, from {first} ({count} images).",
        f"{len(combined)} of {2**data.dataset.num_classes} combinations occur; the most frequent "
        f"is {first}, in {count / num_images:.1%} of the images.",
    )


def _cooccurrence(data: Explored) -> Picture:
    names = data.dataset.class_names
    together = np.array(data.summary["cooccurrence"], float)
    given = _off_diagonal(together / np.maximum(np.diag(together), 1)[:, np.newaxis])
    i, j = np.unravel_index(np.nanargmax(given), given.shape)
    return Picture(
        "cooccurrence",
        functools.partial(
            figures.matrix,
            given,
            names,
            "Share of the row's images with the column",
            "{:.0%}",
            (0, max(np.nanmax(given), 0.01)),
        ),
        "A matrix of classes by classes: share of the images with the class of the row that also "
        "show the class of the column.",
        f"Of the images with {names[i]}, {given[i, j]:.0%} also show {names[j]}, the most of all "
        "pairs.",
    )


def _correlation(data: Explored) -> Picture:
    names = data.dataset.class_names
    correlation = np.array(data.summary["correlation"], float)
    strength = np.abs(_off_diagonal(correlation))
    if np.isnan(strength).all():
        sentence = "No class varies, so that there is nothing to correlate."
    else:
        i, j = np.unravel_index(np.nanargmax(strength), strength.shape)
        sign = "negative" if correlation[i, j] < 0 else "positive"
        sentence = (
            f"The strongest correlation is the {sign} one of {names[i]} and {names[j]}, "
            f"{correlation[i, j]:.2f}."
        )
    return Picture(
        "correlation",
        functools.partial(
            figures.matrix, correlation, names, "Correlation of presence", "{:.2f}", (-1, 1), True
        ),
        "A matrix of the correlations between the presence of classes.",
        sentence,
    )


def _off_diagonal(values: np.ndarray) -> np.ndarray:
    return np.where(np.eye(len(values), dtype=bool), np.nan, values)
