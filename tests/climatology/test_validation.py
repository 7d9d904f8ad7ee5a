"""Agreement of days with other days, against numpy, and with files in the layout of C3ONTEXT."""

import csv

import numpy as np
import pandas as pd
import pytest
import xarray
from programs import run_tool

from clouds_tf.climatology.days import DayFields, DayStore, Settings
from clouds_tf.climatology.validation import Comparison, validate
from clouds_tf.geo import Grid

NAMES = ("Fish", "Flower")
GRID = Grid(1.0, (-60, 10, -54, 14))
DATES = [str(day)[:10] for day in pd.date_range("2020-01-22", periods=30)]


def _fields(seed):
    """Shares [30, C, h, w] that follow the weather of the day, alike for all seeds."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(seed)
    weather = rng.random((30, 2, 1, 1)) * rng.random((30, 2, *GRID.shape))
    return np.clip(weather + 0.1 * noise.standard_normal(weather.shape), 0, 1).astype(np.float32)


def _write_days(folder, shares, names=NAMES, coverage=1.0):
    store = DayStore(str(folder), Settings(GRID, names, "scenes", "expected"))
    nothing, seen = np.zeros(GRID.shape, np.float32), np.full(GRID.shape, coverage, np.float32)
    with store.open():
        for date, values in zip(DATES, shares):
            fields = DayFields(date, values, nothing, seen, np.zeros((len(names),) * 2))
            store.write(fields, "x", {"source": "test"})
    return str(folder)


def _write_frequencies(path, shares, **encoding):
    """Each cell as 4 x 4, north first, with names and order of C3ONTEXT."""
    fine = np.kron(shares, np.ones((4, 4)))[:, :, ::-1]
    values = np.stack([fine[:, 1], fine[:, 0], 0 * fine[:, 0]], axis=-1).swapaxes(1, 2)
    coordinates = {
        "date": pd.to_datetime(DATES) + pd.Timedelta("12h"),
        "longitude": -60 + (np.arange(24) + 0.5) / 4,
        "latitude": 14 - (np.arange(16) + 0.5) / 4,
        "pattern": ["Flowers", "Fish", "Sugar"],
    }
    data = xarray.DataArray(values, coordinates, tuple(coordinates), "freq").to_dataset()
    encoding = {"date": {"units": "hours since 2020-01-01"}, "freq": encoding}
    data.to_netcdf(path, engine="h5netcdf", encoding=encoding)
    return str(path)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return _write_days(tmp_path_factory.mktemp("ours") / "days", _fields(1))


def _values(agreement):
    return {(name, measure): value for name, measure, value, *_ in agreement.rows}


def test_measures_are_those_of_numpy(days, tmp_path):
    ours, theirs = _fields(1), _fields(2)
    theirs[3:, 0] *= 0.5
    other = _write_days(tmp_path / "other", theirs)
    found = validate(days, other, str(tmp_path / "V.csv"), str(tmp_path / "V.png"))
    values, weight = _values(found), np.broadcast_to(GRID.areas, ours[:, 0].shape).ravel()
    daily = [
        np.average(x.reshape(30, 2, -1), axis=2, weights=GRID.areas.ravel()) for x in (ours, theirs)
    ]
    for c, name in enumerate(NAMES):
        x, y = (d[:, c] for d in daily)
        assert values[name, "mean"] == pytest.approx(x.mean(), rel=1e-5)
        assert values[name, "bias"] == pytest.approx((x - y).mean(), rel=1e-4)
        assert values[name, "ratio"] == pytest.approx(x.mean() / y.mean(), rel=1e-5)
        expected = np.corrcoef(x, y)[0, 1]
        assert values[name, "correlation of daily means"] == pytest.approx(expected, rel=1e-4)
        covariance = np.cov(ours[:, c].ravel(), theirs[:, c].ravel(), aweights=weight)
        expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert values[name, "correlation of cells"] == pytest.approx(expected, rel=1e-4)
    expected = (daily[0].argmax(axis=1) == daily[1].argmax(axis=1)).mean()
    assert values["all", "most common class is the same"] == pytest.approx(expected)
    for _, measure, value, lower, upper in found.rows:
        assert lower <= value <= upper, measure
    assert found.block_days >= 3 and (tmp_path / "V.png").stat().st_size > 10_000
    rows = list(csv.DictReader(open(tmp_path / "V.csv")))
    assert len(rows) == 13 and float(rows[0]["value"]) == pytest.approx(values["Fish", "mean"])


def test_days_agree_with_themselves_and_one_day_has_no_interval(days, tmp_path):
    found = validate(days, days, str(tmp_path / "V.csv"), comparison=Comparison(num_resamples=0))
    values = _values(found)
    assert all(v == pytest.approx(1) for (_, m), v in values.items() if m.startswith("corr"))
    assert values["all", "most common class is the same"] == 1 and values["Fish", "bias"] == 0
    assert all(np.isnan(lower) for *_, lower, _ in found.rows)
    assert list(csv.DictReader(open(tmp_path / "V.csv")))[0]["lower"] == ""


@pytest.mark.parametrize(
    "encoding", [{}, {"dtype": "uint8", "scale_factor": 0.004, "_FillValue": 255}]
)
def test_files_of_c3ontext_are_brought_to_the_grid(days, tmp_path, encoding):
    shares = np.where(_fields(1) > 0.9, 0.9, _fields(1)).astype(float)
    shares[:, :, 0] = np.nan  # nobody looked at the southern row
    path = _write_frequencies(tmp_path / "freq.nc", shares, **encoding)
    values = _values(validate(days, path, str(tmp_path / "V.csv")))
    mean = np.average(shares[:, :, 1:].reshape(30, 2, -1), axis=2, weights=GRID.areas[1:].ravel())
    for c, name in enumerate(NAMES):
        assert values[name, "reference mean"] == pytest.approx(mean[:, c].mean(), abs=0.002)
        assert values[name, "correlation of cells"] > 0.99


def test_boxes_are_a_reference_and_the_tool_prints_the_measures(days, tmp_path):
    lines = ["date,label,lon1,lon2,lat1,lat2"]
    for i, date in enumerate(DATES):
        lines += [f"{date},Fish,-60,{-60 + 6 * (i % 5 + 1) / 5:g},10,14"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    arguments = (f"--days_dir={days}", f"--output={tmp_path}/V.csv", "--num_resamples=0")
    done = run_tool("validate", *arguments, f"--reference={tmp_path}/boxes.csv")
    assert done.returncode == 0, done.stderr
    assert "Fish, reference mean                 0.600" in done.stdout
    assert "Compared 30 days; wrote" in done.stdout
    done = run_tool("validate", *arguments, f"--reference={tmp_path}/none")
    assert done.returncode == 1 and "none: no such file" in done.stderr


def test_unusable_references_are_named(days, tmp_path):
    output = str(tmp_path / "V.csv")
    other = _write_days(tmp_path / "other", _fields(2), ("Fish", "Gravel"))
    with pytest.raises(ValueError, match="class_names: got .*Gravel.* expected .*Flower"):
        validate(days, other, output)
    path = _write_frequencies(tmp_path / "freq.nc", _fields(1))
    with xarray.open_dataset(path) as data:
        data.load().isel(pattern=[1, 2]).to_netcdf(tmp_path / "f.nc", engine="h5netcdf")
        data.isel(date=[0]).to_netcdf(tmp_path / "one.nc", engine="h5netcdf")
        data.rename(freq="x").to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    for name, message in (
        ("f.nc", "no pattern Flower, it has Fish, Sugar"),
        ("one.nc", "1 days? with a common observed area"),
        ("x.nc", "has no variable freq"),
    ):
        with pytest.raises(ValueError, match=message):
            validate(days, str(tmp_path / name), output)
    assert not (tmp_path / "V.csv").exists()
