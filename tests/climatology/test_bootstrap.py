"""The block bootstrap; true means of simulated weather are the oracle."""

import numpy as np
import pytest

from clouds_tf.climatology import bootstrap


def _weather(memory, num_series, num_days=360, seed=0):
    """Series of an autoregressive process of variance 1 and mean 0: [num_days, num_series]."""
    rng = np.random.default_rng(seed)
    values = np.zeros((num_days, num_series))
    values[0] = rng.normal(size=num_series)
    for i in range(1, num_days):
        noise = rng.normal(size=num_series) * np.sqrt(1 - memory**2)
        values[i] = memory * values[i - 1] + noise
    return values


def _dates(number, start="2017-01-01"):
    return [str(day) for day in np.datetime64(start) + np.arange(number)]


@pytest.mark.slow
@pytest.mark.parametrize("memory, least", [(0, 0.88), (0.5, 0.86), (0.8, 0.8)])
def test_about_95_of_100_intervals_hold_the_true_mean(memory, least):
    held = single = 0
    series = _weather(memory, 200)
    for values in series.T:
        one = np.ones((len(values), 1))
        shares = values[:, np.newaxis]
        draws = bootstrap.draw(_dates(len(values)), shares, 200, 0)
        _, (lower,), (upper,) = bootstrap.interval(shares, one, draws)
        held += lower <= 0 <= upper
        width = 1.96 * values.std() / np.sqrt(len(values))  # of days that are independent
        single += abs(values.mean()) <= width
    assert held / 200 >= least and (memory < 0.5 or held > single + 10)


def test_blocks_grow_with_the_memory_of_the_weather():
    lengths = [
        np.mean([bootstrap.block_length(x[:, np.newaxis]) for x in _weather(m, 20).T])
        for m in (0, 0.5, 0.8, 0.95)
    ]
    assert lengths == sorted(lengths) and lengths[0] < 12 and lengths[-1] > 20
    assert bootstrap.block_length(np.full((30, 2), np.nan)) == 4  # the cube root
    assert bootstrap.block_length(np.ones((1, 1))) == 1


def test_every_day_is_equally_likely_and_blocks_hang_together():
    dates, shares = _dates(40), np.random.default_rng(0).random((40, 1))
    draws = bootstrap.draw(dates, shares, 2000, 0)
    np.testing.assert_allclose(draws.counts.mean(axis=0), 1, atol=0.12)
    assert (draws.counts.sum(axis=1) == 40).all()
    neighbours = np.corrcoef(draws.counts[:, 10], draws.counts[:, 11])[0, 1]
    assert neighbours > 0.5


def test_two_blocks_are_needed():
    assert bootstrap.draw(_dates(1), np.ones((1, 1)), 9, 0) is None
    assert bootstrap.draw(_dates(3), np.ones((3, 1)), 9, 0) is None  # blocks of two days
    assert bootstrap.draw(_dates(4), np.ones((4, 1)), 9, 0) is not None
    assert bootstrap.draw(_dates(40), np.ones((40, 1)), 0, 0) is None


def test_ten_years_are_drawn_as_years():
    dates = [f"{year}-{month}-15" for year in range(2007, 2017) for month in ("01", "02", "12")]
    draws = bootstrap.draw(dates, np.ones((30, 1)), 50, 0)
    assert draws.days == 365
    # The winter begins in the December before: 2007-12 goes with 2008-01 and 2008-02.
    np.testing.assert_array_equal(draws.counts[:, 2], draws.counts[:, 3])
    np.testing.assert_array_equal(draws.counts[:, 2], draws.counts[:, 4])
    assert not draws.defined(np.array(2), np.array(4)) and draws.defined(np.array(1), np.array(4))


def test_quantiles_are_those_of_numpy():
    values = np.random.default_rng(0).random((3, 4, 31))
    values[0, 0, 5:] = np.nan
    values[1, 2, ::2] = np.nan
    lower, upper = bootstrap.quantiles(values)
    expected = np.nanpercentile(values, [2.5, 97.5], axis=-1)
    np.testing.assert_allclose([lower, upper], expected, rtol=1e-12)
