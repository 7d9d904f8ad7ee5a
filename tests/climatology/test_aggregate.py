"""Means and intervals; xarray's groupby and resample and plain loops are the oracles."""

import numpy as np
import pytest
import xarray

from clouds_tf.climatology import aggregate
from clouds_tf.climatology.days import DayFields, DayStore, Settings
from clouds_tf.geo.grid import Grid

GRID = Grid(10.0, (-20, 0, 20, 30))
REGIONS = {"all": GRID.extent, "part": (-5.0, 5.0, 12.0, 30.0)}


def _dates(start, end, step):
    return [str(date) for date in np.arange(start, end, step, dtype="datetime64[D]")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Days of three years, with gaps in every day and one cell that is never observed."""
    store = DayStore(str(tmp_path_factory.mktemp("days")), Settings(GRID, ("Fish", "Sugar")))
    store.prepare()
    rng = np.random.default_rng(0)
    for date in _dates("2015-11-20", "2018-02-10", 9):
        coverage = rng.choice(np.float32([0, 0.25, 1]), GRID.shape)
        coverage[0, 0] = 0
        fraction = rng.random((2, *GRID.shape), np.float32) * (coverage > 0)
        fraction[1, 1] = 0
        shared = rng.random((2, 2))
        store.write(
            DayFields(date, fraction, fraction[0] / 2, coverage, shared + shared.T), "x", "y"
        )
    return store


@pytest.fixture(scope="module")
def days(store):
    """The same days as one Dataset, with NaN where nothing was observed."""
    parts = [xarray.open_dataset(store.path(date)) for date in store.dates()]
    return xarray.concat(parts, "time", coords="minimal", compat="override", join="override")


def _weighted(days, group):
    """Means weighted by coverage of groups, by xarray: [time, class, lat, lon]."""
    number = (days["fraction"] * days["coverage"]).groupby(group).sum()
    weight = days["coverage"].groupby(group).sum()
    return (number / weight.where(weight > 0)).transpose(..., "class", "lat", "lon")


@pytest.mark.parametrize(
    "by, across_years, group",
    [
        ("month", True, "time.month"),
        ("season", True, "time.season"),
        ("year", True, "time.year"),
        ("year", False, "time.year"),
        ("day", True, "time"),
    ],
)
def test_means_are_those_of_xarray(store, days, by, across_years, group):
    expected = _weighted(days, group)
    if by == "season":
        expected = expected.sel(season=list(aggregate.SEASONS))
    groups = aggregate.periods(store.dates()[::-1], by, across_years)
    assert len(groups) == len(expected)
    for period, values in zip(groups, expected.values):
        found = aggregate.means(store, period, REGIONS, num_resamples=0)
        np.testing.assert_allclose(found.fraction, values, rtol=1e-5)
        assert np.isnan(found.fraction[:, 0, 0]).all()


@pytest.mark.parametrize("by, frequency", [("month", "MS"), ("season", "QS-DEC")])
def test_series_are_those_of_resample(store, days, by, frequency):
    numbers = (days["fraction"] * days["coverage"]).resample(time=frequency).sum()
    weights = days["coverage"].resample(time=frequency).sum()
    expected = numbers / weights.where(weights > 0)
    groups = aggregate.periods(store.dates(), by, across_years=False)
    starts = [np.datetime64(period.bounds[0], "D") for period in groups]
    assert starts == list(expected["time"].values.astype("datetime64[D]"))
    for period, i in zip(groups, range(len(groups))):
        found = aggregate.means(store, period, REGIONS, num_resamples=0).fraction
        np.testing.assert_allclose(found, expected[i].transpose("class", "lat", "lon"), rtol=1e-5)


def test_all_days_and_what_else_a_period_has(store, days):
    (period,) = aggregate.periods(store.dates(), "all")
    found = aggregate.means(store, period, REGIONS, num_resamples=0)
    np.testing.assert_allclose(found.coverage, days["coverage"].mean("time"), rtol=1e-6)
    np.testing.assert_array_equal(found.num_days, (days["coverage"] > 0).sum("time"))
    weighted = days["unclassified"].weighted(days["coverage"]).mean("time")
    np.testing.assert_allclose(found.unclassified, weighted, rtol=1e-5)
    area = (days["coverage"] * GRID.areas).sum(("lat", "lon"))
    shared = days["co_occurrence"].weighted(area).mean("time")
    np.testing.assert_allclose(found.shared, shared, rtol=1e-9)


def test_regional_means_weigh_cells_by_area_and_coverage(store, days):
    (period,) = aggregate.periods(store.dates(), "all")
    found = aggregate.means(store, period, REGIONS, num_resamples=0).region_fraction
    # The region cuts cells: step through it in boxes of 1 x 0.02 degrees.
    lat, lon = np.arange(5.01, 30, 0.02), np.arange(-4.5, 12)
    cosine = np.cos(np.radians(lat))
    rows, columns = (lat // 10).astype(int), ((lon + 20) // 10).astype(int)
    top, bottom = np.zeros(2), 0.0
    fraction, coverage = days["fraction"].fillna(0).values, days["coverage"].values
    for row, weight in zip(rows, cosine):
        seen = coverage[:, row, columns] * weight
        top += (fraction[:, :, row, columns] * seen[:, np.newaxis]).sum(axis=(0, 2))
        bottom += seen.sum()
    np.testing.assert_allclose(found[1], top / bottom, rtol=1e-4)


def test_intervals_are_those_of_a_plain_bootstrap(store):
    period = aggregate.periods(store.dates(), "season")[2]
    found = aggregate.means(store, period, REGIONS, num_resamples=50, seed=3)
    days = [store.read(date) for date in period.dates]
    rng = np.random.default_rng([3, period.bounds[0] + 2**31])
    draws = rng.multinomial(len(days), np.full(len(days), 1 / len(days)), 50)
    means, weights = [], [_part_weights(), GRID.areas][::-1]
    regional = []
    for draw in draws:
        chosen = [day for day, times in zip(days, draw) for _ in range(times)]
        top = sum(day.fraction * np.float64(day.coverage) for day in chosen)
        bottom = sum(np.float64(day.coverage) for day in chosen)
        with np.errstate(invalid="ignore"):
            means.append(top / bottom)
        regional.append(
            [(top * w).sum(axis=(1, 2)) / (bottom * w).sum() for w in weights]
        )
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        lower, upper = np.nanpercentile(means, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.lower, lower, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.upper, upper, rtol=1e-4, atol=1e-7)
    lower, upper = np.percentile(regional, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.region_lower, lower, rtol=1e-9)
    np.testing.assert_allclose(found.region_upper, upper, rtol=1e-9)


def _part_weights():
    west, south, east, north = REGIONS["part"]
    weights = np.zeros(GRID.shape)
    for i, j in np.ndindex(*GRID.shape):
        low, high = max(10 * i, south), min(10 * i + 10, north)
        left, right = max(-20 + 10 * j, west), min(-10 + 10 * j, east)
        if low < high and left < right:
            weights[i, j] = (right - left) * np.diff(np.sin(np.radians([low, high])))[0]
    return weights


def test_small_blocks_give_the_same(store, monkeypatch):
    period = aggregate.periods(store.dates(), "season")[0]
    whole = aggregate.means(store, period, REGIONS, num_resamples=20)
    monkeypatch.setattr(aggregate, "_SUMS_BYTES", 4 * 20 * 12)
    monkeypatch.setattr(aggregate, "_BLOCK_BYTES", 4 * 20 * 5)
    monkeypatch.setattr(aggregate, "_CHUNK", 3)
    parts = aggregate.means(store, period, REGIONS, num_resamples=20)
    np.testing.assert_allclose(whole.lower, parts.lower, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole.upper, parts.upper, rtol=1e-5, atol=1e-7)


def test_intervals_cover_the_mean_of_the_days_distribution():
    """Of 95 % intervals of the mean of 100 days, about 95 % hold the true mean."""
    rng = np.random.default_rng(1)
    values = rng.exponential(1.0, (400, 100))
    draws = rng.multinomial(100, np.full(100, 0.01), 300)
    lower, upper = aggregate.quantiles(values @ draws.T / 100)
    assert 0.90 <= np.mean((lower <= 1) & (1 <= upper)) <= 0.98


def test_quantiles_are_those_of_numpy():
    values = np.random.default_rng(0).random((3, 4, 31))
    values[0, 0, 5:] = np.nan
    values[1, 2, ::2] = np.nan
    lower, upper = aggregate.quantiles(values)
    expected = np.nanpercentile(values, [2.5, 97.5], axis=-1)
    np.testing.assert_allclose([lower, upper], expected, rtol=1e-12)


def test_one_day_has_no_interval(store):
    period = aggregate.periods(store.dates()[:1], "month")[0]
    found = aggregate.means(store, period, REGIONS)
    assert np.isnan(found.lower).all() and np.isnan(found.region_upper).all()


def test_periods_have_labels_bounds_and_middles():
    dates = ["2016-12-05", "2017-01-31", "2017-12-01", "2018-06-30"]

    def described(by, across_years):
        return [
            (p.label, len(p.dates), *(str(np.datetime64(day, "D")) for day in p.bounds))
            for p in aggregate.periods(dates, by, across_years)
        ]

    assert described("season", True) == [
        ("DJF", 3, "2016-12-01", "2018-03-01"),
        ("JJA", 1, "2018-06-01", "2018-09-01"),
    ]
    assert described("season", False) == [
        ("2017-DJF", 2, "2016-12-01", "2017-03-01"),
        ("2018-DJF", 1, "2017-12-01", "2018-03-01"),
        ("2018-JJA", 1, "2018-06-01", "2018-09-01"),
    ]
    assert described("month", True) == [
        ("Jan", 1, "2017-01-01", "2017-02-01"),
        ("Jun", 1, "2018-06-01", "2018-07-01"),
        ("Dec", 2, "2016-12-01", "2018-01-01"),
    ]
    assert described("all", True) == [("2016 to 2018", 4, "2016-12-05", "2018-07-01")]
    assert [label for label, *_ in described("year", True)] == ["2016", "2017", "2018"]
    middles = [period.middle for period in aggregate.periods(dates, "season")]
    assert [str(np.datetime64(int(day), "D")) for day in middles] == ["2016-01-15", "2016-07-17"]
    with pytest.raises(ValueError, match="by: got 'week', expected one of day"):
        aggregate.periods(dates, "week")
