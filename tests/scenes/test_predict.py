"""Scenes of any size through a SavedModel."""

import csv
import dataclasses
import json
import os

import h5py
import numpy as np
import pytest
import rasterio
import stubs
import tensorflow as tf
from small import saved_model as _saved_model
from small import write_mosaic

from clouds_tf import files, rle
from clouds_tf.dataset import CLOUDS
from clouds_tf.geo import Extent, cover, netcdf
from clouds_tf.prediction.engine import ENGINES
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import predict_scenes
from clouds_tf.serving.cloud_model import CloudModel, write_version

pytestmark = pytest.mark.slow

NETCDF = Options(formats=("netcdf",), batch_size=4, land="none")


saved_model = _saved_model


@pytest.fixture(scope="module")
def frames(data_dir, tmp_path_factory):
    """Three JPEGs with the extent of one frame in their names, the first one with a gap."""
    folder = tmp_path_factory.mktemp("frames")
    for i, path in enumerate(sorted((data_dir / "test_images").iterdir())):
        (folder / f"Aqua_2020010{i + 1}_-61--40_10-24.jpg").write_bytes(path.read_bytes())
    return folder


def read_netcdf(path):
    """All variables of a NetCDF file, by h5py."""
    with files.local_copy(str(path)) as local, h5py.File(local) as file:
        return {name: file[name][()] for name in file}


def test_a_scene_of_one_frame_has_the_masks_of_predict(saved_model, frames):
    """Here in a folder that is remote."""
    result = predict_scenes(saved_model, str(frames), "ram://scenes/S", NETCDF)
    assert result.num_predicted == 3 and not result.failed
    assert files.read_text(result.path).count("\n") == 1 + 3 * 4
    module = tf.saved_model.load(saved_model)
    seen = set()
    for path in sorted(frames.iterdir()):
        answer = module.signatures["serving_default"](image_bytes=tf.constant([path.read_bytes()]))
        expected = rle.decode(answer["encoded_pixels"][0], (350, 525), (350, 525)).numpy()
        found = read_netcdf(f"ram://scenes/S/{path.stem}.nc")["mask"][0]
        for i in range(4):
            np.testing.assert_array_equal(found >> i & 1, expected[i])
            seen |= {(i, bool(expected[i].any()), bool(expected[i].all()))}
    assert {present for _, present, _ in seen} == {True, False}


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A folder with a scene of four windows or more, and one smaller than a window."""
    folder = tmp_path_factory.mktemp("sky")
    write_mosaic(folder / "wide_20200201.tif", (400, 900), (-60.0, 0.0, -24.0, 16.0))
    write_mosaic(folder / "small_20200202.tif", (150, 150), (175.0, -3.0, 181.0, 3.0), seed=1)
    return folder


@pytest.fixture(scope="module")
def results(saved_model, sky, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("results") / "S")
    return predict_scenes(saved_model, str(sky), folder, Options(batch_size=4, land="none")), folder


def test_netcdf_is_read_by_h5py_and_follows_cf(results, saved_model):
    result, folder = results
    assert result.num_predicted == 2 and not result.failed
    found = read_netcdf(os.path.join(folder, "wide_20200201.nc"))
    assert found["mask"].shape == (1, 400, 900) and found["probability"].shape == (1, 4, 400, 900)
    np.testing.assert_allclose(found["lat"], 16 - 0.04 * (np.arange(400) + 0.5), atol=1e-9)
    np.testing.assert_allclose(found["lon"], -60 + 0.04 * (np.arange(900) + 0.5), atol=1e-9)
    np.testing.assert_allclose(found["lon_bnds"].mean(axis=1), found["lon"], atol=1e-9)
    np.testing.assert_allclose(found["lat_bnds"][:, 0] - found["lat_bnds"][:, 1], 0.04, atol=1e-9)
    assert found["time"][0] == 1580515200  # 2020-02-01
    assert [name.decode() for name in found["class"]] == list(CLOUDS.class_names)
    assert found["observed"].all() and found["probability"].max() <= 250
    with h5py.File(os.path.join(folder, "wide_20200201.nc")) as file:
        assert file.attrs["Conventions"] == netcdf.CONVENTIONS
        assert file.attrs["model_fingerprint"] == Predictor.open(saved_model).identity
        mask, probability = file["mask"].attrs, file["probability"].attrs
        assert mask["flag_masks"].tolist() == [1, 2, 4, 8]
        assert mask["flag_meanings"] == "Fish Flower Gravel Sugar"
        assert probability["_FillValue"] == -1 and probability["scale_factor"] == np.float32(0.004)
        assert file["lat"].attrs["bounds"] == "lat_bnds"
        assert file["crs"].attrs["grid_mapping_name"] == "latitude_longitude"


def test_windows_go_through_the_network_and_are_blended(results, saved_model, sky):
    """The middle of the first window, which no other one reaches, is the network's own answer."""
    _, folder = results
    found = read_netcdf(os.path.join(folder, "wide_20200201.nc"))
    with rasterio.open(sky / "wide_20200201.tif") as file:
        pixels = np.moveaxis(file.read(), 0, -1)
    module = tf.saved_model.load(saved_model)
    answer = module.signatures["from_pixels"](images=tf.constant(pixels[np.newaxis, :350, :525]))
    expected = np.moveaxis(answer["probabilities"][0].numpy(), -1, 0)
    # Windows begin at rows 0 and 50, columns 0 and 375: up to row 50 there is one in each column.
    part = (slice(None), slice(0, 50), slice(0, 375))
    got = found["probability"][0][part] * 0.004
    np.testing.assert_allclose(got, expected[part], atol=0.003)


