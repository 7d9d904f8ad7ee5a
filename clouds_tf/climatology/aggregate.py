"""Means of days over months, seasons, years or all days, with bootstrap intervals.

Days are read one after the other, sorted by date, so that memory does not grow with their number
and the result does not depend on the order in which they were added.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf.climatology import bootstrap, days
from clouds_tf.climatology.bootstrap import Draws
from clouds_tf.climatology.days import STEPS, DayFields, DayStore
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.netcdf import EPOCH
from clouds_tf.settings import CheckedSettings, setting

_LAYOUTS = ("cf", "c3ontext")
_BY = ("scene", "hour", "day", "month", "season", "year", "all")
_FOLDED = {"hour": "days", "month": "years", "season": "years"}  # unit in which it recurs
_FREQUENCIES = {"month": "M", "season": "Q-NOV", "year": "Y"}  # of pandas; winter: December on
_SEASONS = ("DJF", "MAM", "JJA", "SON")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CHUNK = 32  # days in one matrix product
_SUMS_BYTES = 2**28  # of resampled sums in memory during one pass over the days
_BLOCK_BYTES = 2**24  # of resampled sums in one matrix product


@dataclasses.dataclass(frozen=True)
class Aggregation(CheckedSettings):
    """Periods, regions and layout of a climatology.

    Attributes:
        across_years: whether months and seasons are averaged over all years; hours are always
            averaged over all days.
        regions: name -> extent of regional means.
    """

    by: str = setting("month", "Period of the means.", choices=_BY)
    across_years: bool = True
    regions: Mapping[str, Extent] = dataclasses.field(default_factory=dict)
    layout: str = setting(
        "cf",
        "Layout of the output: cf, or c3ontext with the only variable freq(date, ...).",
        choices=_LAYOUTS,
    )
    num_resamples: int = setting(
        200, "Number of bootstrap resamples for 95 % intervals; 0 disables them.", min=0
    )
    seed: int = setting(0, "Seed of the bootstrap.", min=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "all" in self.regions:
            raise ValueError("regions: the name all is reserved for the whole grid; use another")

    @property
    def step(self) -> str:
        """Time span of one file in the folder of days: one of `days.STEPS`."""
        return self.by if self.by in STEPS else "day"


def folded_over(by: str, across_years: bool) -> str:
    """Unit in which a period recurs: "days", "years", or "" if it is a single interval."""
    over = _FOLDED.get(by, "")
    return over if across_years or over == "days" else ""


@dataclasses.dataclass(frozen=True)
class Period:
    """A period and its days.

    Attributes:
        label: such as "2017-01", "2017-DJF", "DJF", "2007 to 2017" or "14 UTC".
        dates: dates of the existing days, or keys of hours or moments, sorted.
        bounds: beginning and end, in days since 1970-01-01.
        middle: middle of the period, in days since 1970-01-01; if it recurs in several days or
            years, of the first one.
    """

    label: str
    dates: tuple[str, ...]
    bounds: tuple[float, float]
    middle: float


@dataclasses.dataclass(frozen=True)
class PeriodMeans:
    """Means over the n days of a period, for C classes, [h, w] cells and R regions.

    Intervals (_lower, _upper) are 95 % intervals of a block bootstrap; they are NaN where less than
    two blocks were observed.

    Attributes:
        fraction, fraction_lower, fraction_upper: float32 [C, h, w], mean share of a cell that the
            class covers, weighted by coverage; NaN where nothing was observed.
        unclassified: float32 [h, w].
        coverage: float32 [h, w], mean share of a cell that was observed.
        num_days: int32 [h, w], number of days on which part of the cell was observed.
        co_occurrence: float64 [C, C], share of the observed area that two classes both cover.
        region_fraction, region_fraction_lower, region_fraction_upper: float64 [R, C], means over
            regions, weighted by the true area of the cells and by coverage.
        region_coverage: float64 [R], mean share of the area of a region that was observed.
        block_days: length of the blocks in days; 0 if there are no intervals.
    """

    fraction: np.ndarray
    fraction_lower: np.ndarray
    fraction_upper: np.ndarray
    unclassified: np.ndarray
    coverage: np.ndarray
    num_days: np.ndarray
    co_occurrence: np.ndarray
    region_fraction: np.ndarray
    region_fraction_lower: np.ndarray
    region_fraction_upper: np.ndarray
    region_coverage: np.ndarray
    block_days: int


def periods(dates: Sequence[str], by: str, across_years: bool = True) -> list[Period]:
    """Groups days by periods, sorted by their (first) middles.

    Args:
        dates: dates such as "2017-01-31", in any order; for "hour" and "scene", keys of
            `days.key_of`.
        by: a period, see `Aggregation`.
        across_years: for "month" and "season", one period for the same month or season of all
            years; otherwise one per year. The winter of a year begins in December of the previous
            one.
    """
    if by not in _BY:
        raise ValueError(f"by: got {by!r}, expected one of {', '.join(_BY)}")
    folded = folded_over(by, across_years) != ""
    groups: dict[Any, list[str]] = {}
    for date in sorted(dates):
        groups.setdefault(_group(by, folded, date), []).append(date)
    found = [_period(by, folded, tuple(members)) for members in groups.values()]
    return sorted(found, key=lambda period: period.middle)


def _group(by: str, folded: bool, date: str) -> Any:
    """Common key of the days, hours or moments of one period."""
    if by == "all":
        return by
    if by == "hour":
        return date[11:13]
    if by not in _FREQUENCIES:
        return date
    period = pd.Period(date[:10], _FREQUENCIES[by])
    if not folded:
        return period
    return period.quarter if by == "season" else period.month


def _period(by: str, folded: bool, dates: tuple[str, ...]) -> Period:
    """A period of these days; folded, it is a recurring hour, month or season."""
    (start, first_end), (_, end) = (_bounds(by, date) for date in (dates[0], dates[-1]))
    month, years = pd.Period(dates[0][:10], "M"), (dates[0][:4], dates[-1][:4])
    season = pd.Period(dates[0][:10], _FREQUENCIES["season"])
    label = {
        "scene": str(days.time_of(dates[0])),
        "hour": f"{dates[0][11:13]} UTC",
        "day": dates[0],
        "month": MONTHS[month.month - 1] if folded else str(month),
        "season": _SEASONS[season.quarter - 1],
        "year": years[0],
        "all": years[0] if years[0] == years[1] else " to ".join(years),
    }[by]
    if by == "season" and not folded:
        label = f"{season.qyear}-{label}"
    return Period(label, dates, (start, end), (start + (first_end if folded else end)) / 2)


def _bounds(by: str, date: str) -> tuple[float, float]:
    """Beginning and end of the period that contains a day, hour or moment."""
    if by not in _FREQUENCIES:
        return days.span(date)
    period = pd.Period(date[:10], _FREQUENCIES[by])
    start, end = ((x.start_time.date() - EPOCH).days for x in (period, period + 1))
    return float(start), float(end)


def means(
    store: DayStore,
    period: Period,
    regions: Mapping[str, Extent],
    num_resamples: int = 200,
    seed: int = 0,
    on_day: Callable[[DayFields], None] = lambda day: None,
) -> PeriodMeans:
    """Means over a period, with intervals by `bootstrap.draw`.

    The same days are drawn for all cells, so that neighbouring cells stay comparable.

    Args:
        store: the days.
        period: the period; with intervals, its days are read twice or more.
        regions: name -> (lon_min, lat_min, lon_max, lat_max) of regional means.
        num_resamples: number of bootstrap resamples; 0 for no intervals.
        seed: seed of the bootstrap.
        on_day: called with each day when it is first read.
    """
    dates = period.dates
    sums = sum_days(store, dates, regions, on_day)
    seen = np.where(sums.coverage > 0, sums.coverage, np.nan)
    draws, regional = bootstrap.of_regions(
        dates, sums.covered_in, sums.observed_in, num_resamples, seed
    )
    lower, upper = np.full((2, *sums.fraction.shape), np.nan, np.float32)
    if draws is not None:
        lower, upper = _intervals(store, dates, draws, sums)
    with np.errstate(invalid="ignore"):
        shared = sums.shared / sums.observed
    return PeriodMeans(
        fraction=(sums.fraction / seen).astype(np.float32),
        fraction_lower=lower,
        fraction_upper=upper,
        unclassified=(sums.unclassified / seen).astype(np.float32),
        coverage=(sums.coverage / max(len(dates), 1)).astype(np.float32),
        num_days=sums.num_days,
        co_occurrence=shared,
        region_fraction=regional[0],
        region_fraction_lower=regional[1],
        region_fraction_upper=regional[2],
        region_coverage=np.minimum(sums.observed_in[..., 0].mean(axis=0) / sums.region_areas, 1),
        block_days=draws.days if draws else 0,
    )


@dataclasses.dataclass
class Sums:
    """Sums over days, weighted by coverage; and sums over R regions for each of n days."""

    fraction: np.ndarray  # [C, h, w]
    unclassified: np.ndarray  # [h, w]
    coverage: np.ndarray  # [h, w]
    num_days: np.ndarray  # [h, w]
    first: np.ndarray  # [h, w], the day on which a cell was first observed, as an index
    last: np.ndarray  # [h, w]
    shared: np.ndarray  # [C, C], weighted by the observed area
    observed: float  # area
    covered_in: np.ndarray  # [n, R, C]
    observed_in: np.ndarray  # [n, R, 1]
    region_areas: np.ndarray  # of the regions, in km2, [R]


def sum_days(
    store: DayStore,
    dates: Sequence[str],
    regions: Mapping[str, Extent],
    on_day: Callable[[DayFields], None],
) -> Sums:
    """Adds up days; `on_day` is called with each."""
    number, grid = len(store.settings.class_names), store.settings.grid
    num_regions = len(regions)
    weights = [grid.area_in(extent) for extent in regions.values()]
    area_weights = np.reshape(weights, (num_regions, -1))
    sums = Sums(
        fraction=np.zeros((number, *grid.shape)),
        unclassified=np.zeros(grid.shape),
        coverage=np.zeros(grid.shape),
        num_days=np.zeros(grid.shape, np.int32),
        first=np.full(grid.shape, len(dates), np.int32),
        last=np.zeros(grid.shape, np.int32),
        shared=np.zeros((number, number)),
        observed=0.0,
        covered_in=np.zeros((len(dates), num_regions, number)),
        observed_in=np.zeros((len(dates), num_regions, 1)),
        region_areas=area_weights.sum(axis=1),
    )
    for i, date in enumerate(dates):
        day = store.read(date)
        coverage = day.coverage.astype(np.float64)
        weighted = day.fraction * coverage
        sums.fraction += weighted
        sums.unclassified += day.unclassified * coverage
        sums.coverage += coverage
        sums.num_days += coverage > 0
        sums.first[coverage > 0] = np.minimum(sums.first[coverage > 0], i)
        sums.last[coverage > 0] = i
        area = np.sum(grid.areas * coverage)
        sums.shared += day.shared * area
        sums.observed += area
        sums.covered_in[i] = area_weights @ weighted.reshape(number, -1).T
        sums.observed_in[i, :, 0] = area_weights @ coverage.ravel()
        on_day(day)
    return sums


def _intervals(
    store: DayStore, dates: Sequence[str], draws: Draws, sums: Sums
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the intervals of all cells: float32 [C, h, w]."""
    coverage, counts_of_days = sums.coverage, draws.counts
    number = len(counts_of_days)
    enough = draws.defined(np.minimum(sums.first, len(dates) - 1), sums.last)
    ends = np.zeros((2, *sums.fraction.shape), np.float32)
    ends[:, :, ~enough] = np.nan
    flat = ends.reshape(2, -1)
    # Cells without the class have an interval of zeros, whatever days are drawn.
    present = np.flatnonzero((sums.fraction > 0) & enough)
    for part in _slices(len(present), _SUMS_BYTES // (4 * number)):
        places = present[part]
        cells, of_place = np.unique(places % coverage.size, return_inverse=True)
        blocks = _slices(len(places), _BLOCK_BYTES // (4 * number))
        covered = np.zeros((len(places), number), np.float32)
        observed = np.zeros((len(cells), number), np.float32)
        for counts, fractions, coverages in _chunks(store, dates, counts_of_days, places, cells):
            observed += coverages.T @ counts.T
            for block in blocks:
                weighted = fractions[:, block] * coverages[:, of_place[block]]
                covered[block] += weighted.T @ counts.T
        for block in blocks:
            shares = bootstrap.divide(covered[block], observed[of_place[block]])
            flat[:, places[block]] = bootstrap.quantiles(shares)
    return ends[0], ends[1]


def _slices(number: int, size: int) -> list[slice]:
    """Divides `number` values into slices of at most `size`."""
    size = max(size, 1)
    return [slice(start, start + size) for start in range(0, number, size)]


def _chunks(
    store: DayStore, dates: Sequence[str], draws: np.ndarray, places: np.ndarray, cells: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields draws [B, d], fractions [d, places] and coverages [d, cells] of d days at a time."""
    for start in range(0, len(dates), _CHUNK):
        members = [store.read(date) for date in dates[start : start + _CHUNK]]
        yield (
            draws[:, start : start + _CHUNK],
            np.stack([day.fraction.ravel()[places] for day in members]),
            np.stack([day.coverage.ravel()[cells] for day in members]),
        )
