"""Maps of a climatology, which stay readable in black and white.

Shades go from light to dark on a common brightness scale; unobserved cells are hatched. In all
functions, lon_edges [w + 1] and lat_edges [h + 1] are edges of columns and rows in degrees, colors
the C colours of the dark end, None for the plain one, and coastlines lines of (longitude,
latitude), which are interrupted at NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clouds_tf.figures.style import (
    NEUTRAL,
    WIDTH,
    Axes,
    Figure,
    headline,
    latitude,
    longitude,
    new_figure,
    percent,
    styled,
)

DARK = "#222222"  # of coasts and text on maps, whose background is light even on dark pages
_PLAIN = "#2F6690"


@styled
def maps(
    lon_edges: np.ndarray,
    lat_edges: np.ndarray,
    values: np.ndarray,
    titles: Sequence[str],
    title: str,
    limits: Sequence[float] | None = None,
    colors: Sequence[str | None] | None = None,
    coastlines: Sequence[np.ndarray] = (),
) -> Figure:
    """Draws one map for each of C classes.

    Args:
        values: shares [C, h, w]; NaN is hatched.
        limits: upper ends of the C scales; None for the largest value of each.
    """
    aspect = _aspect(lon_edges, lat_edges)
    columns = 1 if len(values) == 1 or aspect < 0.2 else 2
    rows = -(-len(values) // columns)
    height = 0.8 * 2 * WIDTH / columns * min(aspect, 1.2) + 0.4
    figure = new_figure(2 * WIDTH, rows * height + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    limits = limits or [largest(shares) for shares in values]
    colors = colors or [None] * len(values)
    for axes, shares, name, limit, color in zip(panels, values, titles, limits, colors):
        drawn = mesh(axes, lon_edges, lat_edges, shares, (0, limit), shades(color))
        _dress(axes, lon_edges, lat_edges, coastlines)
        axes.set_title(name, fontsize=10.5, pad=4, parse_math=False)
        bar = figure.colorbar(drawn, ax=axes, format=percent, shrink=0.9, pad=0.02)
        bar.outline.set(visible=False)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    headline(figure, title)
    return figure


@styled
def period_maps(
    lon_edges: np.ndarray,
    lat_edges: np.ndarray,
    values: np.ndarray,
    periods: Sequence[str],
    class_names: Sequence[str],
    title: str,
    limits: Sequence[float],
    colors: Sequence[str | None] | None = None,
    coastlines: Sequence[np.ndarray] = (),
    uncertain: np.ndarray | None = None,
) -> Figure:
    """Draws a row of maps for each of T periods, with one scale and bar for each of C classes.

    Args:
        values: shares [T, C, h, w], or their differences; NaN is hatched.
        periods: T names.
        limits: upper ends of the C scales.
        uncertain: bool [T, C, h, w], for differences: cells to dot, with zero in the interval.
    """
    width = 2 * WIDTH / max(len(class_names), 2)
    row = 0.8 * width * min(_aspect(lon_edges, lat_edges), 1.5) + 0.1
    figure = new_figure(2 * WIDTH, len(periods) * row + 1.3)
    figure.get_layout_engine().set(wspace=0.05)  # for labels of degrees at both ends
    shape = len(periods), len(class_names)
    panels = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True)
    colors = colors or [None] * len(class_names)
    for c, (name, limit, color) in enumerate(zip(class_names, limits, colors)):
        scale, low = shades(color), 0.0
        if uncertain is not None:
            scale, low = "PuOr_r", -limit
        for t, axes in enumerate(panels[:, c]):
            drawn = mesh(axes, lon_edges, lat_edges, values[t, c], (low, limit), scale)
            _dress(axes, lon_edges, lat_edges, coastlines)
            if uncertain is not None:
                _dot(axes, lon_edges, lat_edges, uncertain[t, c])
        panels[0, c].set_title(name, fontsize=10.5, pad=4, parse_math=False)
        bar = figure.colorbar(
            drawn, ax=panels[:, c], format=percent, location="bottom", aspect=30, pad=0.01
        )
        bar.outline.set(visible=False)
        bar.ax.xaxis.set_major_locator(locator(4))
    for axes, name in zip(panels[:, 0], periods):
        # A date with a time is too long for one line.
        lines = name.replace("T", "\n") if ":" in name else name
        axes.set_ylabel(lines, weight="bold", parse_math=False)
    headline(figure, title)
    return figure


def _aspect(lon_edges: np.ndarray, lat_edges: np.ndarray) -> float:
    return (lat_edges[-1] - lat_edges[0]) / (lon_edges[-1] - lon_edges[0])


def mesh(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    shares: np.ndarray,
    limits: tuple[float, float],
    scale: Any,
) -> Any:
    """Draws a mesh of shares between limits; NaN shows the hatched background."""
    axes.patch.set(facecolor="#EEEEEE", edgecolor=NEUTRAL, hatch="////", linewidth=0)
    masked = np.ma.masked_invalid(shares)
    low, high = limits
    drawn = axes.pcolormesh(x, y, masked, cmap=scale, vmin=low, vmax=high, rasterized=True)
    axes.grid(lw=0.3, color=NEUTRAL, alpha=0.6)
    axes.set_axisbelow(False)
    axes.spines[:].set_visible(True)
    return drawn


def _dress(axes: Axes, x: np.ndarray, y: np.ndarray, coastlines: Sequence[np.ndarray]) -> None:
    """Adds coastlines, limits and labels in degrees to a map."""
    from matplotlib.collections import LineCollection

    turned = [line + [turn, 0] for turn in (-360, 0, 360) for line in coastlines]
    inside = [
        line
        for line in turned
        if (np.nanmax(line, axis=0) >= (x[0], y[0])).all()
        and (np.nanmin(line, axis=0) <= (x[-1], y[-1])).all()
    ]
    axes.add_collection(LineCollection(inside, colors=DARK, linewidths=0.5), autolim=False)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    axes.set_aspect("equal")
    axes.xaxis.set_major_formatter(longitude)
    axes.yaxis.set_major_formatter(latitude)
    for axis, edges in ((axes.xaxis, x), (axes.yaxis, y)):
        axis.set_major_locator(locator(5, is_wide=edges[-1] - edges[0] >= 90))


def _dot(axes: Axes, x: np.ndarray, y: np.ndarray, where: np.ndarray) -> None:
    """Dots the cells that `where` selects: bool [h, w]."""
    import matplotlib

    # At both ends of each cell, since contours are drawn between points.
    ends = [np.repeat(edges, 2)[1:-1] for edges in (x, y)]
    with matplotlib.rc_context({"hatch.linewidth": 0.5, "hatch.color": DARK}):
        axes.contourf(
            *ends,
            np.repeat(np.repeat(where, 2, axis=0), 2, axis=1).astype(float),
            levels=[0.5, 1.5],
            colors="none",
            hatches=["...."],
        )


def largest(shares: np.ndarray) -> float:
    """The largest share, ignoring NaN; 1 if none is above 0."""
    largest = np.nanmax(shares) if np.isfinite(shares).any() else 0
    return float(largest) or 1.0


def shades(color: str | None) -> Any:
    """Colour map from white over a colour to its darkest shade, with decreasing brightness."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    middle = to_rgb(color or _PLAIN)
    dark = tuple(0.22 * channel for channel in middle)
    return LinearSegmentedColormap.from_list("shades", [(1.0, 1.0, 1.0), middle, dark])


def locator(number: int, is_wide: bool = False) -> Any:
    """A locator of round numbers, or of multiples of 30 degrees for wide regions."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(number, steps=[1, 3, 6, 9, 10] if is_wide else [1, 2, 5, 10])


def upper_limit(shares: np.ndarray) -> float:
    """A round upper end of a scale, which about one nonzero cell in 200 may exceed."""
    present = shares[np.isfinite(shares) & (shares > 0)]
    if not len(present):
        return 1.0
    value = np.quantile(present, 0.995)
    step = 10.0 ** np.floor(np.log10(value)) / 2
    return float(min(np.ceil(value / step) * step, 1.0))
