"""Charts: what numbers look like."""

import numpy as np

from clouds_tf.figures.style import NEUTRAL, PALETTE, WIDTH, headline, ink, new_figure, styled
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES


@styled
def curves(history):
    """Draws loss and Dice over epochs.

    Args:
        history: a list of dicts, one per epoch, with epoch, loss, val_loss, dice, val_dice and
            val_dice_<class>.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(2 * WIDTH, 4)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]

    def line(axes, key, label, **style):
        axes.plot(epochs, [row[key] for row in history], marker=".", label=label, **style)

    line(left, "loss", "training", color=NEUTRAL)
    line(left, "val_loss", "held out", color=ink())
    line(right, "dice", "training", color=NEUTRAL)
    line(right, "val_dice", "held out", color=ink())
    for name in CLASS_NAMES:
        line(right, f"val_dice_{name}", f"held out, {name}", color=PALETTE[name], linewidth=1.3)
    for axes, title in ((left, "Loss"), (right, "Competition Dice at probability 1/2")):
        axes.set(title=title, xlabel="epoch")
        axes.grid()
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend()
    return figure


@styled
def bars(counts, title, xlabel):
    """Draws one bar per name, with its count and its share of all.

    Args:
        counts: a dict of name -> count; a class name has the class's colour.
        title: what to write above it.
        xlabel: what is counted.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 1.1 + 0.42 * len(counts))
    axes = figure.subplots()
    values = np.array(list(counts.values()))
    labels = [f" {value:,}  ({value / max(values.sum(), 1):.1%})" for value in values]
    _draw_bars(axes, counts, labels)
    axes.set(title=title, xlabel=xlabel)
    return figure


def _draw_bars(axes, values, labels):
    """Bars from the left, the first on top, each with its label behind it."""
    colors = [PALETTE.get(name, NEUTRAL) for name in values]
    drawn = axes.barh([str(name) for name in values], list(values.values()), color=colors)
    axes.bar_label(drawn, labels, fontsize=9.5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.32 * max(values.values()) or 1)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


@styled
def shares(left, right, titles):
    """Draws two shares per class beside each other.

    Args:
        left: a dict of class name -> share, 0 to 1.
        right: the same.
        titles: what to write above each.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 2.6)
    for axes, values, title in zip(figure.subplots(1, 2, sharey=True), (left, right), titles):
        _draw_bars(axes, values, [f" {value:.1%}" for value in values.values()])
        axes.set_title(title)
        axes.xaxis.set_major_formatter(_percent)
    axes.invert_yaxis()  # the shared axis was turned twice
    return figure


def _percent(value, _=None):
    return f"{100 * value:.3g}%"


@styled
def combinations(counts, title):
    """Draws how often each combination of classes occurs: bars above a grid of dots.

    Args:
        counts: a dict of combination -> count, from the most frequent on; a combination is a tuple
            of class names.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 4.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 3))
    places = np.arange(len(counts))
    drawn = above.bar(places, list(counts.values()), color=NEUTRAL, width=0.7)
    above.bar_label(drawn, fontsize=8.5, padding=1)
    above.set(title=title, ylabel="images")
    above.tick_params(axis="x", length=0)
    above.grid(axis="y")

    for i, name in enumerate(CLASS_NAMES):
        member = np.array([name in combination for combination in counts], bool)
        below.scatter(places, np.full(len(places), i), s=46, color=NEUTRAL, alpha=0.25, lw=0)
        below.scatter(places[member], np.full(member.sum(), i), s=60, color=PALETTE[name], lw=0)
    for place, combination in zip(places, counts):
        rows = [CLASS_NAMES.index(name) for name in combination]
        if rows:
            below.plot([place] * 2, [min(rows), max(rows)], color=NEUTRAL, lw=1.6, zorder=0.5)
    below.set_yticks(range(NUM_CLASSES), CLASS_NAMES)
    below.set_ylim(NUM_CLASSES - 0.5, -0.5)
    below.tick_params(length=0, labelbottom=False)
    below.spines[:].set_visible(False)
    return figure


