"""Maps and charts of a climatology, which stay readable in black and white.

Shades run from light to dark on one scale of brightness; lines differ by dashes and markers too;
what was not observed is hatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clouds_tf import files
from clouds_tf.figures.style import NEUTRAL, WIDTH, Axes, headline, ink, new_figure, percent, styled

COLORS = ("plain", "field")
# As publications on the four patterns draw them (C3ONTEXT).
FIELD_COLORS = {"Sugar": "#A1D791", "Flower": "#93D2E2", "Fish": "#2281BB", "Gravel": "#3EAE47"}
_PLAIN = "#2F6690"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 2, 1, 2)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def read_coastlines(path: str) -> list[np.ndarray]:
    """Reads lines and outlines of polygons from a GeoJSON file.

    Returns:
        Lines of points (longitude, latitude): a list of float64 [n, 2].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no GeoJSON with lines or polygons.
    """
    lines: list[np.ndarray] = []

    def collect(item: dict[str, Any]) -> None:
        for part in (*item.get("features", ()), *item.get("geometries", ())):
            collect(part)
        if item.get("geometry"):
            collect(item["geometry"])
        depth = {"LineString": 0, "MultiLineString": 1, "Polygon": 1, "MultiPolygon": 2}
        if item.get("type") in depth:
            parts = [item["coordinates"]]
            for _ in range(depth[item["type"]]):
                parts = [inner for part in parts for inner in part]
            lines.extend(np.array([point[:2] for point in part], float) for part in parts)

    try:
        collect(files.parse_json(files.read_text(path)))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        lines.clear()
    if not lines:
        raise ValueError(f"{path}: expected GeoJSON with lines or polygons, such as coastlines")
    return lines


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
) -> Any:
    """Draws one map for each of C classes, or of C periods.

    Args:
        lon_edges: edges of the columns in degrees, [w + 1].
        lat_edges: edges of the rows in degrees, [h + 1].
        values: shares [C, h, w]; NaN is hatched.
        titles: C titles.
        title: what to write above all.
        limits: upper ends of the C scales; None for the largest value of each.
        colors: C colours of the dark end, None for the plain one.
        coastlines: lines of (longitude, latitude).

    Returns:
        A matplotlib Figure.
    """
    aspect = (lat_edges[-1] - lat_edges[0]) / (lon_edges[-1] - lon_edges[0])
    columns = 1 if len(values) == 1 or aspect < 0.2 else 2
    rows = -(-len(values) // columns)
    height = 0.8 * 2 * WIDTH / columns * min(aspect, 1.2) + 0.4
    figure = new_figure(2 * WIDTH, rows * height + 0.4)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    limits = limits or [_limit(shares) for shares in values]
    colors = colors or [None] * len(values)
    for axes, shares, name, limit, color in zip(panels, values, titles, limits, colors):
        mesh = _map(axes, lon_edges, lat_edges, shares, limit, color)
        for line in coastlines:
            for turn in (-360, 0, 360):
                axes.plot(line[:, 0] + turn, line[:, 1], color=ink(), lw=0.4)
        axes.set(xlim=(lon_edges[0], lon_edges[-1]), ylim=(lat_edges[0], lat_edges[-1]))
        axes.set_title(name, fontsize=10.5, pad=4, parse_math=False)
        axes.set_aspect("equal")
        axes.xaxis.set_major_formatter(_degrees_east)
        axes.yaxis.set_major_formatter(_degrees_north)
        bar = figure.colorbar(mesh, ax=axes, format=percent, shrink=0.9, pad=0.02)
        bar.outline.set(visible=False)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
    headline(figure, title)
    return figure


def _map(
    axes: Axes, x: np.ndarray, y: np.ndarray, shares: np.ndarray, limit: float, color: str | None
) -> Any:
    """A mesh of shares; what is NaN shows the hatched ground."""
    axes.patch.set(facecolor="#EEEEEE", edgecolor=NEUTRAL, hatch="////", linewidth=0)
    masked = np.ma.masked_invalid(shares)
    mesh = axes.pcolormesh(x, y, masked, cmap=_shades(color), vmin=0, vmax=limit, rasterized=True)
    axes.grid(lw=0.3, color=NEUTRAL, alpha=0.6)
    axes.set_axisbelow(False)
    axes.spines[:].set_visible(True)
    return mesh


def _limit(shares: np.ndarray) -> float:
    largest = np.nanmax(shares) if np.isfinite(shares).any() else 0
    return float(largest) or 1.0


def _shades(color: str | None) -> Any:
    """From white over a colour to its darkest shade: brightness falls all the way."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    middle = to_rgb(color or _PLAIN)
    dark = tuple(0.22 * channel for channel in middle)
    return LinearSegmentedColormap.from_list("shades", [(1.0, 1.0, 1.0), middle, dark])


