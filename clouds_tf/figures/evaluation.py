"""Charts of how good predictions are."""

import numpy as np

from clouds_tf.figures.images import overlay
from clouds_tf.figures.style import NEUTRAL, PALETTE, WIDTH, headline, ink, new_figure, styled
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES


@styled
def score_maps(scores, thresholds, min_areas, title):
    """Draws the score over threshold and least area, a picture per class, the best place marked.

    Args:
        scores: float [4, A, T], the mean Dice.
        thresholds: T increasing numbers.
        min_areas: A increasing numbers of pixels.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 5.4)
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, name, values in zip(grid.ravel(), CLASS_NAMES, scores):
        # Each class on a scale of its own: what matters is the way to its best place.
        mesh = axes.pcolormesh(thresholds, min_areas, values, cmap="cividis", shading="nearest")
        area, threshold = np.unravel_index(values.argmax(), values.shape)
        axes.plot(thresholds[threshold], min_areas[area], "o", ms=7, mfc="none", mec="black")
        axes.set_title(f"{name}: {values.max():.3f} at best", fontsize=10.5, pad=4)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        figure.colorbar(mesh, ax=axes, format="{x:.2f}").outline.set(visible=False)
    for axes in grid[-1]:
        axes.set_xlabel("threshold")
    for axes in grid[:, 0]:
        axes.set_ylabel("least area, pixels")
    headline(figure, title)
    return figure


@styled
def reliability(edges, shares, numbers, title):
    """Draws how often a pixel is of a class, by the probability that it was given.

    Args:
        edges: the edges of M bins of probability, [M + 1].
        shares: float [4, M], the share of the bin's pixels that are of the class; nan where the
            bin is empty.
        numbers: [4, M], the number of pixels in each bin.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=NEUTRAL, lw=1.2, ls=(0, (4, 3)), label="reliable")
    middles = (np.asarray(edges)[:-1] + np.asarray(edges)[1:]) / 2
    for name, share, number in zip(CLASS_NAMES, shares, numbers):
        above.plot(middles, share, marker=".", color=PALETTE[name], label=name)
        below.stairs(number / max(np.sum(number), 1), edges, color=PALETTE[name], lw=1.6)
    above.set(title=title, ylabel="share that is of the class", xlim=(0, 1), ylim=(0, 1))
    above.grid()
    above.legend()
    below.set(xlabel="probability", ylabel="of pixels", yscale="log")
    below.grid()
    return figure


@styled
def confusions(counts, title):
    """Draws how often a class is there and is predicted, a table per class.

    Args:
        counts: float [4, 2, 2] images: class, whether it is there, whether it is predicted.
        title: what to write above it.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(WIDTH, 4.7)
    grid = figure.subplots(2, 2)
    for axes, name, table in zip(grid.ravel(), CLASS_NAMES, np.asarray(counts, float)):
        shares = table / max(table.sum(), 1)
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=0.6, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            text = f"{share:.1%}\n{table[i, j]:,.0f}"
            color = "white" if share < 0.3 else "black"
            axes.text(j, i, text, ha="center", va="center", color=color)
        axes.set_xticks((0, 1), ("not predicted", "predicted"))
        axes.set_yticks((0, 1), ("absent", "present"), rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(name, fontsize=10.5, pad=4)
    headline(figure, title)
    return figure


@styled
def comparisons(images, masks, titles, columns):
    """Draws a row for each image: the image alone, then with each of several masks.

    Args:
        images: a list of R images, uint8 [H, W, 3].
        masks: for each image a list of M masks, [h, w, 4] of {0, 1}.
        titles: R strings, to write at the left.
        columns: M strings, to write above the masks.

    Returns:
        A matplotlib Figure.
    """
    num_columns = 1 + len(columns)
    height, width = images[0].shape[:2]
    side = 2 * WIDTH / num_columns
    figure = new_figure(2 * WIDTH, (side * height / width + 0.08) * len(images) + 0.3)
    grid = figure.subplots(len(images), num_columns, squeeze=False)
    for row, image, some, title in zip(grid, images, masks, titles):
        blank = np.zeros((1, 1, NUM_CLASSES))
        for axes, mask in zip(row, (blank, *some)):
            overlay(axes, image, mask)
        row[0].text(
            -0.02,
            0.5,
            title,
            transform=row[0].transAxes,
            ha="right",
            va="center",
            rotation=90,
            color=ink(),
            fontsize=9,
        )
    for axes, name in zip(grid[0], ("image", *columns)):
        axes.set_title(name, fontsize=10.5, pad=4)
    return figure
