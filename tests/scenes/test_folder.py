"""What a folder of results holds after scenes were renamed, changed or failed; a stub predicts."""

import csv
import dataclasses
import datetime
import os

import numpy as np
import pytest
import tensorflow as tf
import xarray
from small import write_mosaic

from clouds_tf.climatology import product
from clouds_tf.dataset import Dataset
from clouds_tf.geo import Extent, Grid
from clouds_tf.prediction.likeness import Likeness
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.scenes import network, predict, write
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.network import Answers
from clouds_tf.scenes.predict import predict_scenes
from clouds_tf.scenes.read import Reading

OPTIONS = Options(formats=("netcdf",), batch_size=4)


class Stub(network.Network):
    """Finds a class where a scene is bright, in windows of 20 x 30 cells of 0.04 degrees."""

    dataset = Dataset(("Fish", "Sugar"), (20, 30), (20, 30), gap_brightness=10, degrees=(0.8, 1.2))
    calibration = None
    image_sizes, max_image_pixels = ((20, 30),), 10**6
    fingerprint, warning = "stub", ""

    def __init__(self):
        pass

    def predict_tiles(self, tiles):
        bright = np.stack([tile.pixels for tile in tiles])[..., :1].astype(np.float32) / 255
        probabilities, likeness = np.repeat(bright, 2, axis=-1), bright.max(axis=(1, 2, 3)) - 0.5
        return Answers(probabilities, probabilities > 0.5, likeness.clip(0))


@pytest.fixture(autouse=True)
def stub(monkeypatch):
    likeness = Likeness((20, 30), (0.0,), ((1.0,),), (1.0,))
    metadata = Metadata(Stub.dataset, Stub.image_sizes, likeness=likeness)
    opened = Predictor("E/1", metadata, "stub", dict, dict)
    monkeypatch.setattr(Predictor, "open", lambda *_: opened)
    monkeypatch.setattr(predict, "Network", lambda *_: Stub())


@pytest.fixture
def folder(tmp_path):
    """Two scenes of 2 x 3 degrees."""
    (tmp_path / "in").mkdir()
    for i in (1, 2):
        _mosaic(tmp_path / "in" / f"s{i}_2020010{i}.tif", seed=i)
    return tmp_path


def _mosaic(path, **options):
    write_mosaic(path, (50, 75), (0.0, 0.0, 3.0, 2.0), **options)


def _run(folder, options=OPTIONS, scenes="in", **arguments):
    return predict_scenes("E/1", str(folder / scenes), str(folder / "S"), options, **arguments)


def _scenes(folder):
    """Names in scenes.csv, and of the NetCDF files."""
    with open(folder / "S" / "scenes.csv") as file:
        rows = {row["scene"] for row in csv.DictReader(file)}
    return rows, {path.stem for path in (folder / "S").glob("*.nc")}


def test_a_scene_that_was_renamed_is_not_counted_twice(folder):
    assert _run(folder).num_predicted == 2
    # Its date was wrong.
    (folder / "in" / "s2_20200102.tif").rename(folder / "in" / "s2_20200103.tif")
    assert _run(folder).num_predicted == 1
    assert _scenes(folder) == ({"s1_20200101", "s2_20200103"},) * 2
    assert _run(folder).num_predicted == 0


def test_scenes_of_several_folders_may_share_one_of_results(folder):
    _run(folder)
    (folder / "more").mkdir()
    _mosaic(folder / "more" / "s3_20200105.tif", seed=3)
    assert _run(folder, scenes="more").num_predicted == 1
    assert len(_scenes(folder)[0]) == len(_scenes(folder)[1]) == 3


def test_a_scene_that_fails_later_leaves_nothing_that_counts(folder):
    _run(folder)
    (folder / "in" / "s2_20200102.tif").write_bytes(b"no scene")
    result = _run(folder)
    assert len(result.failed) == 1 and result.num_predicted == 0
    assert _scenes(folder) == ({"s1_20200101"},) * 2
    made = product.make(
        str(folder / "c.nc"),
        scenes_dir=str(folder / "S"),
        grid=Grid(1, Extent(0, 0, 3, 2)),
        form=product.Aggregation("all", num_resamples=0),
    )
    assert made.num_days == 1


