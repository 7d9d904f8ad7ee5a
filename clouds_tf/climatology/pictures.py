"""Pictures of a climatology, and an HTML report with all of them."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Tuple

import numpy as np
import pandas as pd

from clouds_tf import files
from clouds_tf.climatology import bootstrap, series
from clouds_tf.climatology.aggregate import Aggregation
from clouds_tf.climatology.days import DayStore, Settings
from clouds_tf.figures import climatology as draw
from clouds_tf.figures import maps
from clouds_tf.figures.page import Card, Section, render
from clouds_tf.figures.style import FORMATS, latitude, longitude, percent
from clouds_tf.geo import land, netcdf
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid
from clouds_tf.messages import counted
from clouds_tf.settings import CheckedSettings, setting

_ON_A_PAGE = 4  # periods
_MOST_DIFFERENCES = 12  # periods; with more, no differences are drawn
_LEAST_OBSERVED = 0.25  # minimum share of the observed time in a Hovmoeller diagram
_MOST_ROWS = 60  # of the table of means
_HATCHED = "unobserved areas are hatched"
# Name and heading of the chart over time by period; longer periods get the seasonal cycle.
_SERIES = ("series", "Series")
_CHARTS = {"scene": _SERIES, "day": _SERIES, "hour": ("diurnal_cycle", "Diurnal cycle (UTC)")}


@dataclasses.dataclass(frozen=True)
class Look(CheckedSettings):
    """Settings of the pictures."""

    colors: str = setting(
        "plain",
        "Colours of the maps: plain, single-hue maps; or field, those used in the literature.",
        choices=draw.COLORS,
    )
    coastlines: str = setting(
        "auto", f"Coastlines on the maps: auto for {land.SOURCE}, a GeoJSON file, or none."
    )
    picture_formats: Tuple[str, ...] = setting(
        ("png",), f"Formats of the pictures: {', '.join(FORMATS)}.", choices=FORMATS
    )
    max_pictures: int = setting(13, "Maximum number of pictures; further maps are left out.", min=1)

    def read_coastlines(self, extent: Extent) -> list[np.ndarray]:
        """Lines of (longitude, latitude) of an extent; ValueError if the file is faulty."""
        if self.coastlines in ("auto", "none"):
            return land.coastlines(extent) if self.coastlines == "auto" else []
        return land.read_lines(self.coastlines)


@dataclasses.dataclass(frozen=True)
class _Product:
    """Contents of the NetCDF file of `write.product`, and how they are drawn.

    Attributes:
        by: period of the means.
        class_names, colors: names and colours of the C classes; None for the plain colour.
        coastlines: lines on the maps.
        labels, region_names: names of the T periods and R regions.
        variables: name -> values; intervals only if the file has them.
        rows: smallest range of rows with all observed cells.
        columns: smallest range of columns with all observed cells; on a global grid, it may
            continue from the last column to the first.
        edges: edges of these columns and rows.
    """

    by: str
    class_names: tuple[str, ...]
    colors: tuple[str | None, ...]
    coastlines: Sequence[np.ndarray]
    labels: tuple[str, ...]
    region_names: tuple[str, ...]
    variables: dict[str, Any]
    rows: slice
    columns: np.ndarray
    edges: tuple[np.ndarray, np.ndarray]

    def map(self, name: str) -> np.ndarray:
        """A variable (..., lat, lon) in the observed rows and columns."""
        return self.variables[name][..., self.rows, :][..., self.columns]

    @property
    def region_means(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means over regions and the ends of their intervals (NaN if missing): each [T, R, C]."""
        mean = self.variables["region_fraction"]
        gaps = np.full_like(mean, np.nan)
        lower, upper = (
            self.variables.get(f"region_fraction_{end}", gaps) for end in ("lower", "upper")
        )
        return mean, lower, upper


def _read(path: str, settings: Settings, by: str, look: Look) -> _Product:
    with netcdf.opened(path) as file:
        names = ("fraction", "coverage", "region_fraction", "region_coverage")
        ends = [f"{name}_{end}" for name in names[::2] for end in ("lower", "upper")]
        found = {name: file[name][...] for name in (*names, *ends) if name in file}
        labels, regions = (
            tuple(label.decode() for label in file[name][...]) for name in ("period", "region")
        )
    seen = (found["coverage"] > 0).any(axis=0)
    rows, columns, lat_edges, lon_edges = _frame(settings.grid, seen)
    palette = draw.FIELD_COLORS if look.colors == "field" else {}
    return _Product(
        by,
        settings.class_names,
        tuple(map(palette.get, settings.class_names)),
        look.read_coastlines(Extent(lon_edges[0], lat_edges[0], lon_edges[-1], lat_edges[-1])),
        labels,
        regions,
        found,
        rows,
        columns,
        (lon_edges, lat_edges),
    )


