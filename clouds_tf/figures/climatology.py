"""Charts of a climatology, which stay readable in black and white.

Shades are those of maps; lines also differ by dashes and markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clouds_tf.figures.maps import DARK, largest, locator, mesh, shades
from clouds_tf.figures.style import (
    WIDTH,
    Figure,
    class_colors,
    headline,
    ink,
    longitude,
    new_figure,
    panels,
    percent,
    styled,
)

COLORS = ("plain", "field")
# Colours in publications on the four patterns (C3ONTEXT).
FIELD_COLORS = {"Sugar": "#A1D791", "Flower": "#93D2E2", "Fish": "#2281BB", "Gravel": "#3EAE47"}
_FEW = 24  # maximum number of periods with markers and intervals side by side
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@styled
def hovmoeller(
    lon_edges: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    titles: Sequence[str],
    title: str,
    colors: Sequence[str | None] | None = None,
) -> Figure:
    """Draws shares over longitude and time, with time downwards.

    Args:
        lon_edges: edges of the columns in degrees, [w + 1].
        times: edges of the rows, datetime64 [T + 1].
        values: shares [C, T, w], means over latitude; NaN is hatched.
        titles: C titles.
        colors: C colours of the dark end, None for the plain one.
    """
    figure = new_figure(2 * WIDTH, 4.6)
    row = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    colors = colors or [None] * len(values)
    for axes, shares, name, color in zip(row, values, titles, colors):
        drawn = mesh(axes, lon_edges, times, shares, (0, largest(shares)), shades(color))
        axes.set_title(name, fontsize=10.5, pad=4, parse_math=False)
        axes.xaxis.set_major_formatter(longitude)
        axes.xaxis.set_major_locator(locator(4, is_wide=lon_edges[-1] - lon_edges[0] >= 90))
        bar = figure.colorbar(drawn, ax=axes, format=percent, location="bottom", pad=0.02)
        bar.outline.set(visible=False)
        bar.ax.xaxis.set_major_locator(locator(3))
    row[0].invert_yaxis()
    headline(figure, title)
    return figure


@styled
def cycle(
    labels: Sequence[str],
    means: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    class_names: Sequence[str],
    title: str,
    colors: Sequence[str | None] | None = None,
) -> Figure:
    """Draws the mean share of each class over hours, months or other periods, with its interval.

    Args:
        labels: T names of periods.
        means: shares [T, C].
        lower: lower ends of the intervals, [T, C]; NaN if there is none.
        upper: upper ends.
        colors: C colours, None for that of the text.
    """
    figure = new_figure(1.5 * WIDTH, 3.6)
    axes = figure.subplots()
    places, is_short = np.arange(len(labels)), len(labels) <= _FEW
    for c, name in enumerate(class_names):
        color = (colors[c] if colors else None) or ink()
        style: dict[str, Any] = {"color": color, "ls": _DASHES[c % len(_DASHES)], "label": name}
        if not is_short:
            axes.plot(places, means[:, c], lw=1.2, **style)
            axes.fill_between(places, lower[:, c], upper[:, c], color=color, alpha=0.2, lw=0)
            continue
        # Intervals are drawn side by side.
        shift = 0.1 * (c - (len(class_names) - 1) / 2)
        reach = np.abs(np.stack([means[:, c] - lower[:, c], upper[:, c] - means[:, c]]))
        axes.errorbar(
            places + shift,
            means[:, c],
            yerr=np.nan_to_num(reach) if np.isfinite(reach).any() else None,
            marker=_MARKERS[c % len(_MARKERS)],
            mec=ink(),
            mew=0.6,
            ms=5,
            lw=1.5,
            elinewidth=1,
            capsize=2,
            **style,
        )
    step = 1 if is_short else -(-len(labels) // 12)
    is_crowded = sum(map(len, labels[::step])) > 3 * _FEW
    turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if is_crowded else {}
    axes.set_xticks(places[::step], labels[::step], **turned)
    axes.set(title=title, ylabel="share of the area", ylim=(0, None))
    axes.yaxis.set_major_formatter(percent)
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=min(4, len(class_names)), handlelength=3.2)
    return figure


@styled
def co_occurrence(shared: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draws the share of the area of each pattern that another pattern also covers.

    Args:
        shared: shares of the area that two patterns both cover, [C, C]; on the diagonal, that one
            pattern covers.
    """
    own = np.diag(shared)
    share = np.divide(
        shared, own[:, np.newaxis], out=np.full_like(shared, np.nan), where=own[:, np.newaxis] > 0
    )
    share[np.diag_indices_from(share)] = np.nan
    figure = new_figure(WIDTH, 1.2 + 0.75 * len(class_names))
    axes = figure.subplots()
    limit = largest(share)
    axes.imshow(np.ma.masked_invalid(share), cmap=shades(None), vmin=0, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(share):
        text = percent(float(own[i])) + "\nof the area" if i == j else percent(value)
        color = ink() if i == j else "white" if value > 0.5 * limit else DARK
        axes.text(j, i, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(title=title, xlabel="... is also covered by", ylabel="of the area of ...")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def daily_means(means: np.ndarray, class_names: Sequence[str], reference: str) -> Figure:
    """Draws daily means of each class against those of a reference.

    Args:
        means: shares [2, days, C]: ours, and the reference's.
        reference: name of the reference, on its axis.
    """
    title = f"Daily mean shares of the area, {means.shape[1]} days"
    figure, axes, _ = panels(class_names, 2.6, title, (reference, "predicted"), shared=False)
    for c, (ax, color) in enumerate(zip(axes, class_colors(class_names))):
        ours, theirs = means[..., c]
        limit = 1.05 * max(means[..., c].max(), 0.01)
        ax.plot([0, limit], [0, limit], color=ink(), lw=0.8, ls="--")
        ax.scatter(theirs, ours, s=22, color=color, edgecolors=ink(), linewidths=0.5, zorder=3)
        ax.set(xlim=(0, limit), ylim=(0, limit))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(percent)
        ax.grid()
    return figure
