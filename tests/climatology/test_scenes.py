"""Fractions by scenes; loops over fine steps and areas of cells are the oracle."""

import datetime

import numpy as np
import pytest
import xarray
from scene_writer import write_scene as _write

from clouds_tf.climatology import merge, product, scenes
from clouds_tf.climatology.days import DayStore
from clouds_tf.climatology.inputs import AddedDays
from clouds_tf.geo import Extent, cover, parse_extent
from clouds_tf.geo.grid import Grid
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.scenes import write
from clouds_tf.scenes.masks import Prediction


def _expected(values, observed, lat, lon, grid, step=0.5):
    """Share of the observed part of each cell, by ten times finer steps in each direction."""
    fine = 10
    height, width = grid.shape
    top, bottom = np.zeros(grid.shape), np.zeros(grid.shape)
    for i, j in np.ndindex(observed.shape):
        for k in range(fine):
            y = lat[i] - step / 2 + (k + 0.5) * step / fine
            row = int((y - grid.extent[1]) // grid.cell[0])
            area = np.cos(np.radians(y))
            for m in range(fine):
                x = lon[j] - step / 2 + (m + 0.5) * step / fine
                column = int((x - grid.extent[0]) % 360 // grid.cell[1])
                if 0 <= row < height and column < width:
                    bottom[row, column] += area * observed[i, j]
                    top[row, column] += area * values[i, j]
    whole = (grid.cell[0] * fine / step) ** 2 * np.cos(np.radians(grid.lat))[:, None]
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0), bottom / whole


# Cells of 1.25 degrees cut those of a scene.
@pytest.mark.parametrize(
    "grid, extent",
    [
        (Grid(1.25, (-12.5, 0, 2.5, 5)), (-10, 0, 0, 5)),
        (Grid(1.25, (-180, 60, 180, 65)), (177.5, 60, 182.5, 64.5)),
    ],
)
@pytest.mark.parametrize("measure", merge.MEASURES)
def test_fractions_are_those_of_fine_steps(tmp_path, grid, extent, measure):
    masks, observed, probabilities, lat, lon = _write(tmp_path / "a.nc", extent=extent)
    fields = merge.fields_of("2017-03-04", [scenes.read(str(tmp_path / "a.nc"))], measure, grid)
    for c in range(4):
        values = masks[c] if measure == "mask" else probabilities[c]
        expected, coverage = _expected(values, observed, lat, lon, grid)
        np.testing.assert_allclose(fields.fraction[c], expected, atol=1e-5)
        np.testing.assert_allclose(fields.coverage, coverage, atol=1e-3)
    if measure == "expected":
        assert not fields.unclassified.any() and not fields.shared.any()
        return
    nothing = observed & ~masks.any(axis=0)
    expected, _ = _expected(nothing, observed, lat, lon, grid)
    np.testing.assert_allclose(fields.unclassified, expected, atol=1e-5)
    area = np.cos(np.radians(lat))[:, None] * observed
    for i, j in np.ndindex(4, 4):
        share = (area * masks[i] * masks[j]).sum() / area.sum()
        assert fields.shared[i, j] == pytest.approx(share, rel=1e-9)


def test_rows_at_once_do_not_matter(tmp_path, monkeypatch):
    _write(tmp_path / "a.nc")
    grid = Grid(2.5, (-10, 0, 0, 5))
    scene = scenes.read(str(tmp_path / "a.nc"))
    whole = merge.fields_of("2017-03-04", [scene], "mask", grid)
    monkeypatch.setattr(merge, "_CELLS_AT_ONCE", 50)
    parts = merge.fields_of("2017-03-04", [scene], "mask", grid)
    np.testing.assert_allclose(whole.fraction, parts.fraction, atol=1e-6)


def _make(tmp_path, **options):
    form = product.Aggregation(by="all", num_resamples=5)
    settings = {"grid": Grid(5.0, (-20, 0, 10, 10)), "form": form}
    output = str(tmp_path / "c.nc")
    settings["scenes_dir"] = str(tmp_path / "s")
    return product.make(output, **{**settings, **options})


@pytest.fixture
def folder(tmp_path):
    """Three scenes of two days; two of them beside each other."""
    (tmp_path / "s").mkdir()
    _write(tmp_path / "s" / "a.nc", seed=1)
    _write(tmp_path / "s" / "b.nc", extent=(0, 0, 10, 5), seed=2)
    _write(tmp_path / "s" / "c.nc", date="2017-03-05", seed=3)
    return tmp_path


def test_scenes_become_days_which_become_a_product(folder):
    made = _make(folder)
    assert (made.num_days, made.added) == (2, AddedDays(2, 0, 0))
    first = (folder / "c.nc").read_bytes()
    assert _make(folder).added == AddedDays(0, 2, 0)
    _write(folder / "s" / "d.nc", date="2017-03-01", seed=4)
    assert _make(folder).added == AddedDays(1, 2, 0)
    grown = (folder / "c.nc").read_bytes()
    assert grown != first
    other = folder / "other"
    other.mkdir()
    (folder / "s").rename(other / "s")
    _make(other)
    assert (other / "c.nc").read_bytes() == grown
    with xarray.open_dataset(other / "c.nc") as found:
        assert found.attrs["model_fingerprint"] == "abc"
        # 0.8 of all cells are observed; the eastern scene is there on one of three days.
        expected = [[0, 0, 0.8, 0.8, 0.8 / 3, 0.8 / 3], [0] * 6]
        np.testing.assert_allclose(found["coverage"][0], expected, atol=0.05)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"model": "xyz"}, "model: got xyz, expected abc as in the other days"),
        ({"names": ["a", "b", "c", "d"]}, "classes: got .*'a'.*, expected .*'Fish'"),
        ({"step": 0.25}, "degrees per cell: got 0.25, expected 0.5"),
        ({"date": "2017-03-05", "seed": 3}, "2017-03-05 is there twice, .*c.nc has the same pict"),
    ],
)
def test_scenes_that_do_not_fit_are_named_and_may_be_left_out(folder, changed, reason):
    _make(folder)
    before = (folder / "c.nc").read_bytes()
    path = folder / "s" / "x.nc"
    _write(path, **{"date": "2018-01-01", **changed})
    with pytest.raises(ValueError, match=f"^{path}: {reason}"):
        _make(folder)
    assert (folder / "c.nc").read_bytes() == before
    assert _make(folder, on_error="skip").added == AddedDays(0, 2, 1)
    assert (folder / "c.nc").read_bytes() == before