def _frame(grid: Grid, seen: np.ndarray) -> tuple[slice, np.ndarray, np.ndarray, np.ndarray]:
    """The smallest ranges of rows and columns with all observed cells, and their edges."""
    if not seen.any():
        seen = np.ones_like(seen)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0))
    first, number, width = columns[0], columns[-1] - columns[0] + 1, grid.shape[1]
    if grid.periodic:
        # On the circle, the range begins after the widest gap.
        gaps = np.diff(columns, append=columns[0] + width)
        widest = gaps.argmax()
        if gaps[widest] > 1:
            first = columns[(widest + 1) % len(columns)]
            number = width + 1 - gaps[widest]
    down = slice(rows[0], rows[-1] + 1)
    lon_edges = grid.lon_edges[first] + grid.cell[1] * np.arange(number + 1)
    if lon_edges[0] >= 180:
        lon_edges -= 360
    lat_edges = grid.lat_edges[down.start : down.stop + 1]
    return down, (first + np.arange(number)) % width, lat_edges, lon_edges


def write(folder: str, product: str, store: DayStore, form: Aggregation, look: Look) -> int:
    """Writes pictures and report.html to a folder; returns the number of omitted pictures.

    Args:
        folder: the folder, created if needed.
        product: the NetCDF file of `write.product`, with layout "cf".
        store: the days that it was made from.
        form: settings of the file; each of its regions gets a chart over time.
        look: settings of the pictures.
    """
    found = _read(product, store.settings, form.by, look)
    extents = {"all": store.settings.grid.extent, **form.regions}
    days = series.read(store, extents, form.num_resamples, form.seed)
    lead = _lead(found, store)
    first, *more = mapped = _maps(found, lead)
    charts = [*_over_time(found, days), *_together(found, days, store.settings.has_classless)]
    # Maps of further periods are the first to be left out.
    chosen = [first, *charts, *more][: look.max_pictures]
    left_out = 1 + len(charts) + len(more) - len(chosen)
    text = "A row for each period and region, with 95 % intervals of the means."
    if left_out:
        text += f" {counted(left_out, 'picture')} left out: see --max_pictures."
    sections = [
        Section("Means", text, [_table(found)]),
        *(
            Section(title, "", [card for card in chosen if card in cards])
            for title, cards in (("Maps", mapped), ("Time and patterns", charts))
        ),
    ]
    dates = store.dates()
    title = f"Cloud patterns from {dates[0][:10]} to {dates[-1][:10]}"
    html = render(title, lead, sections, folder, look.picture_formats)
    files.write_text(os.path.join(folder, "report.html"), html)
    return left_out


def _lead(found: _Product, store: DayStore) -> str:
    """Names the data of the climatology: periods, source, cells and observed region."""
    settings, ((west, *_, east), (south, *_, north)) = store.settings, found.edges
    what = {"boxes": "boxes", "mask": "masks of scenes", "expected": "expected areas of scenes"}
    satellites = f" of {', '.join(settings.platforms)}" if settings.platforms else ""
    cell = f"{settings.grid.cell[0]:g}\N{DEGREE SIGN}"
    return (
        f"{'' if found.by == 'all' else f'By {found.by}, of '}"
        f"{counted(len(store.dates()), settings.step)}: "
        f"{what[settings.measure]}{satellites}, on cells of {cell}. "
        f"Observed: {longitude(west)} to {longitude(east)}, {latitude(south)} to {latitude(north)}."
    )


def _table(found: _Product) -> Card:
    """Means of all periods and regions."""
    mean, lower, upper = found.region_means
    rows = []
    for t, r in np.ndindex(mean.shape[:2]):
        row = {"period": found.labels[t], "region": found.region_names[r]}
        for c, name in enumerate(found.class_names):
            row[name] = percent(mean[t, r, c]) if np.isfinite(mean[t, r, c]) else "not observed"
            if np.isfinite(lower[t, r, c]):
                row[name] += f" ({percent(lower[t, r, c])} to {percent(upper[t, r, c])})"
        row["observed"] = percent(found.variables["region_coverage"][t, r])
        rows.append(row)
    text = "Mean share of the observed area of each pattern."
    if len(rows) > _MOST_ROWS:
        text += f" The first {_MOST_ROWS} of {len(rows)} rows; the NetCDF file has all."
    return Card(text, table=pd.DataFrame(rows[:_MOST_ROWS]), is_wide=True)


