"""Charts of the quality of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clouds_tf.figures.images import overlay
from clouds_tf.figures.style import (
    NEUTRAL,
    WIDTH,
    Figure,
    class_colors,
    ink,
    new_figure,
    panels,
    styled,
)

_RIGHT, _WRONG = np.array([0.0, 0.62, 0.45]), np.array([0.84, 0.37, 0.0])  # after Okabe and Ito


@styled
def score_maps(
    scores: np.ndarray,
    blank: np.ndarray,
    thresholds: Sequence[float],
    min_top_means: Sequence[float],
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws the score over the two parameters of a rule, one map per class, on one colour scale.

    A circle marks the best pair, a dashed line encloses pairs that are better than blank masks, and
    the title tells if the best pair is at the edge of the search.

    Args:
        scores: float [C, A, T], the mean Dice.
        blank: float [C], the mean Dice of blank masks.
        thresholds: T relative thresholds, increasing.
        min_top_means: A minimum means of the most probable pixels, increasing.
    """
    labels = ("relative threshold", "minimum mean of the top pixels")
    figure, found, grid = panels(class_names, 2.75, title, labels)
    limits = {"vmin": scores.min(), "vmax": scores.max()}
    for axes, name, values, baseline in zip(found, class_names, scores, blank):
        mesh = axes.pcolormesh(thresholds, min_top_means, values, shading="nearest", **limits)
        mesh.set_cmap("cividis")
        if values.min() < baseline < values.max():
            axes.contour(
                thresholds, min_top_means, values, [baseline], colors="white", linestyles="dashed"
            )
        mean, threshold = np.unravel_index(values.argmax(), values.shape)
        place = thresholds[threshold], min_top_means[mean]
        axes.plot(*place, "o", ms=7, mfc="none", mec="black", clip_on=False)
        at_edge = threshold in (0, len(thresholds) - 1) or mean == len(min_top_means) - 1
        edge = ", at the edge" if at_edge else ""
        label = f"{name}: {values.max():.3f}{edge}\nblank: {baseline:.3f}"
        axes.set_title(label, fontsize=9.5, pad=4)
    bar = figure.colorbar(mesh, ax=grid, format="{x:.2f}", shrink=0.8)
    bar.set_label("Dice (dashed: as good as blank masks)")
    bar.outline.set(visible=False)
    return figure


@styled
def reliability(
    edges: np.ndarray,
    shares: np.ndarray,
    numbers: np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws reliability diagrams: the share of true pixels by predicted probability.

    Args:
        edges: edges of M bins of probability, [M + 1].
        shares: float [C, M], share of true pixels in each bin; nan for empty bins.
        numbers: [C, M], number of pixels in each bin.
    """
    figure = new_figure(WIDTH, 5.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 1], [0, 1], color=NEUTRAL, lw=1.2, ls=(0, (4, 3)), label="reliable")
    middles = (np.asarray(edges)[:-1] + np.asarray(edges)[1:]) / 2
    colors = class_colors(class_names)
    for name, color, share, number in zip(class_names, colors, shares, numbers):
        above.plot(middles, share, marker=".", color=color, label=name)
        below.stairs(number / max(np.sum(number), 1), edges, color=color, lw=1.6)
    above.set(title=title, ylabel="share that is of the class", xlim=(0, 1), ylim=(0, 1))
    above.grid()
    above.legend()
    below.set(xlabel="probability", ylabel="share of\nall pixels", yscale="log")
    below.grid()
    return figure


@styled
def confusions(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draws true against predicted presence, one table per class.

    Correct predictions are green, wrong ones red; frequent ones have a stronger colour.

    Args:
        counts: float [C, 2, 2] images: class, truly present, predicted.
    """
    figure, found, _ = panels(class_names, 2.2, title, shared=False)
    for axes, table in zip(found, np.asarray(counts, float)):
        shares = table / max(table.sum(), 1)
        wrong = 1 - np.eye(2)
        tints = np.where(wrong[..., None], _WRONG, _RIGHT)
        weights = np.clip(shares / 0.6, 0, 1)[..., None]
        axes.imshow(weights * tints + (1 - weights), aspect="auto")  # from white to the tint
        for (i, j), share in np.ndenumerate(shares):
            text = f"{'right' if i == j else 'wrong'}\n{share:.1%}\n{table[i, j]:,.0f}"
            axes.text(j, i, text, ha="center", va="center", color="black")
        axes.set_xticks((0, 1), ("not predicted", "predicted"))
        axes.set_yticks((0, 1), ("absent", "present"), rotation=90, va="center")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@styled
def predicted_areas(
    true: np.ndarray,
    predicted: dict[str, tuple[np.ndarray, Sequence[float]]],
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws predicted against true area of every image, one chart per class.

    Args:
        true: float [N, C], the share of each image in the true mask.
        predicted: name of the estimate -> predicted shares, float [N, C], and the bias of each
            class (predicted over true area of all images, minus 1).
    """
    labels = ("true share of the image", "predicted share")
    figure, found, _ = panels(class_names, 2.7, title, labels)
    ways = list(zip(predicted.items(), (NEUTRAL, None), ("x", "o")))
    for c, (axes, color) in enumerate(zip(found, class_colors(class_names))):
        axes.plot([0, 1], [0, 1], color=NEUTRAL, lw=1, ls=(0, (4, 3)))
        for (label, (shares, biases)), own_color, marker in ways:
            axes.scatter(
                true[:, c],
                np.asarray(shares)[:, c],
                s=9,
                marker=marker,
                color=own_color or color,
                alpha=0.55,
                lw=0.8 if marker == "x" else 0,
                label=f"{label}: {biases[c]:+.1%}",
            )
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.legend(fontsize=8, loc="upper left", handletextpad=0.1, borderpad=0.1)
    return figure


@styled
def comparisons(
    images: Sequence[np.ndarray],
    masks: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    columns: Sequence[str],
    class_names: Sequence[str],
) -> Figure:
    """Draws a row for each image: the image alone, then with each of several masks.

    Args:
        images: R images, uint8 [H, W, 3].
        masks: for each image M masks, [h, w, C] of {0, 1}.
        titles: R texts on the left.
        columns: M texts above the masks.
    """
    num_columns = 1 + len(columns)
    height, width = images[0].shape[:2]
    side = 2 * WIDTH / num_columns
    figure = new_figure(2 * WIDTH, (side * height / width + 0.08) * len(images) + 0.3)
    grid = figure.subplots(len(images), num_columns, squeeze=False)
    blank = np.zeros((1, 1, masks[0][0].shape[-1]))
    for row, image, some, title in zip(grid, images, masks, titles):
        for axes, mask in zip(row, (blank, *some)):
            overlay(axes, image, mask, class_names)
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