def _degrees_east(value: float, _: object = None) -> str:
    value = (value + 180) % 360 - 180
    return f"{abs(value):g}°" + ("W" if -180 < value < 0 else "E" if 0 < value < 180 else "")


def _degrees_north(value: float, _: object = None) -> str:
    return f"{abs(value):g}°" + ("S" if value < 0 else "N" if value > 0 else "")


@styled
def hovmoeller(
    lon_edges: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    titles: Sequence[str],
    title: str,
    colors: Sequence[str | None] | None = None,
) -> Any:
    """Draws shares over longitude and time, which runs downwards.

    Args:
        lon_edges: edges of the columns in degrees, [w + 1].
        times: edges of the rows, datetime64 [T + 1].
        values: shares [C, T, w], means over latitude; NaN is hatched.
        titles: C titles.
        title: what to write above all.
        colors: C colours of the dark end, None for the plain one.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(2 * WIDTH, 4.6)
    panels = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    colors = colors or [None] * len(values)
    for axes, shares, name, color in zip(panels, values, titles, colors):
        mesh = _map(axes, lon_edges, times, shares, _limit(shares), color)
        axes.set_title(name, fontsize=10.5, pad=4, parse_math=False)
        axes.xaxis.set_major_formatter(_degrees_east)
        axes.xaxis.set_major_locator(_locator(4))
        bar = figure.colorbar(mesh, ax=axes, format=percent, location="bottom", pad=0.02)
        bar.outline.set(visible=False)
        bar.ax.xaxis.set_major_locator(_locator(3))
    panels[0].invert_yaxis()
    headline(figure, title)
    return figure


def _locator(number: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(number)


@styled
def seasonal_cycle(
    labels: Sequence[str],
    means: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    class_names: Sequence[str],
    title: str,
    colors: Sequence[str | None] | None = None,
) -> Any:
    """Draws the mean share of each class over the months, with its interval.

    Args:
        labels: T names of months or seasons.
        means: shares [T, C].
        lower: lower ends of the intervals, [T, C]; NaN where there is none.
        upper: upper ends.
        class_names: C names.
        title: what to write above.
        colors: C colours, None for that of the text.

    Returns:
        A matplotlib Figure.
    """
    figure = new_figure(1.5 * WIDTH, 3.6)
    axes = figure.subplots()
    places = np.arange(len(labels))
    for c, name in enumerate(class_names):
        color = (colors[c] if colors else None) or ink()
        shift = 0.1 * (c - (len(class_names) - 1) / 2)  # intervals stand beside each other
        reach = np.abs(np.stack([means[:, c] - lower[:, c], upper[:, c] - means[:, c]]))
        axes.errorbar(
            places + shift,
            means[:, c],
            yerr=np.nan_to_num(reach),
            color=color,
            ls=_DASHES[c % len(_DASHES)],
            marker=_MARKERS[c % len(_MARKERS)],
            mec=ink(),
            mew=0.6,
            ms=5,
            lw=1.5,
            elinewidth=1,
            capsize=2,
            label=name,
        )
    axes.set_xticks(places, labels)
    axes.set(title=title, ylabel="share of the area", ylim=(0, None))
    axes.yaxis.set_major_formatter(percent)
    axes.grid(axis="y")
    figure.legend(loc="outside lower center", ncols=min(4, len(class_names)), handlelength=3.2)
    return figure


@styled
def co_occurrence(shared: np.ndarray, class_names: Sequence[str], title: str) -> Any:
    """Draws how much of the area of one pattern another one covers as well.

    Args:
        shared: shares of the area that two patterns both cover, [C, C]; one pattern on the
            diagonal.
        class_names: C names.
        title: what to write above.

    Returns:
        A matplotlib Figure.
    """
    own = np.diag(shared)
    share = np.divide(
        shared, own[:, np.newaxis], out=np.full_like(shared, np.nan), where=own[:, np.newaxis] > 0
    )
    share[np.diag_indices_from(share)] = np.nan
    figure = new_figure(WIDTH, 1.2 + 0.75 * len(class_names))
    axes = figure.subplots()
    limit = _limit(share)
    axes.imshow(np.ma.masked_invalid(share), cmap=_shades(None), vmin=0, vmax=limit, aspect="auto")
    for (i, j), value in np.ndenumerate(share):
        text = percent(float(own[i])) + "\nof the area" if i == j else percent(value)
        dark = i != j and value > 0.5 * limit
        axes.text(j, i, text, ha="center", va="center", color="white" if dark else ink())
    axes.set_xticks(range(len(class_names)), class_names)
    axes.set_yticks(range(len(class_names)), class_names)
    axes.set(title=title, xlabel="... is also covered by", ylabel="of the area of ...")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure
