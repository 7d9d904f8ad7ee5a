import dataclasses
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf
import xarray
from programs import run_program

from clouds_tf import files
from clouds_tf.climatology import product
from clouds_tf.data.runners import Runner
from clouds_tf.geo import netcdf
from clouds_tf.geo.grid import Grid

NAMES = ("Fish", "Flower", "Sugar")
GRID = Grid(5.0, (-30, -10, 30, 20))
HEADER = "date,label,lon1,lon2,lat1,lat2"


def _rows(seed=0, num_days=20):
    rng = np.random.default_rng(seed)
    rows = []
    for day in range(num_days):
        date = np.datetime64("2016-11-20") + 6 * day
        for _ in range(5):
            (west, south), (w, h) = rng.uniform([-30, -10], [25, 15]), rng.uniform(2, 9, 2)
            rows.append(f"{date},{rng.choice(NAMES)},{west},{west + w},{south},{south + h}")
    return rows


def _table(path, rows):
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return str(path)


def _make(output, boxes, **options):
    fields = {field.name for field in dataclasses.fields(product.Aggregation)}
    form = {"by": "season", "num_resamples": 20}
    form.update({name: options.pop(name) for name in fields & set(options)})
    settings = {"class_names": NAMES, "grid": GRID, "form": product.Aggregation(**form)}
    return product.make(str(output), boxes=boxes, **{**settings, **options})


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A folder with a table, its days and its climatology, made in one run."""
    folder = tmp_path_factory.mktemp("full")
    _make(folder / "c.nc", _table(folder / "b.csv", _rows()))
    return folder


def _same_bytes(folder, other):
    names = sorted(path.name for path in (folder / "c_days").glob("*.nc"))
    assert names == sorted(path.name for path in (other / "c_days").glob("*.nc"))
    for name in ["c.nc", *(f"c_days/{name}" for name in names)]:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_the_closing_line_counts_days(tmp_path):
    made = _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", _rows(num_days=2) + ["x,,,,,"]),
                 on_error="skip")
    assert str(made) == (
        f"Wrote {tmp_path}/c.nc: 1 period (by season) of 2 days; 2 days added, 0 there before; "
        "1 faulty input left out"
    )


def test_a_row_in_any_order_gives_the_same_bytes(full, tmp_path):
    """Here in a folder that is remote."""
    rows = _rows()
    np.random.default_rng(5).shuffle(rows)
    tf.io.gfile.makedirs("ram://climatology")
    tf.io.gfile.copy(_table(tmp_path / "b.csv", rows), "ram://climatology/b.csv")
    _make("ram://climatology/c.nc", "ram://climatology/b.csv")
    (tmp_path / "c_days").mkdir()
    names = files.list_names("ram://climatology/c_days")
    for path in ("c.nc", *(f"c_days/{name}" for name in names if name.endswith(".nc"))):
        tf.io.gfile.copy(f"ram://climatology/{path}", str(tmp_path / path))
    _same_bytes(full, tmp_path)


def test_days_that_are_added_give_the_bytes_of_one_run(full, tmp_path):
    rows = _rows()
    for part in (rows[50:], rows[:25], rows[25:50]):
        made = _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", part))
        assert made.added.num_known == 0
    _same_bytes(full, tmp_path)
    again = _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", rows))
    assert (again.added.num_new, again.added.num_known) == (0, 20)
    _same_bytes(full, tmp_path)


def killed_run(folder, after):
    """Makes the climatology, and is killed by SIGKILL when so many days were reported."""
    reports = 0

    def progress(done, total):
        nonlocal reports
        reports += 1
        if reports == after:
            os.kill(os.getpid(), signal.SIGKILL)

    _make(pathlib.Path(folder) / "c.nc", f"{folder}/b.csv", progress=progress)


@pytest.mark.slow
def test_killed_at_any_place_it_resumes_to_the_same_bytes(full, tmp_path):
    _table(tmp_path / "b.csv", _rows())
    for after in (7, 30):  # among the days; among the means
        code = f"import sys; sys.path.append({os.path.dirname(__file__)!r})\n"
        code += f"import test_product; test_product.killed_run({str(tmp_path)!r}, {after})"
        process = run_program("-c", code)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert not (tmp_path / "c.nc").exists()
        number = len(list((tmp_path / "c_days").glob("????-??-??.nc")))
        assert number == (7 if after == 7 else 20)
    _make(tmp_path / "c.nc", str(tmp_path / "b.csv"))
    for path in [*tmp_path.glob(".*"), *(tmp_path / "c_days").glob(".*")]:
        path.unlink()  # what a killed process was writing
    _same_bytes(full, tmp_path)


@pytest.mark.slow
def test_processes_and_beam_give_the_same_bytes(full, tmp_path):
    rows = _rows()
    runner = Runner(num_workers=2)
    _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", rows[:50]), runner=runner)
    beam = Runner("direct", beam_options=("--direct_num_workers=1",))
    _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", rows), runner=beam)
    _same_bytes(full, tmp_path)


def test_a_faulty_table_changes_nothing(full, tmp_path):
    rows = _rows()
    _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", rows[:50]))
    before = (tmp_path / "c.nc").read_bytes()
    wrong = rows[50:] + ["2018-01-01,Fish,0,1,0,99"]
    with pytest.raises(ValueError, match="line 52: lat2 99"):
        _make(tmp_path / "c.nc", _table(tmp_path / "x.csv", wrong))
    with pytest.raises(ValueError, match="x.csv: 2016-11-20 is already counted, from .* b.csv"):
        _make(tmp_path / "c.nc", _table(tmp_path / "x.csv", rows[:1]))
    assert (tmp_path / "c.nc").read_bytes() == before
    _make(tmp_path / "c.nc", _table(tmp_path / "b.csv", rows))
    _same_bytes(full, tmp_path)


def test_the_product_follows_cf(full):
    with xarray.open_dataset(full / "c.nc", decode_times=False) as found:
        assert found["fraction"].dims == ("time", "class", "lat", "lon")
        assert found.attrs["Conventions"] == netcdf.CONVENTIONS and found.attrs["num_days"] == 20
        assert found["time"].attrs["climatology"] == "climatology_bounds"
        assert found["climatology_bounds"].shape == (3, 2)
        assert (np.diff(found["time"]) > 0).all()
        assert found["fraction"].attrs["cell_methods"] == (
            "time: mean within years time: mean over years"
        )
        bounds = found["climatology_bounds"]
        assert (bounds[:, 0] <= found["time"]).all() and (found["time"] <= bounds[:, 1]).all()
        assert found["region_coverage"].dims == ("time", "region")
        np.testing.assert_allclose(found["region_coverage"], 1)
        assert found["block_days"].values.tolist() == [0, 3, 0]  # of 2, 15 and 3 days
        assert "bootstrap" in found["fraction_lower"].long_name
        for name, word in (("lat", "latitude"), ("lon", "longitude")):
            assert found[name].attrs["standard_name"] == word
            bounds = found[found[name].attrs["bounds"]].values
            np.testing.assert_allclose(bounds.mean(axis=1), found[name], atol=1e-12)
            np.testing.assert_allclose(bounds[1:, 0], bounds[:-1, 1], atol=1e-12)
        assert found["period"].values.tolist() == ["SON", "DJF", "MAM"]
        lower, upper = found["fraction_lower"], found["fraction_upper"]
        fraction = found["fraction"]
        assert ((lower <= fraction + 1e-6) & (fraction <= upper + 1e-6) | lower.isnull()).all()
        assert (lower.notnull() == upper.notnull()).all() and lower.notnull().any()
        np.testing.assert_allclose(
            np.diagonal(found["co_occurrence"], axis1=1, axis2=2),
            found["region_fraction"].sel(region="all"),
            rtol=1e-5,
        )


def test_each_year_has_time_bounds(full):
    made = _make(full / "y.nc", None, days_dir=f"{full}/c_days", by="month", across_years=False)
    with xarray.open_dataset(full / "y.nc") as found:
        assert made.num_periods == len(found["time"]) == 5
        assert found["time_bnds"].values[0].astype("datetime64[D]").tolist() == [
            np.datetime64("2016-11-01").item(),
            np.datetime64("2016-12-01").item(),
        ]
        assert found["fraction"].attrs["cell_methods"] == "area: mean time: mean"


def test_the_layout_of_c3ontext(full):
    _make(full / "d.nc", None, days_dir=f"{full}/c_days", by="day", layout="c3ontext")
    with xarray.open_dataset(full / "d.nc") as found, xarray.open_dataset(
        full / "c_days" / "2016-11-26.nc"
    ) as day:
        assert found["freq"].dims == ("date", "longitude", "latitude", "pattern")
        assert found["pattern"].values.tolist() == ["Sugar", "Flowers", "Fish", "Unclassified"]
        one = found["freq"].sel(date="2016-11-26", pattern="Flowers").values
        np.testing.assert_array_equal(one.T, day["fraction"].sel({"class": "Flower"}))
        # As users of C3ONTEXT read it along a track.
        value = found["freq"].interp(longitude=2.5, latitude=2.5).sel(pattern="Unclassified")
        assert value.sizes == {"date": 20} and ((value >= 0) & (value <= 1)).all()


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"by": "week"}, "by: got 'week'"),
        ({"layout": "grib"}, "layout: got 'grib', expected one of cf, c3ontext"),
        ({"num_resamples": -1}, "num_resamples: got -1"),
        ({"regions": {"far": (100, 0, 120, 5)}}, "regions: far: extent: .* outside the grid"),
        ({"regions": {"all": (0, 0, 1, 1)}}, "regions: the name all"),
        ({"boxes": None}, "not a folder of days"),
    ],
)
def test_impossible_arguments_are_named_before_any_work(tmp_path, options, reason):
    boxes = options.pop("boxes", _table(tmp_path / "b.csv", _rows(num_days=2)))
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        _make(tmp_path / "c.nc", boxes, **options)
    assert not list(tmp_path.glob("c*"))


def test_a_table_of_another_place_is_refused(tmp_path):
    path = tmp_path / "b.csv"
    image = "Aqua_CorrectedReflectance20110118_-61--40_10-24.jpeg"
    path.write_text(f"1,{image},0,0,1050,700,Sugar\n")
    with pytest.raises(ValueError, match="no day observed the extent"):
        _make(tmp_path / "c.nc", str(path))
