"""Regional series; xarray is the oracle."""

import numpy as np
import pytest
import xarray

from clouds_tf.climatology import aggregate, series
from clouds_tf.climatology.days import DayFields, DayStore, Settings
from clouds_tf.geo.grid import Grid

GRID = Grid(10.0, (-20, 0, 20, 30))


def _store(folder, first, last, step):
    store = DayStore(str(folder), Settings(GRID, ("Fish", "Sugar")))
    with store.open():
        pass
    rng = np.random.default_rng(0)
    for date in np.arange(first, last, step, dtype="datetime64[D]"):
        coverage = rng.choice(np.float32([0, 0.25, 1]), GRID.shape)
        fraction = rng.random((2, *GRID.shape), np.float32) * (coverage > 0)
        store.write(
            DayFields(str(date), fraction, coverage, coverage, np.eye(2)), "y", {"source": "x"}
        )
    return store


def _weighted(store):
    """Fractions and weights, area times coverage, of all days."""
    parts = [xarray.open_dataset(store.path(date)) for date in store.dates()]
    days = xarray.concat(parts, "time", coords="minimal", compat="override", join="override")
    weight = days["coverage"] * xarray.DataArray(GRID.areas, dims=("lat", "lon"))
    return days["fraction"].fillna(0), weight


@pytest.mark.slow
@pytest.mark.parametrize(
    "last, step, rows",
    [
        ("2016-03-01", 2, "5D"),
        ("2016-03-01", 5, "5D"),  # the last day begins a row
        ("2016-01-02", 1, "5D"),
        ("2018-08-01", 15, "MS"),
    ],
)
def test_longitude_over_time_is_that_of_resample(tmp_path, last, step, rows):
    store = _store(tmp_path, "2016-01-01", last, step)
    found = series.read(store, {"all": GRID.extent}, num_resamples=0)
    fraction, weight = _weighted(store)
    top = (fraction * weight).sum("lat").resample(time=rows).sum()
    expected = top / weight.sum("lat").resample(time=rows).sum()
    expected = expected.transpose("class", "time", "lon")
    np.testing.assert_allclose(found.by_longitude, expected, rtol=1e-5)
    assert len(found.times) == found.by_longitude.shape[1] + 1
    assert str(found.times[0]) == "2016-01-01"
    np.testing.assert_allclose(found.shared, np.eye(2))


@pytest.mark.slow
def test_the_seasonal_cycle_is_that_of_groupby_and_of_the_product(tmp_path):
    store = _store(tmp_path, "2016-01-01", "2018-01-01", 13)
    regions = {"all": GRID.extent, "north": (-20.0, 20.0, 20.0, 30.0)}
    found = series.read(store, regions, num_resamples=30, seed=2)
    fraction, weight = _weighted(store)
    for name, rows in (("all", slice(None)), ("north", slice(2, None))):
        top = (fraction * weight)[:, :, rows].sum(("lat", "lon")).groupby("time.month").sum()
        bottom = weight[:, rows].sum(("lat", "lon")).groupby("time.month").sum()
        np.testing.assert_allclose(found.cycles[name][0], top / bottom, rtol=1e-5)
    assert found.months == aggregate.MONTHS
    periods = aggregate.periods(store.dates(), "month")
    for m, period in enumerate(periods):  # which begin in January
        means = aggregate.means(store, period, regions, num_resamples=30, seed=2)
        for i, end in enumerate(("lower", "upper"), start=1):
            expected = getattr(means, f"region_fraction_{end}")[1]
            np.testing.assert_allclose(found.cycles["north"][i, m], expected, rtol=1e-6)
