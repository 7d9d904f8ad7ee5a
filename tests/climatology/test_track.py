"""Fractions along a track; xarray's interp is the oracle."""

import numpy as np
import pandas as pd
import pytest
import xarray

from clouds_tf import files
from clouds_tf.climatology import track
from clouds_tf.climatology.days import DayFields, DayStore, Settings
from clouds_tf.geo.grid import Grid

pytestmark = pytest.mark.lanes

NAMES = ("Fish", "Sugar")
DATES = ("2020-01-01", "2020-01-02", "2020-01-06")


def _store(folder, grid, coverage=1.0):
    store = DayStore(str(folder), Settings(grid, NAMES))
    with store.open():
        pass
    rng = np.random.default_rng(0)
    for date in DATES:
        fraction = rng.random((2, *grid.shape), np.float32)
        seen = np.full(grid.shape, coverage, np.float32)
        store.write(
            DayFields(date, fraction, 1 - fraction[0], seen, np.eye(2)), "y", {"source": "x"}
        )
    return store


def _track(*rows):
    table = pd.DataFrame(rows, columns=list(track.COLUMNS))
    return table.assign(time=pd.to_datetime(table["time"]))


def test_between_centres_it_is_xarrays_interpolation(tmp_path):
    store = _store(tmp_path, Grid(2.0, (-30, 0, 0, 20)))
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(1, 19, 50), rng.uniform(-29, -1, 50)
    positions = _track(*[("2020-01-02T03:00", a, b) for a, b in zip(lat, lon)])
    found = track.along(store, positions)
    with xarray.open_dataset(store.path("2020-01-02")) as day:
        at = {"lat": xarray.DataArray(lat), "lon": xarray.DataArray(lon)}
        expected = day["fraction"].interp(at).sel({"class": list(NAMES)})
        np.testing.assert_allclose(found[list(NAMES)].to_numpy().T, expected, rtol=1e-5)
        nothing = day["unclassified"].interp(at)
        np.testing.assert_allclose(found["unclassified"], nothing, rtol=1e-5)
    np.testing.assert_allclose(found["coverage"], 1)


def test_the_date_line_is_no_edge_of_a_globe(tmp_path):
    store = _store(tmp_path, Grid(2.0))
    found = track.along(store, _track(*[("2020-01-01", 5.0, lon) for lon in (179.5, -180.5)]))
    with xarray.open_dataset(store.path("2020-01-01")) as day:
        rolled = day["fraction"].assign_coords(lon=day["lon"] % 360).sortby("lon")
        np.testing.assert_allclose(found["Fish"], rolled[0].interp(lat=5.0, lon=179.5), rtol=1e-5)


@pytest.mark.parametrize(
    "time, day, days_off",
    [
        ("2019-12-30", "2020-01-01", 2),
        ("2020-01-01T00:00", "2020-01-01", 0),
        ("2020-01-01T23:59", "2020-01-01", 0),
        ("2020-01-02T00:00", "2020-01-02", 0),
        ("2020-01-02T06:00", "2020-01-02", 0),
        ("2020-01-03T00:00", "2020-01-02", -1),
        ("2020-01-04T11:59", "2020-01-02", -2),
        ("2020-01-04T12:00", "2020-01-02", -2),
        ("2020-01-04T12:01", "2020-01-06", 2),
        ("2020-01-05T23:59", "2020-01-06", 1),
        ("2020-01-06T00:00", "2020-01-06", 0),
        ("2020-01-08", "2020-01-06", -2),
    ],
)
def test_the_day_of_the_position_is_taken_or_the_nearest_one_with_its_distance(
    tmp_path, time, day, days_off
):
    store = _store(tmp_path, Grid(10.0, (0, 0, 20, 20)))
    found = track.along(store, _track((time, 5.0, 5.0)))
    assert found["date"].tolist() == [day] and found["days_off"].tolist() == [days_off]
    assert found["Sugar"][0] == pytest.approx(store.read(day).fraction[1, 0, 0])


def test_gaps_do_not_dilute_the_shares(tmp_path):
    grid = Grid(1.0, (0, 0, 2, 1))
    store = DayStore(str(tmp_path), Settings(grid, NAMES))
    with store.open():
        pass
    fraction = np.float32([[[0.5, 0]], [[0.25, 0]]])
    coverage = np.float32([[1, 0]])
    store.write(
        DayFields("2020-01-01", fraction, coverage / 8, coverage, np.eye(2)), "y", {"source": "x"}
    )
    positions = [("2020-01-01", 0.5, lon) for lon in (0.5, 1.25, 1.5, 0.0, 2.5, -0.5)]
    positions.append(("2020-01-01", 1.5, 0.5))
    found = track.along(store, _track(*positions))
    np.testing.assert_allclose(found["coverage"], [1, 0.25, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(found["Fish"], [0.5, 0.5, np.nan, 0.5, np.nan, np.nan, np.nan])


def test_one_day_is_enough(tmp_path):
    grid = Grid(1.0, (0, 0, 1, 1))
    store = DayStore(str(tmp_path), Settings(grid, NAMES))
    with store.open():
        pass
    ones = np.ones((1, 1), np.float32)
    store.write(
        DayFields("2020-01-01", np.stack([ones, ones]), ones, ones, np.eye(2)), "y", {"source": "x"}
    )
    found = track.along(store, _track(("2020-05-01", 0.5, 0.5), ("2019-05-01", 0.5, 0.5)))
    assert found["date"].tolist() == 2 * ["2020-01-01"]


def test_the_table_is_written(tmp_path):
    store = _store(tmp_path / "days", Grid(10.0, (0, 0, 20, 20)))
    (tmp_path / "ship.csv").write_text(
        "ship,time,latitude,longitude\nA,2020-01-02T10:00:00Z,5,5\nA,2020-01-02 11:00,95e-1,50\n"
    )
    table = track.along(store, track.read(str(tmp_path / "ship.csv")))
    files.write_frame(str(tmp_path / "t.csv"), table)
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "time,latitude,longitude,date,days_off,Fish,Sugar,unclassified,coverage"
    assert lines[1].startswith("2020-01-02T10:00:00,5,5,2020-01-02,0,0.")
    assert lines[2] == "2020-01-02T11:00:00,9.5,50,2020-01-02,0,,,,0"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", ": not a CSV file"),
        ("time,latitude\n", ": no column 'longitude'"),
        ("time,latitude,longitude\n", ": no rows"),
        ("time,latitude,longitude\n2020-01-01,1,1\nnoon,1,1\n", ", line 3: time 'noon', expected"),
        ("time,latitude,longitude\n2020-01-01,91,1\n", ", line 2: latitude '91', expected -90"),
        ("time,latitude,longitude\n2020-01-01,1,nan\n", ", line 2: longitude 'nan', expected"),
    ],
)
def test_a_faulty_track_is_named(tmp_path, text, reason):
    path = tmp_path / "ship.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{path}{reason}"):
        track.read(str(path))
