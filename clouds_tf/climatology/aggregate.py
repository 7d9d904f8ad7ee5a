"""Means of days over months, seasons, years or all days, with bootstrap intervals.

Days are read one after the other and in the order of their dates, so that memory does not grow
with their number and the result does not depend on the order in which they came.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from clouds_tf.climatology.days import DayStore
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.netcdf import EPOCH

BY = ("day", "month", "season", "year", "all")
SEASONS = ("DJF", "MAM", "JJA", "SON")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
QUANTILES = (0.025, 0.975)
_CHUNK = 32  # days that are multiplied at once
_SUMS_BYTES = 2**28  # of resampled sums held while all days are read once
_BLOCK_BYTES = 2**24  # of resampled sums in one matrix product


@dataclasses.dataclass(frozen=True)
class Period:
    """A period and its days.

    Attributes:
        label: such as "2017-01", "2017-DJF", "DJF" or "2007 to 2017".
        dates: dates of the days that are there, sorted.
        bounds: first day, and the day after the last, in days since 1970-01-01.
        middle: time that stands for the period, in days since 1970-01-01; for the same month or
            season of several years its middle in the first of all years.
    """

    label: str
    dates: tuple[str, ...]
    bounds: tuple[int, int]
    middle: float


@dataclasses.dataclass(frozen=True)
class PeriodMeans:
    """Means over the n days of a period, for C classes, [h, w] cells and R regions.

    Intervals (lower, upper) hold 95 % of the means of n days drawn with replacement; they are NaN
    where there are fewer than two days.

    Attributes:
        fraction, lower, upper: float32 [C, h, w], mean share of a cell that the class covers,
            weighted by coverage; NaN where nothing was observed.
        unclassified: float32 [h, w].
        coverage: float32 [h, w], mean share of a cell that was observed.
        num_days: int32 [h, w], days on which any of the cell was observed.
        shared: float64 [C, C], share of the observed area that two classes both cover.
        region_fraction, region_lower, region_upper: float64 [R, C], means over regions, weighted by
            the true area of the cells (cosine of latitude) and by coverage.
    """

    fraction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    unclassified: np.ndarray
    coverage: np.ndarray
    num_days: np.ndarray
    shared: np.ndarray
    region_fraction: np.ndarray
    region_lower: np.ndarray
    region_upper: np.ndarray


def periods(dates: Sequence[str], by: str, across_years: bool = True) -> list[Period]:
    """Groups days by periods.

    Args:
        dates: dates such as "2017-01-31", in any order.
        by: one of BY.
        across_years: with "month" and "season", one period for the same month or season of all
            years; otherwise one for each year. The winter of a year begins in the December before.

    Returns:
        The periods that have days, in order of time.
    """
    if by not in BY:
        raise ValueError(f"by: got {by!r}, expected one of {', '.join(BY)}")
    folded = across_years and by in ("month", "season")
    groups: dict[tuple[int, int], list[str]] = {}
    for date in sorted(dates):
        year, month = int(date[:4]), int(date[5:7])
        # Months are counted from the December that begins a winter.
        count = 12 * year + month
        key = {
            "day": (year, (datetime.date.fromisoformat(date) - EPOCH).days),
            "month": (year, month - 1),
            "season": (count // 12, count % 12 // 3),
            "year": (year, 0),
            "all": (0, 0),
        }[by]
        groups.setdefault((0, key[1]) if folded else key, []).append(date)
    first_year = min(dates, default="")[:4] if folded else None
    return [
        _period(by, first_year, number, tuple(members))
        for (_, number), members in sorted(groups.items())
    ]


def _period(by: str, first_year: str | None, number: int, dates: tuple[str, ...]) -> Period:
    """A period of these days; with first_year it is the same month or season of all years."""
    starts, ends = zip(*(_bounds(by, date) for date in (dates[0], dates[-1])))
    bounds = ((starts[0] - EPOCH).days, (ends[1] - EPOCH).days)
    year = dates[0][:4]
    if by == "month":
        label = MONTHS[number] if first_year else dates[0][:7]
    elif by == "season":
        label = SEASONS[number]
        if not first_year:
            label = f"{starts[0].year + (starts[0].month == 12)}-{label}"
    elif by == "all":
        label = year if year == dates[-1][:4] else f"{year} to {dates[-1][:4]}"
    else:
        label = dates[0] if by == "day" else year
    middle = sum(bounds) / 2
    if first_year:
        month = 1 + (number if by == "month" else 3 * number)  # January lies in season 0
        start, end = _bounds(by, f"{first_year}-{month:02}-01")
        middle = ((start - EPOCH).days + (end - EPOCH).days) / 2
    return Period(label, dates, bounds, middle)


def _bounds(by: str, date: str) -> tuple[datetime.date, datetime.date]:
    """First day of the period that a date lies in, and the day after the last."""
    day = datetime.date.fromisoformat(date)
    if by in ("day", "all"):
        return day, day + datetime.timedelta(1)
    if by == "year":
        return day.replace(month=1, day=1), datetime.date(day.year + 1, 1, 1)
    length = 1 if by == "month" else 3
    first = 12 * day.year + day.month - 1
    first -= (first + 1) % length  # seasons begin with December, month 11
    return _month(first), _month(first + length)


def _month(count: int) -> datetime.date:
    return datetime.date(count // 12, count % 12 + 1, 1)


def means(
    store: DayStore,
    period: Period,
    regions: Mapping[str, Extent],
    num_resamples: int = 200,
    seed: int = 0,
    on_day: Callable[[], None] = lambda: None,
) -> PeriodMeans:
    """Means over a period.

    The bootstrap draws days with replacement (Efron, "Bootstrap methods: another look at the
    jackknife", 1979), the same days for all cells, so that neighbouring cells stay comparable.
    Days of one weather are alike, which it does not know: the intervals are somewhat too narrow.

    Args:
        store: the days.
        period: whose days are read, twice or more with intervals.
        regions: name -> (lon_min, lat_min, lon_max, lat_max) of regional means.
        num_resamples: how often days are drawn; 0 for no intervals.
        seed: of the draws.
        on_day: called after each day of the first reading.
    """
    grid, dates = store.settings.grid, period.dates
    weights = [grid.area_in(extent) for extent in regions.values()]
    sums = _sum_days(store, dates, np.reshape(weights, (len(regions), -1)), on_day)
    seen = np.where(sums.coverage > 0, sums.coverage, np.nan)
    lower, upper = np.full((2, *sums.fraction.shape), np.nan, np.float32)
    ends = np.full((2, len(regions), len(sums.fraction)), np.nan)
    draws = draw(period, num_resamples, seed)
    if draws is not None:
        lower, upper = _intervals(store, dates, draws, sums.fraction, sums.coverage)
        drawn = (np.einsum("bn,nrc->rcb", draws, x) for x in (sums.covered_in, sums.observed_in))
        ends = np.stack(quantiles(divide(*drawn)))
    with np.errstate(invalid="ignore"):
        shared = sums.shared / sums.observed
    return PeriodMeans(
        fraction=(sums.fraction / seen).astype(np.float32),
        lower=lower,
        upper=upper,
        unclassified=(sums.unclassified / seen).astype(np.float32),
        coverage=(sums.coverage / max(len(dates), 1)).astype(np.float32),
        num_days=sums.num_days,
        shared=shared,
        region_fraction=divide(sums.covered_in.sum(axis=0), sums.observed_in.sum(axis=0)),
        region_lower=ends[0],
        region_upper=ends[1],
    )


def draw(period: Period, num_resamples: int, seed: int) -> np.ndarray | None:
    """How often each of the n days of a period is drawn: float32 [num_resamples, n].

    None where no interval can be had: less than two days, or no draws.
    """
    number = len(period.dates)
    if number < 2 or not num_resamples:
        return None
    # Each period has draws of its own, which do not depend on the other periods.
    rng = np.random.default_rng([seed, period.bounds[0] + 2**31])
    chances = np.full(number, 1 / number)
    return rng.multinomial(number, chances, num_resamples).astype(np.float32)


@dataclasses.dataclass
class _Sums:
    """Sums over days, weighted by coverage; and of each of n days, sums over R regions."""

    fraction: np.ndarray  # [C, h, w]
    unclassified: np.ndarray  # [h, w]
    coverage: np.ndarray  # [h, w]
    num_days: np.ndarray  # [h, w]
    shared: np.ndarray  # [C, C], weighted by the observed area
    observed: float  # area
    covered_in: np.ndarray  # [n, R, C]
    observed_in: np.ndarray  # [n, R, 1]


def _sum_days(
    store: DayStore, dates: Sequence[str], area_weights: np.ndarray, on_day: Callable[[], None]
) -> _Sums:
    """Adds up days; area_weights are those of the regions, [R, h * w]."""
    number, grid = len(store.settings.class_names), store.settings.grid
    num_regions = len(area_weights)
    sums = _Sums(
        fraction=np.zeros((number, *grid.shape)),
        unclassified=np.zeros(grid.shape),
        coverage=np.zeros(grid.shape),
        num_days=np.zeros(grid.shape, np.int32),
        shared=np.zeros((number, number)),
        observed=0.0,
        covered_in=np.zeros((len(dates), num_regions, number)),
        observed_in=np.zeros((len(dates), num_regions, 1)),
    )
    for i, date in enumerate(dates):
        day = store.read(date)
        coverage = day.coverage.astype(np.float64)
        weighted = day.fraction * coverage
        sums.fraction += weighted
        sums.unclassified += day.unclassified * coverage
        sums.coverage += coverage
        sums.num_days += coverage > 0
        area = np.sum(grid.areas * coverage)
        sums.shared += day.shared * area
        sums.observed += area
        sums.covered_in[i] = area_weights @ weighted.reshape(number, -1).T
        sums.observed_in[i, :, 0] = area_weights @ coverage.ravel()
        on_day()
    return sums


def divide(covered: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Shares, NaN where nothing was observed."""
    gaps = np.full(np.broadcast(covered, observed).shape, np.nan, covered.dtype)
    return np.divide(covered, observed, out=gaps, where=observed > 0)


def _intervals(
    store: DayStore,
    dates: Sequence[str],
    draws: np.ndarray,
    sums: np.ndarray,
    coverage: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the intervals of all cells: float32 [C, h, w]."""
    ends = np.zeros((2, *sums.shape), np.float32)
    ends[:, :, coverage == 0] = np.nan
    flat = ends.reshape(2, -1)
    # Where a class never is, no draw of days finds it.
    present = np.flatnonzero(sums)
    for part in _slices(len(present), _SUMS_BYTES // (4 * len(draws))):
        places = present[part]
        cells, of_place = np.unique(places % coverage.size, return_inverse=True)
        blocks = _slices(len(places), _BLOCK_BYTES // (4 * len(draws)))
        covered = np.zeros((len(places), len(draws)), np.float32)
        observed = np.zeros((len(cells), len(draws)), np.float32)
        for counts, fractions, coverages in _chunks(store, dates, draws, places, cells):
            observed += coverages.T @ counts.T
            for block in blocks:
                weighted = fractions[:, block] * coverages[:, of_place[block]]
                covered[block] += weighted.T @ counts.T
        for block in blocks:
            shares = divide(covered[block], observed[of_place[block]])
            flat[:, places[block]] = quantiles(shares)
    return ends[0], ends[1]


def _slices(number: int, size: int) -> list[slice]:
    """Slices of at most `size` values that together cover `number` values."""
    size = max(size, 1)
    return [slice(start, start + size) for start in range(0, number, size)]


def _chunks(
    store: DayStore, dates: Sequence[str], draws: np.ndarray, places: np.ndarray, cells: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields of a few days: draws [B, d], fractions [d, places], coverages [d, cells]."""
    for start in range(0, len(dates), _CHUNK):
        members = [store.read(date) for date in dates[start : start + _CHUNK]]
        yield (
            draws[:, start : start + _CHUNK],
            np.stack([day.fraction.ravel()[places] for day in members]),
            np.stack([day.coverage.ravel()[cells] for day in members]),
        )


def quantiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """QUANTILES over the last axis, by linear interpolation, as if there were no NaN.

    numpy.nanpercentile gives the same and takes a hundred times as long.
    """
    values = np.sort(values, axis=-1)  # NaN last
    number = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    ends = []
    for q in QUANTILES:
        place = q * np.maximum(number - 1, 0)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(number - 1, 0))
        below, above = (np.take_along_axis(values, i, axis=-1) for i in (low, high))
        ends.append((below + (above - below) * (place - low).astype(values.dtype))[..., 0])
    return ends[0], ends[1]