def test_scenes_of_the_night_get_their_entry_at_once(folder, monkeypatch):
    for i in range(20):
        write_mosaic(folder / "in" / f"n{i:02}_20200101.tif", (50, 75), (0.0, 0.0, 3.0, 2.0))
    monkeypatch.setattr(Stub, "dataset", dataclasses.replace(Stub.dataset, gap_brightness=255))
    done, alive = [], []
    finish = predict._finish

    def counted(*arguments):
        alive.append(len(opened) - len(done))
        done.append(finish(*arguments))
        return done[-1]

    opened = []
    job = predict.Job
    monkeypatch.setattr(predict, "Job", lambda *a: opened.append(a) or job(*a))
    monkeypatch.setattr(predict, "_finish", counted)
    result = _run(folder)
    assert result.num_predicted == 22 and max(alive) <= 5
    with open(result.path) as file:
        assert {row["observed_km2"] for row in csv.DictReader(file)} == {"0.0"}


def test_whatever_goes_wrong_with_a_scene_is_its_own_fault(folder, monkeypatch):
    _mosaic(folder / "in" / "a_20200104.tif")
    netcdf = write.write_netcdf

    def broken(path, prediction):
        if prediction.name == "a_20200104":
            raise ZeroDivisionError("one bad scene")
        netcdf(path, prediction)

    monkeypatch.setattr(write, "write_netcdf", broken)
    lat, lon = 1.95 - 0.1 * np.arange(20), 0.05 + 0.1 * np.arange(30)
    data = xarray.DataArray(
        np.full((20, 30), 99, np.uint8), {"lat": lat, "lon": lon}, name="x"
    ).assign_coords(time=np.datetime64("NaT", "ns"))
    data.to_netcdf(folder / "in" / "nat.nc", engine="h5netcdf")
    result = _run(folder, dataclasses.replace(OPTIONS, force=True))
    assert result.num_predicted == 2
    failed = sorted(line.split("/")[-1] for line in result.failed)
    assert failed[0] == "a_20200104.tif: ZeroDivisionError: one bad scene"
    assert failed[1].startswith("nat.nc: its time is not a date")
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        _run(folder, on_error="fail")