def _maps(found: _Product, lead: str) -> list[Card]:
    """Maps of all periods, and of their differences from the mean."""
    names, shares = found.class_names, found.map("fraction")
    # One scale for each class, so that periods can be compared.
    limits = [maps.upper_limit(shares[:, c]) for c in range(len(names))]
    title = "Share of the observed area that each pattern covers"
    highest = f"{_highest(found)} {lead}"
    if len(shares) == 1:
        title += f": {found.labels[0]}"
        caption = f"{title}. {_HATCHED.capitalize()}. {highest}"
        picture = functools.partial(
            maps.maps, *found.edges, shares[0], names, title, limits, found.colors, found.coastlines
        )
        return [Card(caption, "maps", picture, is_wide=True)]
    caption = f"{title}, by {found.by}. A pattern has one scale in all maps; {_HATCHED}. {highest}"
    draw_rows = functools.partial(
        maps.period_maps,
        *found.edges,
        class_names=names,
        colors=found.colors,
        coastlines=found.coastlines,
    )
    rows = functools.partial(draw_rows, title=title, limits=limits)
    cards = list(_pages(found.labels, "maps", caption, rows, shares))
    if "fraction_lower" not in found.variables or len(shares) > _MOST_DIFFERENCES:
        return cards
    ends = (found.map(f"fraction_{end}") for end in ("lower", "upper"))
    difference, lower, upper = bootstrap.differences(shares, *ends)
    limits = [maps.upper_limit(np.abs(difference[:, c])) for c in range(len(names))]
    title = f"Difference from the mean of all periods, by {found.by}"
    caption = (
        f"{title}, in percentage points of the area. Dotted: zero is within the 95 % interval, or "
        f"there is none; {_HATCHED}."
    )
    # A pattern that never occurs in a cell has no uncertain difference.
    uncertain = (np.nan_to_num(difference) != 0) & ~((lower > 0) | (upper < 0))
    rows = functools.partial(draw_rows, title=title, limits=limits)
    return [*cards, *_pages(found.labels, "differences", caption, rows, difference, uncertain)]


def _pages(
    labels: Sequence[str],
    name: str,
    caption: str,
    draw_rows: Callable[..., Any],
    values: np.ndarray,
    uncertain: np.ndarray | None = None,
) -> Iterator[Card]:
    """Cards with maps of a few periods each, drawn by `maps.period_maps`."""
    for start in range(0, len(labels), _ON_A_PAGE):
        some = slice(start, start + _ON_A_PAGE)
        dotted = None if uncertain is None else uncertain[some]
        picture = functools.partial(draw_rows, values[some], labels[some], uncertain=dotted)
        page = "" if len(labels) <= _ON_A_PAGE else f"_{start // _ON_A_PAGE + 1}"
        text = f"{caption} From top to bottom: {', '.join(labels[some])}."
        yield Card(text, name + page, picture, is_wide=True)


def _highest(found: _Product) -> str:
    """The highest mean of each class over the grid, and its period."""
    means = np.nan_to_num(found.region_means[0][:, 0])
    periods = [found.labels[t] for t in means.argmax(axis=0)]
    some = ", ".join(
        f"{name} {percent(mean)}" + (f" ({period})" if len(means) > 1 else "")
        for name, mean, period in zip(found.class_names, means.max(axis=0), periods)
    )
    return f"{'Highest means' if len(means) > 1 else 'Means'}: {some}."


def _over_time(found: _Product, days: series.Series) -> list[Card]:
    """Hovmoeller diagram; and the seasonal or diurnal cycle, or the series, of each region."""
    names, palette, (lon_edges, _) = found.class_names, found.colors, found.edges
    title = "Longitude over time, mean over latitude"
    by_longitude = days.by_longitude[..., found.columns]
    picture = functools.partial(
        draw.hovmoeller, lon_edges, days.times, by_longitude, names, title, palette
    )
    text = f"{title} (Hovmöller diagram); {_HATCHED}."
    cards = []
    if np.isfinite(by_longitude).any(axis=(0, 2)).mean() >= _LEAST_OBSERVED:
        cards.append(Card(text, "hovmoeller", picture, is_wide=True))
    name, heading = _CHARTS.get(found.by, ("seasonal_cycle", "Seasonal cycle"))
    for r, region in enumerate(found.region_names):
        if name == "seasonal_cycle":
            labels, values = days.months, [*days.cycles[region]]
        else:
            labels = tuple(label.removesuffix(" UTC") for label in found.labels)
            values = [x[:, r] for x in found.region_means]
        if len(labels) < 2:
            continue
        suffix, title = "", heading
        if region != "all":
            suffix, title = f"_{region}", f"{heading}: {region}"
        picture = functools.partial(draw.cycle, labels, *values, names, title, palette)
        text = f"{title}. Means over the region, with 95 % intervals."
        cards.append(Card(text, name + suffix, picture))
    return cards


def _together(found: _Product, days: series.Series, has_classless: bool) -> list[Card]:
    """Charts of co-occurring patterns, and of the observed share of each cell."""
    cards = []
    if has_classless:
        title = "Patterns that share an area"
        picture = functools.partial(draw.co_occurrence, days.shared, found.class_names, title)
        text = f"{title}: share of the area of the row's pattern that the column's covers as well."
        cards.append(Card(text, "co_occurrence", picture))
    seen = days.coverage[np.newaxis, found.rows][..., found.columns]
    if np.ptp(seen) > 1e-6:
        title = "Mean share of a cell that was observed"
        picture = functools.partial(
            maps.maps, *found.edges, seen, [""], title, coastlines=found.coastlines
        )
        cards.append(Card(f"{title}, over all days.", "coverage", picture))
    return cards
