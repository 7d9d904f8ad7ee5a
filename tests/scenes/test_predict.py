"""Scenes of any size through a SavedModel."""

import os

import h5py
import numpy as np
import pytest
import tensorflow as tf
from small import saved_model as _saved_model
from small import write_mosaic

from clouds_tf import rle
from clouds_tf.dataset import CLOUDS
from clouds_tf.scenes import network
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import predict_scenes

NETCDF = Options(formats=("netcdf",), batch_size=4)


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
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


def test_a_scene_of_one_frame_has_the_masks_of_predict(saved_model, frames, tmp_path):
    result = predict_scenes(saved_model, str(frames), str(tmp_path / "S"), NETCDF)
    assert result.num_predicted == 3 and not result.failed
    module = tf.saved_model.load(saved_model)
    seen = set()
    for path in sorted(frames.iterdir()):
        answer = module.signatures["serving_default"](image_bytes=tf.constant([path.read_bytes()]))
        expected = rle.decode(answer["encoded_pixels"][0], (350, 525), (350, 525)).numpy()
        found = read_netcdf(tmp_path / "S" / f"{path.stem}.nc")["mask"][0]
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
    return predict_scenes(saved_model, str(sky), folder, Options(batch_size=4)), folder


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
        assert file.attrs["Conventions"] == "CF-1.8"
        assert file.attrs["model"] == network.fingerprint(saved_model)
        mask, probability = file["mask"].attrs, file["probability"].attrs
        assert mask["flag_masks"].tolist() == [1, 2, 4, 8]
        assert mask["flag_meanings"] == "Fish Flower Gravel Sugar"
        assert probability["_FillValue"] == 255 and probability["scale_factor"] == np.float32(0.004)
        assert file["lat"].attrs["bounds"] == "lat_bnds"
        assert file["crs"].attrs["grid_mapping_name"] == "latitude_longitude"
