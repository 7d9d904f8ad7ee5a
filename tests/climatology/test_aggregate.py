"""Means and intervals; xarray's groupby and resample and plain loops are the oracles."""

import numpy as np
import pytest
import xarray

from clouds_tf.climatology import aggregate, bootstrap
from clouds_tf.climatology.days import DayFields, DayStore, Settings
from clouds_tf.geo.grid import Grid

pytestmark = pytest.mark.lanes

GRID = Grid(10.0, (-20, 0, 20, 30))
REGIONS = {"all": GRID.extent, "part": (-5.0, 5.0, 12.0, 30.0)}


def _dates(start, end, step):
    return [str(date) for date in np.arange(start, end, step, dtype="datetime64[D]")]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Days of three years, with gaps in every day and one cell that is never observed."""
    store = DayStore(str(tmp_path_factory.mktemp("days")), Settings(GRID, ("Fish", "Sugar")))
    with store.open():
        pass
    rng = np.random.default_rng(0)
    for date in _dates("2015-11-20", "2018-02-10", 9):
        coverage = rng.choice(np.float32([0, 0.25, 1]), GRID.shape)
        coverage[0, 0] = 0
        fraction = rng.random((2, *GRID.shape), np.float32) * (coverage > 0)
        fraction[1, 1] = 0
        shared = rng.random((2, 2))
        store.write(
            DayFields(date, fraction, fraction[0] / 2, coverage, shared + shared.T),
            "y",
            {"source": "x"},
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


@pytest.mark.slow
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
        expected = expected.sel(season=["SON", "DJF", "MAM", "JJA"])  # days begin in November
    elif by == "month":
        expected = expected.sel(month=[11, 12, *range(1, 11)])
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
    starts = [np.datetime64(int(period.bounds[0]), "D") for period in groups]
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
    np.testing.assert_allclose(found.co_occurrence, shared, rtol=1e-9)


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
    """Of days that are drawn one after the other, and added in loops."""
    period = aggregate.periods(store.dates(), "year")[1]
    found = aggregate.means(store, period, REGIONS, num_resamples=50, seed=3)
    days = [store.read(date) for date in period.dates]
    weights = [GRID.areas, _part_weights()]
    series = [
        [(day.fraction * day.coverage * w).sum((1, 2)) / (day.coverage * w).sum() for w in weights]
        for day in days
    ]
    shares = np.reshape(series, (len(days), 4))
    draws = bootstrap.draw(period.dates, shares, 50, 3)
    assert found.block_days == draws.days == bootstrap.block_length(shares) > 1
    means, regional = [], []
    for draw in draws.counts.astype(int):
        chosen = [day for day, times in zip(days, draw) for _ in range(times)]
        assert len(chosen) == len(days)
        top = sum(day.fraction * np.float64(day.coverage) for day in chosen)
        bottom = sum(np.float64(day.coverage) for day in chosen)
        with np.errstate(invalid="ignore"):
            means.append(top / bottom)
        regional.append([(top * w).sum(axis=(1, 2)) / (bottom * w).sum() for w in weights])
    with pytest.warns(RuntimeWarning, match="All-NaN"):
        lower, upper = np.nanpercentile(means, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.fraction_lower, lower, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.fraction_upper, upper, rtol=1e-4, atol=1e-7)
    lower, upper = np.percentile(regional, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(found.region_fraction_lower, lower, rtol=1e-9)
    np.testing.assert_allclose(found.region_fraction_upper, upper, rtol=1e-9)
    assert found.region_coverage == pytest.approx(
        [np.mean([(day.coverage * w).sum() for day in days]) / w.sum() for w in weights]
    )


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
    np.testing.assert_allclose(whole.fraction_lower, parts.fraction_lower, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(whole.fraction_upper, parts.fraction_upper, rtol=1e-5, atol=1e-7)


def test_one_day_has_no_interval(store):
    period = aggregate.periods(store.dates()[:1], "month")[0]
    found = aggregate.means(store, period, REGIONS)
    assert np.isnan(found.fraction_lower).all() and np.isnan(found.region_fraction_upper).all()
    assert found.block_days == 0


def test_cells_that_were_seen_in_one_block_only_have_no_interval(tmp_path):
    store = DayStore(str(tmp_path), Settings(GRID, ("Fish",)))
    dates = _dates("2017-01-01", "2017-03-02", 1)
    with store.open():
        for i, date in enumerate(dates):
            coverage = np.zeros(GRID.shape, np.float32)
            coverage[0] = 1
            coverage[1, 0] = i == 7  # on one day
            coverage[1, 1] = i in (7, 8)  # in one block
            coverage[1, 2] = i in (7, 50)
            fraction = np.full((1, *GRID.shape), 0.1 + 0.01 * (i % 7), np.float32)
            day = DayFields(date, fraction * (coverage > 0), coverage, coverage, np.eye(1))
            store.write(day, "y", {"source": "x"})
    (period,) = aggregate.periods(dates, "all")
    found = aggregate.means(store, period, REGIONS, num_resamples=20)
    assert found.block_days >= 4
    defined = np.isfinite(found.fraction_lower[0])
    assert defined[0].all() and defined[1].tolist() == [False, False, True, False]


def test_periods_have_labels_bounds_and_middles():
    dates = ["2016-12-05", "2017-01-31", "2017-12-01", "2018-06-30"]

    def described(by, across_years):
        return [
            (p.label, len(p.dates), *(str(np.datetime64(int(day), "D")) for day in p.bounds))
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
        ("Dec", 2, "2016-12-01", "2018-01-01"),
        ("Jan", 1, "2017-01-01", "2017-02-01"),
        ("Jun", 1, "2018-06-01", "2018-07-01"),
    ]
    assert described("all", True) == [("2016 to 2018", 4, "2016-12-05", "2018-07-01")]
    assert [label for label, *_ in described("year", True)] == ["2016", "2017", "2018"]
    middles = [period.middle for period in aggregate.periods(dates, "season")]
    assert [str(np.datetime64(int(day), "D")) for day in middles] == ["2017-01-15", "2018-07-17"]
    with pytest.raises(ValueError, match="by: got 'week', expected one of scene, hour, day"):
        aggregate.periods(dates, "week")
