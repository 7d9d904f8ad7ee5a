"""Confidence intervals of means over autocorrelated days, by block bootstrap."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_QUANTILES = (0.025, 0.975)
_MIN_YEARS = 10  # with these or more, blocks are whole years
_YEAR = 365  # length of such a block, in days


@dataclasses.dataclass(frozen=True)
class Draws:
    """Bootstrap resamples of n days.

    Attributes:
        counts: float32 [num_resamples, n], how often each day is drawn.
        positions: int [n], positions of the days on a line, in the unit of `width`.
        width: length of a block on that line.
        days: length of a block in days.
    """

    counts: np.ndarray
    positions: np.ndarray
    width: int
    days: int

    def defined(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Whether the first to the last day of observations (indices) span two blocks."""
        return self.positions[last] - self.positions[first] >= self.width


def draw(dates: Sequence[str], shares: np.ndarray, num_resamples: int, seed: int) -> Draws | None:
    """Draws blocks of days with replacement.

    Consecutive days are correlated, so drawing single days would make intervals too narrow. Blocks
    continue from the last day to the first one, so that every day is equally likely (Politis and
    Romano, "A circular block-resampling procedure for stationary data", 1992). Their length follows
    from the autocorrelation of the shares; with ten years or more, blocks are years.

    Args:
        dates: the n days such as "2017-01-31", sorted.
        shares: float [n, k], k series that determine the length; NaN where nothing was observed.
        num_resamples: number of draws.

    Returns:
        Draws; None if there are less than two blocks, or no draws.
    """
    number = len(dates)
    # The winter of a year begins in December of the previous one.
    years = np.array([(12 * int(date[:4]) + int(date[5:7])) // 12 for date in dates], int)
    distinct, positions = np.unique(years, return_inverse=True)
    width, days = 1, _YEAR
    if len(distinct) < _MIN_YEARS:
        positions = np.arange(number)
        width = days = block_length(shares)
    if not num_resamples or number < 2 or positions[-1] + 1 < 2 * width:
        return None
    # The draws of a period do not depend on the other periods.
    first_day = int(np.datetime64(dates[0][:10], "D").astype(int))
    rng = np.random.default_rng([seed, first_day + 2**31])
    length = positions[-1] + 1
    starts = rng.integers(length, size=(num_resamples, -(-length // width)))
    drawn = (starts[..., np.newaxis] + np.arange(width)) % length
    drawn = drawn.reshape(num_resamples, -1)[:, :length]
    counts = np.zeros((num_resamples, length), np.float32)
    np.add.at(counts, (np.arange(num_resamples)[:, np.newaxis], drawn), 1)
    return Draws(counts[:, positions], positions, width, days)


def block_length(shares: np.ndarray) -> int:
    """Block length for the means of k series [n, k], 1 to n: the maximum over the series.

    After Politis and White ("Automatic block-length selection for the dependent bootstrap", 2004,
    with the correction by Patton, Politis and White, 2009), but at least the cube root of n, since
    short series underestimate their autocorrelation.
    """
    number = len(shares)
    least = int(np.ceil(number ** (1 / 3) - 1e-9))
    most = int(np.ceil(min(3 * np.sqrt(number), number / 3)))
    return max([least, *(min(_optimal_length(values), most) for values in shares.T)])


def _optimal_length(values: np.ndarray) -> int:
    number = len(values)
    present = np.isfinite(values)
    if present.sum() < 8 or np.ptp(values[present]) == 0:
        return 1
    deviations = np.where(present, values - values[present].mean(), 0)
    consecutive = max(5, int(np.sqrt(np.log10(number))))
    lags = min(int(np.ceil(np.sqrt(number))) + consecutive, number - 1)
    covariances = np.array(
        [deviations[: number - lag] @ deviations[lag:] for lag in range(lags + 1)]
    )
    correlations = covariances / covariances[0]
    small = np.abs(correlations[1:]) < 2 * np.sqrt(np.log10(number) / number)
    # The last lag before a given number of consecutive small autocorrelations.
    runs = [i for i in range(lags) if small[i : i + consecutive].all()]
    reach = min(2 * max(runs[0] if runs else lags, 1), lags)
    lag = np.arange(-reach, reach + 1)
    window = np.clip(2 * (1 - np.abs(lag) / reach), 0, 1)
    weighted = window * correlations[np.abs(lag)]
    spread = weighted.sum()
    if spread <= 0:
        return 1
    bias = (np.abs(lag) * weighted).sum()
    return int(np.ceil((1.5 * (bias / spread) ** 2 * number) ** (1 / 3)))


def divide(covered: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Divides covered by observed areas; NaN where nothing was observed."""
    gaps = np.full(np.broadcast(covered, observed).shape, np.nan, covered.dtype)
    return np.divide(covered, observed, out=gaps, where=observed > 0)


def quantiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 % and 97.5 % quantiles over the last axis, by linear interpolation, ignoring NaN.

    numpy.nanpercentile gives the same result, but takes a hundred times as long.
    """
    values = np.sort(values, axis=-1)  # NaN last
    number = np.sum(~np.isnan(values), axis=-1, keepdims=True)
    ends = []
    for q in _QUANTILES:
        place = q * np.maximum(number - 1, 0)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, np.maximum(number - 1, 0))
        below, above = (np.take_along_axis(values, i, axis=-1) for i in (low, high))
        ends.append((below + (above - below) * (place - low).astype(values.dtype))[..., 0])
    return ends[0], ends[1]


def interval(
    covered: np.ndarray, observed: np.ndarray, draws: Draws | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean share over days, with its interval.

    Args:
        covered: float64 [n, ..., C], covered area of each day.
        observed: float64 [n, ..., 1], observed area.
        draws: draws of the n days; None gives no interval (NaN).

    Returns:
        Mean, lower and upper end: float64 [..., C]; the ends NaN where less than two blocks were
        observed.
    """
    mean = divide(covered.sum(axis=0), observed.sum(axis=0))
    if draws is None:
        return mean, np.full(mean.shape, np.nan), np.full(mean.shape, np.nan)
    top, bottom = (np.tensordot(draws.counts, x, axes=1) for x in (covered, observed))
    ends = quantiles(np.moveaxis(divide(top, bottom), 0, -1))
    seen = observed > 0
    last = len(seen) - 1 - seen[::-1].argmax(axis=0)
    enough = draws.defined(seen.argmax(axis=0), last)
    lower, upper = (np.where(enough, end, np.nan) for end in ends)
    return mean, lower, upper


def of_regions(
    dates: Sequence[str],
    covered: np.ndarray,
    observed: np.ndarray,
    num_resamples: int,
    seed: int,
) -> tuple[Draws | None, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draws days in blocks that suit the shares of R regions; also returns means and intervals.

    Args:
        dates: the n days, sorted.
        covered: float64 [n, R, C], covered area of each day.
        observed: float64 [n, R, 1], observed area.
        num_resamples: number of draws.
    """
    shares = divide(covered, observed).reshape(len(dates), -1)
    draws = draw(dates, shares, num_resamples, seed)
    return draws, interval(covered, observed, draws)


def differences(
    mean: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of T periods from the mean of all of them, with their intervals.

    Periods are treated as independent, so the squared distances from the means to the ends of their
    intervals add up (Zou and Donner, "Construction of confidence limits about effect measures",
    Statistics in Medicine 27, 2008).

    Args:
        mean: [T, ...]; NaN is left out.
        lower: lower ends of the intervals, [T, ...].
        upper: upper ends.

    Returns:
        Differences, lower and upper ends: [T, ...]; the ends NaN where an interval is missing.
    """
    seen = np.isfinite(mean)
    number = np.maximum(seen.sum(axis=0), 1)
    difference = mean - np.where(seen, mean, 0).sum(axis=0) / number
    below, above = (np.where(seen, x, 0) ** 2 for x in (mean - lower, upper - mean))
    own, others = (1 - 1 / number) ** 2, 1 / number**2
    ends = (
        np.sqrt(own * one + others * (other.sum(axis=0) - other))
        for one, other in ((below, above), (above, below))
    )
    down, up = (np.where(seen, end, np.nan) for end in ends)
    return difference, difference - down, difference + up