def test_another_model_does_not_join_days_that_are_there(folder):
    _make(folder)
    for path in (folder / "s").iterdir():
        path.unlink()
    _write(folder / "s" / "x.nc", date="2018-01-01", model="xyz")
    with pytest.raises(ValueError, match="has days with model fingerprint abc, got .* xyz"):
        _make(folder)
    with pytest.raises(ValueError, match="has no calibrated_probability"):
        _write(folder / "s" / "x.nc", date="2018-01-01", uncalibrated=True)
        _make(folder, days_dir=str(folder / "new"), measure="expected")


def test_damaged_files_are_named(folder):
    path = folder / "s" / "x.nc"
    whole = (folder / "s" / "a.nc").read_bytes()
    for text in (b"", b"no NetCDF", whole[: len(whole) // 2]):
        path.write_bytes(text)
        with pytest.raises(ValueError, match=f"^{path}: is damaged or not a NetCDF-4 file"):
            _make(folder)
    xarray.Dataset({"mask": ("x", [1])}).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(
        ValueError, match=f"^{path}: not a scene file: lacks the variable time, class"
    ):
        _make(folder)
    assert _make(folder, on_error="skip").added.num_skipped == 1


def test_no_scenes_are_named(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "._a.nc").touch()
    for pattern in (tmp_path / "s", tmp_path / "s" / "*.nc"):
        with pytest.raises(FileNotFoundError, match="s.*: no scenes"):
            scenes.find(str(pattern))
    _write(tmp_path / "s" / "a.nc", extent=(100, 0, 110, 5))
    with pytest.raises(ValueError, match="no scene overlaps the extent"):
        _make(tmp_path)
    with pytest.raises(ValueError, match="expected one of the two"):
        _make(tmp_path, boxes="b.csv")


def test_a_grid_across_the_date_line_has_the_days_of_one_round_the_globe(tmp_path):
    (tmp_path / "s").mkdir()
    _write(tmp_path / "s" / "a.nc", extent=(177.5, 0, 182.5, 5))
    found = []
    for extent in ("170,-10,-170,10", "-180,-90,180,90"):
        folder = str(tmp_path / extent)
        _make(tmp_path, grid=Grid(5.0, parse_extent(extent)), days_dir=folder)
        store = DayStore(folder)
        found.append((store.settings.grid.lon, store.read("2017-03-04").fraction))
    (lon, part), (_, whole) = found
    assert lon.tolist() == [172.5, 177.5, 182.5, 187.5] and part.any()
    np.testing.assert_allclose(part, np.roll(whole, 2, axis=2)[:, 16:20, :4], atol=1e-6)


def test_a_scene_of_another_date_or_gone_is_not_counted_twice(folder):
    _make(folder)
    # The date of c was wrong, b has gone, and a has changed.
    (folder / "s" / "c.nc").unlink()
    _write(folder / "s" / "c.nc", date="2017-03-09", seed=3)
    (folder / "s" / "b.nc").unlink()
    _write(folder / "s" / "a.nc", seed=7)
    made = _make(folder)
    assert (made.num_days, made.added) == (2, AddedDays(2, 0, 0))
    anew = folder / "anew"
    anew.mkdir()
    (folder / "s").rename(anew / "s")
    _make(anew)
    for name in ("2017-03-04.nc", "2017-03-09.nc"):
        found, expected = (xarray.open_dataset(f / "c_days" / name) for f in (folder, anew))
        xarray.testing.assert_equal(found, expected)


def test_days_of_two_folders_of_scenes_add_up_but_never_mix(folder):
    _make(folder)
    (folder / "more").mkdir()
    _write(folder / "more" / "d.nc", date="2017-03-08", seed=4)
    assert _make(folder, scenes_dir=str(folder / "more")).num_days == 3
    _write(folder / "more" / "e.nc", date="2017-03-05", extent=(0, 0, 10, 5), seed=5)
    with pytest.raises(ValueError, match="e: 2017-03-05 is already counted, from other data of"):
        _make(folder, scenes_dir=str(folder / "more"))


def test_a_rare_class_has_its_expected_area(tmp_path):
    """Bytes of 1/250 would make nothing or 0.004 of probabilities of 0.0015."""
    (tmp_path / "s").mkdir()
    grid = cover(Extent(0, 0, 10, 5), (0.5, 0.5))
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0, 0.003, (1, *grid.shape)).astype(np.float32)
    prediction = Prediction(
        name="x",
        date=datetime.datetime(2020, 2, 1),
        platform="",
        model="abc",
        class_names=("Fish",),
        grid=grid,
        probabilities=probabilities,
        masks=probabilities > 1,
        observed=np.ones(grid.shape, bool),
        image=np.zeros((*grid.shape, 3), np.uint8),
        calibration=Calibration((Curve((0, 1), (0, 1)),)),
    )
    write.write_netcdf(str(tmp_path / "s" / "x.nc"), prediction)
    _make(tmp_path, measure="expected")
    with xarray.open_dataset(tmp_path / "c.nc") as found:
        expected = np.average(probabilities[0], weights=grid.areas)
        assert found["region_fraction"].sel(region="all").item() == pytest.approx(
            expected, rel=0.005
        )
        assert "unclassified" not in found