def test_scenes_unlike_the_training_s_are_warned_of_or_left_out(folder):
    _mosaic(folder / "in" / "dim_20200103.tif", seed=3, high=60)
    result = _run(folder)
    assert "1 scene of 3 does not look like" in result.warnings[0]
    assert "dim_20200103.tif (likeness 0.000" in result.warnings[0]
    with xarray.open_dataset(folder / "S" / "dim_20200103.nc") as file:
        assert file["likeness"].values == [0]
    strict = dataclasses.replace(OPTIONS, min_likeness=0.01)
    for num_predicted in (3, 0):
        result = _run(folder, strict)
        assert result.num_predicted == num_predicted
        assert "left out 1 scene" in result.warnings[0]
    with open(folder / "S" / "scenes.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["scene"] == "dim_20200103"]
    assert {(row["likeness"], row["expected_share"], row["present"]) for row in rows} == {
        ("0.0", "", "")
    }
    assert not (folder / "S" / "dim_20200103.nc").exists()


def test_dollars_in_names_are_no_mathematics(folder):
    pytest.importorskip("matplotlib")
    _mosaic(folder / "in" / r"$a_20200104$\frac.tif")
    result = _run(folder, dataclasses.replace(OPTIONS, formats=("picture",)))
    assert not result.failed and (folder / "S" / r"$a_20200104$\frac.png").exists()


def test_two_scenes_of_one_name_do_not_stop_the_others(folder):
    _mosaic(folder / "in" / "s2_20200102.tiff", seed=3)
    result = _run(folder)
    assert result.num_predicted == 2 and "rename one" in result.failed[0]
    with pytest.raises(ValueError, match="rename one"):
        _run(folder, on_error="fail")


def test_what_a_scene_knows_better_is_said(folder):
    with open(os.fsencode(folder) + b"/in/\xff.tif", "wb"):
        pass
    reading = Reading(extent=Extent(10, 0, 13, 2), date=datetime.datetime(2020, 1, 2))
    result = _run(folder, dataclasses.replace(OPTIONS, reading=reading))
    assert [failed.split(": ")[1] for failed in result.failed] == ["no such file"]
    first, second = result.warnings
    assert "extent of its own, 0,0,3,2," in first and "of its own, 2020-01-01" in first
    assert "extent of its own" in second and "date of its own" not in second
    same = Reading(extent=Extent(0, 0, 3, 2.001))
    assert not _run(folder, dataclasses.replace(OPTIONS, reading=same)).warnings


def test_scenes_of_less_than_half_a_window_are_warned_of(folder):
    for name, degrees in (("a_20200103", (1.2, 0.76)), ("b_20200104", (0.72, 0.64))):
        size = [round(side / 0.04) for side in degrees[::-1]]
        write_mosaic(folder / "in" / f"{name}.tif", size, (0.0, 0.0, *degrees))
    (warning,) = _run(folder).warnings
    assert "b_20200104" in warning and "fills 48 % of the 0.8 x 1.2 degrees" in warning


def test_one_value_range_serves_a_mixed_folder(folder):
    values = xarray.DataArray(
        np.linspace(0, 1, 50 * 75).reshape(50, 75),
        {"lat": 1.98 - 0.04 * np.arange(50), "lon": 0.02 + 0.04 * np.arange(75)},
        name="reflectance",
    )
    values.to_netcdf(folder / "in" / "x20200105.nc", engine="h5netcdf")
    plain = _run(folder)
    assert plain.num_predicted == 2 and len(plain.failed) == 1
    before = xarray.load_dataset(folder / "S" / "s1_20200101.nc")["brightness"]
    result = _run(folder, dataclasses.replace(OPTIONS, reading=Reading(value_range=(0, 1))))
    assert not result.failed and len(result.warnings) == 2
    assert "8-bit values, which --value_range leaves" in result.warnings[0]
    after = xarray.load_dataset(folder / "S" / "s1_20200101.nc")["brightness"]
    np.testing.assert_array_equal(after, before)


def test_folders_of_earlier_versions_and_useless_flags_are_refused(folder):
    with pytest.raises(ValueError, match="variable: .* has no NetCDF or zarr"):
        _run(folder, dataclasses.replace(OPTIONS, reading=Reading(variable="x")))
    os.makedirs(folder / "S" / "cards")
    with pytest.raises(ValueError, match="scenes of an earlier version"):
        _run(folder)


def test_damaged_images_of_one_window_fail_alone(folder, monkeypatch):
    """Half a JPEG, which GDAL reads and TensorFlow refuses, beside a whole one."""
    monkeypatch.setattr(Stub, "dataset", dataclasses.replace(Stub.dataset, gap_brightness=None))
    image = tf.io.encode_jpeg(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    for name, content in (("whole", image.numpy()), ("half", image.numpy()[:-200])):
        (folder / "in" / f"{name}_20200101_0-1.2_0-0.8.jpg").write_bytes(content)
    result = _run(folder)
    assert [line.split("/")[-1][:4] for line in result.failed] == ["half"]
    assert result.num_predicted == 3


def test_a_stretch_is_what_the_network_sees_and_is_named(folder, monkeypatch):
    """Ocean with a cloud in it, beside a gap."""
    pixels = np.full((50, 75, 3), 12, np.uint8)
    pixels[10:30, 10:40] = 80
    pixels[:, -20:] = 1
    image = tf.io.encode_png(pixels).numpy()
    (folder / "in" / "x_20200109_0-3_0-2.png").write_bytes(image)
    monkeypatch.setattr(Stub, "dataset", dataclasses.replace(Stub.dataset, gap_brightness=2))

    def run(stretch):
        result = _run(folder, dataclasses.replace(OPTIONS, reading=Reading(stretch=stretch)))
        return result, xarray.load_dataset(folder / "S" / "x_20200109_0-3_0-2.nc")

    plain, before = run("none")
    assert plain.num_predicted == 3 and plain.curves == "" and before.attrs["stretch"] == "none"
    result, after = run("sqrt")  # a resumed run with another stretch predicts all again
    assert result.num_predicted == 3 and result.curves == "stretch sqrt: gamma 0.5 (3 scenes)"
    assert after.attrs["stretch"] == "sqrt"
    assert run("sqrt")[0].num_predicted == 0
    np.testing.assert_array_equal(after["observed"], before["observed"])
    seen = before["observed"].values == 1
    assert not seen[0, :, -20:].any() and seen[0, :, :-20].all()
    was, now = (data["brightness"].values[seen].astype(float) for data in (before, after))
    np.testing.assert_allclose(now, 255 * np.sqrt(was / 255), atol=1)
    assert (after["brightness"].values[~seen] == 0).all()
    with pytest.raises(ValueError, match="stretch: got 'log'"):
        Reading(stretch="log")
    with pytest.raises(ValueError, match="auto is for the brightness of the competition"):
        run("auto")  # the stub is of another data set