def test_a_scene_across_the_date_line_keeps_longitudes_rising(results):
    _, folder = results
    found = read_netcdf(os.path.join(folder, "small_20200202.nc"))
    np.testing.assert_allclose(found["lon"], 175 + 0.04 * (np.arange(150) + 0.5), atol=1e-9)
    with open(os.path.join(folder, "small_20200202.geojson")) as file:
        features = json.load(file)["features"]
    corners = np.array(
        [c for f in features for p in f["geometry"]["coordinates"] for ring in p for c in ring]
    )
    assert len(features) and abs(corners[:, 0]).max() <= 180


def test_the_globe_has_no_seam(saved_model, tmp_path):
    """A belt round the globe gets the same answers where it is cut elsewhere."""
    pixels = write_mosaic(tmp_path / "a_20200101.tif", (20, 1800), (-180.0, -2.0, 180.0, 2.0))
    # 25 windows at every 360th of 9000 cells; eight of them are 576 pixels.
    turned = np.roll(pixels, -576, axis=2)
    west = -180 + 576 * 0.2
    transform = rasterio.transform.from_bounds(west, -2, west + 360, 2, 1800, 20)
    with rasterio.open(
        tmp_path / "b_20200101.tif", "w", "GTiff", 1800, 20, 3, "EPSG:4326", transform, np.uint8
    ) as file:
        file.write(turned)
    options = dataclasses.replace(NETCDF, force=True, batch_size=16, overlap=0.3142)
    result = predict_scenes(saved_model, str(tmp_path / "*.tif"), str(tmp_path / "S"), options)
    assert result.num_windows == 2 * 25
    a, b = (read_netcdf(tmp_path / "S" / f"{name}_20200101.nc") for name in "ab")
    assert a["mask"].shape == (1, 100, 9000)
    turned = np.roll(b["probability"], 2880, axis=-1).astype(int)
    assert abs(turned - a["probability"]).max() <= 1  # of 250