@styled
def matrix(values, title, label, limits, diverging=False):
    """Draws a matrix of classes by classes with its numbers.

    Args:
        values: float [4, 4]; nan is left blank.
        title: what to write above it.
        label: how to write a number, a format such as "{:.0%}".
        limits: (least, most) of the colours.
        diverging: whether the middle of the limits is neutral.

    Returns:
        A matplotlib Figure.
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
    axes.set_xticks(range(NUM_CLASSES), CLASS_NAMES)
    axes.set_yticks(range(NUM_CLASSES), CLASS_NAMES)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)
    return figure


@styled
def distributions(values, bins, title, xlabel, log=False):
    """Draws a histogram for each class, and above them the shares of all in one.

    Args:
        values: a dict of class name -> array of numbers.
        bins: the edges of the bins, [num_bins + 1].
        title: what to write above it.
        xlabel: what the numbers are.
        log: whether the numbers are shown on a logarithmic axis.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 6.2)
    top, *rest = figure.subplots(1 + NUM_CLASSES, 1, sharex=True, height_ratios=(2, 1, 1, 1, 1))
    most = 1
    for axes, (name, some) in zip(rest, values.items()):
        some = np.asarray(some, float)
        counts, _ = np.histogram(some, bins)
        most = max(most, counts.max())
        top.stairs(counts / max(len(some), 1), bins, color=PALETTE[name], lw=2, label=name)
        axes.stairs(counts, bins, color=PALETTE[name], fill=True)
        _mark_median(axes, some)
        axes.text(0.995, 0.97, name, transform=axes.transAxes, ha="right", va="top", weight="bold")
    for axes in rest:
        axes.set_ylim(0, 1.08 * most)
        axes.grid(axis="y")
    top.yaxis.set_major_formatter(_percent)
    top.set_title(title)
    top.set_ylabel("share of the class")
    top.grid(axis="y")
    top.legend(ncols=2)
    rest[1].set_ylabel("number")
    rest[-1].set_xlabel(f"{xlabel} (dashed: median)")
    if log:
        top.set_xscale("log")
    return figure


def _mark_median(axes, values):
    if len(values):
        axes.axvline(np.median(values), color=ink(), lw=1.2, ls=(0, (4, 3)))


@styled
def histogram(values, bins, title, xlabel, ylabel="images", percent=False):
    """Draws the histogram of numbers that belong to no class.

    Args:
        values: an array of numbers.
        bins: the edges of the bins, [num_bins + 1].
        title: what to write above it.
        xlabel: what the numbers are.
        ylabel: what is counted.
        percent: whether the numbers are shares.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 2.9)
    axes = figure.subplots()
    axes.stairs(np.histogram(values, bins)[0], bins, color=NEUTRAL, fill=True)
    _mark_median(axes, values)
    axes.set(title=title, xlabel=f"{xlabel} (dashed: median)", ylabel=ylabel)
    axes.grid(axis="y")
    if percent:
        axes.xaxis.set_major_formatter(_percent)
    return figure


@styled
def average_masks(masks, size, title):
    """Draws how often each place is covered, a picture per class, all on one scale.

    Args:
        masks: float [4, h, w], the share of images in which a cell is covered.
        size: (height, width) to write along the sides.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 3.9)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, name, mask in zip(grid.ravel(), CLASS_NAMES, masks):
        extent = (0, size[1], size[0], 0)
        shown = axes.imshow(
            mask, cmap="cividis", vmin=0, vmax=max(masks.max(), 1e-9), extent=extent
        )
        axes.set_title(name, fontsize=10.5, pad=4)
        axes.spines[:].set_visible(False)
    figure.colorbar(shown, ax=grid, format=_percent, shrink=0.8, label="of all images").outline.set(
        visible=False
    )
    headline(figure, title)
    return figure


@styled
def box_sizes(widths, heights, size, title):
    """Draws the width and height of every bounding box, a picture per class.

    Args:
        widths: a dict of class name -> array of pixels.
        heights: the same.
        size: (height, width) of the masks.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 4.6)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, name in zip(grid.ravel(), CLASS_NAMES):
        axes.scatter(widths[name], heights[name], s=9, color=PALETTE[name], alpha=0.55, lw=0)
        axes.set_title(name, fontsize=10.5, pad=4)
        axes.set(xlim=(0, 1.02 * size[1]), ylim=(0, 1.02 * size[0]))
        axes.grid()
    for axes in grid[-1]:
        axes.set_xlabel("width, pixels")
    for axes in grid[:, 0]:
        axes.set_ylabel("height, pixels")
    headline(figure, title)
    return figure
