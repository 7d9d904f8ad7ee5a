"""Regional series of all days: the seasonal cycle, and longitude over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from clouds_tf.climatology import aggregate, bootstrap
from clouds_tf.climatology.days import DayFields, DayStore, time_of
from clouds_tf.geo.extent import Extent

_MONTHLY_FROM = 2 * 366  # days; shorter series have rows of five days


@dataclasses.dataclass(frozen=True)
class Series:
    """Daily values of regions for C classes, over all days of a store.

    Attributes:
        months: names of M months, in the order of the year.
        cycles: region -> mean shares of the months and the lower and upper ends of their 95 %
            intervals, [3, M, C].
        times: datetime64 [T + 1], edges of the rows of by_longitude: months, or five days.
        by_longitude: float64 [C, T, w], shares averaged over latitude, weighted by area and
            coverage; NaN where nothing was observed.
        shared: float64 [C, C], shares of the observed area that two classes both cover.
        coverage: float64 [h, w], mean share of a cell that was observed.
    """

    months: tuple[str, ...]
    cycles: dict[str, np.ndarray]
    times: np.ndarray
    by_longitude: np.ndarray
    shared: np.ndarray
    coverage: np.ndarray


def read(
    store: DayStore, regions: Mapping[str, Extent], num_resamples: int = 200, seed: int = 0
) -> Series:
    """Reads all days once.

    Args:
        store: the days, at least one.
        regions: name -> (lon_min, lat_min, lon_max, lat_max).
        num_resamples: number of bootstrap resamples for the intervals; 0 for none (NaN).
        seed: seed of the bootstrap.
    """
    grid, dates = store.settings.grid, store.dates()
    times = _rows(dates[0], dates[-1])
    covered_at = np.zeros((len(store.settings.class_names), len(times) - 1, grid.shape[1]))
    observed_at = np.zeros(covered_at.shape[1:])

    def add_longitudes(day: DayFields) -> None:
        seen = grid.areas * day.coverage
        row = np.searchsorted(times, time_of(day.date), side="right") - 1
        covered_at[:, row] += (day.fraction * seen).sum(axis=1)
        observed_at[row] += seen.sum(axis=0)

    sums = aggregate.sum_days(store, dates, regions, add_longitudes)
    months, parts = [], []
    index = {date: i for i, date in enumerate(dates)}
    periods = aggregate.periods(dates, "month")
    for period in sorted(periods, key=lambda period: aggregate.MONTHS.index(period.label)):
        members = [index[date] for date in period.dates]
        covered, observed = sums.covered_in[members], sums.observed_in[members]
        months.append(period.label)
        parts.append(bootstrap.of_regions(period.dates, covered, observed, num_resamples, seed)[1])
    cycles = dict(zip(regions, np.transpose(parts, (2, 1, 0, 3))))  # of [M, 3, R, C]
    by_longitude = bootstrap.divide(covered_at, observed_at)
    coverage = sums.coverage / len(dates)
    shared = sums.shared / sums.observed
    return Series(tuple(months), cycles, times, by_longitude, shared, coverage)


def _rows(first: str, last: str) -> np.ndarray:
    """Edges of months, or of five-day periods for less than two years."""
    start, end = (time_of(date).astype("datetime64[D]") for date in (first, last))
    if (end - start).astype(int) < _MONTHLY_FROM:
        return np.arange(start, end + 6, 5)  # the last edge is after the last day
    months = np.arange(start.astype("datetime64[M]"), end.astype("datetime64[M]") + 2)
    return months.astype("datetime64[D]")