def test_what_was_not_observed_has_no_probability_and_no_area(saved_model, tmp_path):
    write_mosaic(tmp_path / "a_20200101.tif", (200, 600), (0.0, 0.0, 24.0, 8.0), nodata=0)
    with rasterio.open(tmp_path / "a_20200101.tif", "r+") as file:
        pixels = file.read()
        pixels[:, :, :100] = 0  # no data
        file.write(pixels)
    result = predict_scenes(saved_model, str(tmp_path / "*.tif"), str(tmp_path / "S"), NETCDF)
    found = read_netcdf(tmp_path / "S" / "a_20200101.nc")
    assert not found["observed"][0, :, :100].any() and found["observed"][0, :, 100:].all()
    assert (found["probability"][0, :, :, :100] == -1).all()
    with open(result.path) as file:
        rows = list(csv.DictReader(file))
    grid = cover(Extent(4, 0, 24, 8), (0.04, 0.04))
    assert float(rows[0]["observed_km2"]) == pytest.approx(grid.row_areas.sum() * 500, rel=1e-6)
    for i, row in enumerate(rows):
        mask = (found["mask"][0] >> i & 1) * found["observed"][0]
        area = float(mask.sum(axis=1) @ grid.row_areas)
        assert float(row["area_km2"]) == pytest.approx(area, abs=0.01)
        assert float(row["share"]) == pytest.approx(area / float(row["observed_km2"]), abs=1e-5)
        assert found["area_fraction"][0, i] == pytest.approx(float(row["share"]), abs=1e-6)


def test_other_resolutions_show_the_same_areas(saved_model, tmp_path):
    write_mosaic(tmp_path / "a_20200101.tif", (200, 600), (0.0, 0.0, 24.0, 8.0))

    def predict(resolution):
        options = dataclasses.replace(NETCDF, resolution=resolution)
        folder = tmp_path / str(resolution)
        predict_scenes(saved_model, str(tmp_path / "*.tif"), str(folder), options)
        found = read_netcdf(folder / "a_20200101.nc")
        return found, np.where(found["probability"] < 0, 0, found["probability"]).mean()

    _, expected = predict(None)
    for resolution, size in ((0.02, (400, 1200)), (0.1, (80, 240))):
        found, mean = predict(resolution)
        assert found["mask"].shape[1:] == size
        assert mean == pytest.approx(expected, abs=1)
        np.testing.assert_allclose(found["lon"][0], resolution / 2, atol=1e-9)


def test_far_from_the_equator_a_line_says_so(saved_model, tmp_path):
    write_mosaic(tmp_path / "a_20200101.tif", (100, 100), (0.0, 80.0, 10.0, 90.0))
    options = dataclasses.replace(NETCDF, force=True)
    result = predict_scenes(saved_model, str(tmp_path / "*.tif"), str(tmp_path / "S"), options)
    assert result.num_predicted == 1 and "90 degrees of latitude" in result.warnings[0]
    bounds = read_netcdf(tmp_path / "S" / "a_20200101.nc")["lat_bnds"]
    assert bounds.max() == 90 and np.isfinite(bounds).all()


def test_frames_of_an_ensemble_of_two_sizes_too(frames, tmp_path):
    models = [stubs.network(classification_head=True, seed=seed) for seed in range(2)]
    ensemble = CloudModel(models, Metadata(CLOUDS, ((32, 64), (64, 96))))
    path = write_version(ensemble, str(tmp_path / "E"))
    options = dataclasses.replace(NETCDF, batch_size=2)
    predict_scenes(path, str(frames), str(tmp_path / "S"), options)
    for file in sorted(frames.iterdir()):
        answer = ensemble.serve(tf.constant([file.read_bytes()]))
        expected = rle.decode(answer["encoded_pixels"][0], (350, 525), (350, 525)).numpy()
        found = read_netcdf(tmp_path / "S" / f"{file.stem}.nc")["mask"][0]
        np.testing.assert_array_equal([found >> i & 1 for i in range(4)], expected)


def test_openvino_gives_nearly_the_same_masks_in_a_folder_of_its_own(saved_model, frames, tmp_path):
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    folders = [str(tmp_path / engine) for engine in ENGINES]
    for engine, folder in zip(ENGINES, folders):
        result = predict_scenes(saved_model, str(frames), folder, NETCDF, engine=engine)
        assert result.num_predicted == 3 and not result.failed and not result.warnings
    for path in frames.iterdir():
        files = [os.path.join(folder, f"{path.stem}.nc") for folder in folders]
        expected, found = (read_netcdf(file)["probability"].astype(float) for file in files)
        assert 0 < np.abs(found - expected).mean() * 0.004 < 0.01
    with pytest.raises(ValueError, match="has results of model .*/openvino.*, got"):
        predict_scenes(saved_model, str(frames), folders[1], NETCDF)
