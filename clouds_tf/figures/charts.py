"""Charts of labels, masks and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clouds_tf.figures.style import (
    NEUTRAL,
    WIDTH,
    Axes,
    Figure,
    class_colors,
    ink,
    new_figure,
    panels,
    percent,
    styled,
)


@styled
def bars(
    counts: Mapping[Any, int], title: str, xlabel: str, colors: Sequence[str] | None = None
) -> Figure:
    """Draws one bar per name, with its count and its share of the total.

    Args:
        counts: name -> count.
        xlabel: label of the counts.
        colors: colour of each bar, such as those of `class_colors`; None draws all in grey.
    """
    figure = new_figure(WIDTH, 1.1 + 0.42 * len(counts))
    axes = figure.subplots()
    values = np.array(list(counts.values()))
    labels = [f" {value:,}  ({value / max(values.sum(), 1):.1%})" for value in values]
    _draw_bars(axes, counts, labels, colors)
    axes.set(title=title, xlabel=xlabel)
    return figure


def _draw_bars(
    axes: Axes, values: Mapping[Any, float], labels: Sequence[str], colors: Sequence[str] | None
) -> None:
    """Draws bars from the left, the first on top, each followed by its label."""
    names = [str(name) for name in values]
    drawn = axes.barh(names, list(values.values()), color=colors or NEUTRAL)
    axes.bar_label(drawn, labels, fontsize=9.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.32 * max(values.values()) or 1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


@styled
def shares(left: Mapping[str, float], right: Mapping[str, float], titles: Sequence[str]) -> Figure:
    """Draws two shares per class side by side.

    Args:
        left: class name -> share, 0 to 1; all classes in their order.
        right: class name -> another share.
        titles: title of each side.
    """
    figure = new_figure(WIDTH, 1.0 + 0.4 * len(left))
    for axes, values, title in zip(figure.subplots(1, 2, sharey=True), (left, right), titles):
        labels = [f" {value:.1%}" for value in values.values()]
        _draw_bars(axes, values, labels, class_colors(values))
        axes.set_title(title)
        axes.xaxis.set_major_formatter(percent)
    axes.invert_yaxis()  # the shared axis was inverted twice
    return figure


@styled
def combinations(
    counts: Mapping[tuple[str, ...], int], class_names: Sequence[str], title: str
) -> Figure:
    """Draws the count of each combination of classes: bars above a grid of dots.

    Args:
        counts: combination, a tuple of class names -> count; most frequent first.
    """
    num_classes = len(class_names)
    figure = new_figure(WIDTH, 2.7 + 0.37 * num_classes)
    ratios = (2.1, 0.3 * num_classes)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    places = np.arange(len(counts))
    drawn = above.bar(places, list(counts.values()), color=NEUTRAL, width=0.7)
    above.bar_label(drawn, fontsize=8.5, padding=1)
    above.set(title=title, ylabel="images")
    above.tick_params(axis="x", length=0)
    above.grid(axis="y")

    for i, (name, color) in enumerate(zip(class_names, class_colors(class_names))):
        member = np.array([name in combination for combination in counts], bool)
        below.scatter(places, np.full(len(places), i), s=46, color=NEUTRAL, alpha=0.25, lw=0)
        below.scatter(places[member], np.full(member.sum(), i), s=60, color=color, lw=0)
    for place, combination in zip(places, counts):
        rows = [class_names.index(name) for name in combination]
        if rows:
            below.plot([place] * 2, [min(rows), max(rows)], color=NEUTRAL, lw=1.6, zorder=0.5)
    below.set_yticks(range(num_classes), class_names)
    below.set_ylim(num_classes - 0.5, -0.5)
    below.tick_params(length=0, labelbottom=False)
    below.spines[:].set_visible(False)
    return figure


@styled
def matrix(
    values: np.ndarray,
    class_names: Sequence[str],
    title: str,
    label: str,
    limits: tuple[float, float],
    diverging: bool = False,
) -> Figure:
    """Draws a matrix of classes by classes with its numbers.

    Args:
        values: float [C, C]; NaN is left blank.
        label: format of a number, such as "{:.0%}".
        limits: (low, high) ends of the colour scale.
        diverging: whether the middle of the scale is neutral.
    """
    figure = new_figure(WIDTH, 4)
    axes = figure.subplots()
    axes.imshow(values, cmap="PuOr" if diverging else "cividis", vmin=limits[0], vmax=limits[1])
    low, high = limits
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        place = (value - low) / (high - low)
        is_dark = abs(place - 0.5) > 0.36 if diverging else place < 0.5
        color = "white" if is_dark else "black"
        axes.text(j, i, label.format(value), ha="center", va="center", color=color)
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


@styled
def distributions(
    values: Mapping[str, np.ndarray], title: str, xlabel: str, log: bool = False
) -> Figure:
    """Draws a histogram for each class, and above them the shares of all classes together.

    Args:
        values: class name -> numbers [N] >= 0; all classes in their order.
        xlabel: measured quantity, with the unit.
        log: whether the x axis is logarithmic; then numbers are integers, with bin edges between.
    """
    most = max((np.max(some) for some in values.values() if len(some)), default=1)
    bins = np.linspace(0, most or 1, 41)
    if log:
        bins = np.unique(np.floor(np.geomspace(1, max(most, 2) + 1, 33))) - 0.5
    figure = new_figure(WIDTH, 2.4 + 0.95 * len(values))
    ratios = (2, *[1] * len(values))
    top, *rest = figure.subplots(1 + len(values), 1, sharex=True, height_ratios=ratios)
    highest = 1
    for axes, (name, some), color in zip(rest, values.items(), class_colors(values)):
        counts, _ = np.histogram(some, bins)
        highest = max(highest, counts.max())
        top.stairs(counts / max(len(some), 1), bins, color=color, lw=2, label=name)
        axes.stairs(counts, bins, color=color, fill=True)
        _mark_median(axes, some)
        axes.text(0.995, 0.97, name, transform=axes.transAxes, ha="right", va="top", weight="bold")
    for axes in rest:
        axes.set_ylim(0, 1.08 * highest)
        axes.grid(axis="y")
    top.yaxis.set_major_formatter(percent)
    top.set_title(title)
    top.set_ylabel("share of the class")
    top.grid(axis="y")
    top.legend(ncols=2)
    rest[(len(rest) - 1) // 2].set_ylabel("number")
    rest[-1].set_xlabel(f"{xlabel} (dashed: median)")
    if log:
        top.set_xscale("log")
    return figure


def _mark_median(axes: Axes, values: np.ndarray) -> None:
    if len(values):
        axes.axvline(np.median(values), color=ink(), lw=1.2, ls=(0, (4, 3)))


@styled
def histogram(values: np.ndarray, title: str, xlabel: str, shares: bool = False) -> Figure:
    """Draws a histogram of one number per image.

    The last bar includes the highest 1 %, which would otherwise stretch the axis.

    Args:
        values: numbers [N] >= 0.
        xlabel: measured quantity, with the unit.
        shares: whether the numbers are shares, 0 to 1.
    """
    figure = new_figure(WIDTH, 2.9)
    axes = figure.subplots()
    most = max(np.quantile(values, 0.99), 0.01)
    bins = np.linspace(0, most, 41)
    axes.stairs(np.histogram(np.minimum(values, most), bins)[0], bins, color=NEUTRAL, fill=True)
    _mark_median(axes, values)
    if np.max(values) > most:
        xlabel += f"; last bar: {percent(most) if shares else format(most, '.3g')} or more"
    axes.set(title=title, xlabel=f"{xlabel} (dashed: median)", ylabel="images")
    axes.grid(axis="y")
    if shares:
        axes.xaxis.set_major_formatter(percent)
    return figure


@styled
def average_masks(
    masks: np.ndarray, class_names: Sequence[str], size: tuple[int, int], title: str
) -> Figure:
    """Draws the average mask of each class, on a common scale.

    Args:
        masks: float [C, h, w], share of images in which a cell is covered, 0 to 1.
        size: (height, width) of the axes in pixels.
    """
    figure, found, grid = panels(class_names, 1.8, title)
    for axes, mask in zip(found, masks):
        extent = (0, size[1], size[0], 0)
        shown = axes.imshow(
            mask, cmap="cividis", vmin=0, vmax=max(masks.max(), 1e-9), extent=extent
        )
        axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=grid, format=percent, shrink=0.8, label="of all images")
    bar.outline.set(visible=False)
    return figure


@styled
def box_sizes(
    widths: Mapping[str, np.ndarray],
    heights: Mapping[str, np.ndarray],
    size: tuple[int, int],
    title: str,
) -> Figure:
    """Draws width and height of every bounding box, one scatter plot per class.

    Args:
        widths: class name -> widths in pixels; all classes in their order.
        heights: class name -> heights in pixels.
        size: (height, width) of the masks.
    """
    labels = ("width, pixels", "height, pixels")
    figure, found, _ = panels(list(widths), 2.15, title, labels)
    for axes, name, color in zip(found, widths, class_colors(widths)):
        axes.scatter(widths[name], heights[name], s=9, color=color, alpha=0.55, lw=0)
        axes.set(xlim=(0, 1.02 * size[1]), ylim=(0, 1.02 * size[0]))
        axes.grid()
    return figure
