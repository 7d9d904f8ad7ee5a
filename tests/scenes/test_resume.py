"""Interrupted, shared and failing work."""

import dataclasses
import importlib.util
import os
import signal
import sys
import time

import h5py
import numpy as np
import pytest
import rasterio
from PIL import Image
from programs import TOOLS, start_program
from small import saved_model as _saved_model
from small import write_mosaic

from clouds_tf.data.runners import Runner
from clouds_tf.geo import Extent
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import predict_scenes
from clouds_tf.scenes.read import Reading

pytestmark = pytest.mark.slow

saved_model = _saved_model
OPTIONS = Options(batch_size=2, formats=("netcdf", "geojson"))
ENDINGS = (".nc", ".geojson", ".csv")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Four scenes of one or two windows."""
    folder = tmp_path_factory.mktemp("sky")
    for i in range(4):
        width = 700 if i == 1 else 300
        extent = (-60.0, 0.0, -60 + width * 0.04, 8.0)
        write_mosaic(folder / f"s{i}_2020020{i + 1}.tif", (200, width), extent, seed=i)
    return folder


def contents(folder):
    """Bytes of the files in a folder, by name; of NetCDF those of all variables and attributes.

    HDF5 puts the same objects at other places of a file now and then (seen once in ten runs, in
    workers of Dask): what can be read from a file is the same to the last bit, the file is not.
    """
    paths = {name: os.path.join(folder, name) for name in sorted(os.listdir(folder))}
    return {
        name: read_netcdf(path) if name.endswith(".nc") else open(path, "rb").read()
        for name, path in paths.items()
        if name.endswith(ENDINGS)
    }


def read_netcdf(path):
    found = {}

    def add(name, item):
        # References are addresses in the file.
        attributes = {k: repr(v) for k, v in item.attrs.items() if not k.endswith("_LIST")}
        values = repr(item.asstr()[()]) if item.dtype == object else item[()].tobytes()
        found[name] = item.dtype.str, item.shape, item.chunks, values, attributes

    with h5py.File(path) as file:
        file.visititems(add)
        found["/"] = {k: repr(v) for k, v in file.attrs.items()}
    assert {"mask", "probability", "observed", "lat", "lon"} <= set(found)
    return found


@pytest.fixture(scope="module")
def undisturbed(saved_model, sky, tmp_path_factory):
    """The files of one call."""
    folder = str(tmp_path_factory.mktemp("undisturbed") / "S")
    result = predict_scenes(saved_model, str(sky), folder, OPTIONS)
    assert result.num_predicted == 4 and result.num_windows == 5
    found = contents(folder)
    assert len(found) == 9
    return found


def test_shards_and_another_batch_make_the_same_files(saved_model, sky, undisturbed, tmp_path):
    for i in (1, 0):
        result = predict_scenes(saved_model, str(sky), str(tmp_path), OPTIONS, shard=(i, 2))
        assert result.num_predicted == 2 and result.path is None
    result = predict_scenes(saved_model, str(sky), str(tmp_path), OPTIONS)
    assert result.num_predicted == 0 and result.path is not None
    assert contents(tmp_path) == undisturbed


def test_a_killed_run_continues_to_the_same_files(saved_model, sky, undisturbed, tmp_path):
    """Killed as soon as the first scene is in the manifest."""
    flags = [f"--saved_model={saved_model}", f"--scenes={sky}", f"--output_dir={tmp_path}"]
    flags += ["--batch_size=2", "--formats=netcdf,geojson"]
    process = start_program(f"{TOOLS}/predict_scenes.py", *flags)
    while process.poll() is None and not any((tmp_path / "manifest").glob("s*.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list((tmp_path / "manifest").glob("s*.json")))
    assert 1 <= done
    result = predict_scenes(saved_model, str(sky), str(tmp_path), OPTIONS)
    assert result.num_predicted == 4 - done
    assert contents(tmp_path) == undisturbed
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_beam_makes_the_same_files(saved_model, sky, undisturbed, tmp_path):
    """In a process of Beam's direct runner."""
    pytest.importorskip("apache_beam")
    beam_options = ("--direct_running_mode=multi_processing", "--direct_num_workers=1")
    runner = Runner("direct", beam_options=beam_options)
    predict_scenes(saved_model, str(sky), str(tmp_path), OPTIONS, runner=runner)
    assert contents(tmp_path) == undisturbed


def test_changed_scenes_are_predicted_again_and_other_models_refused(
    saved_model, sky, undisturbed, tmp_path
):
    folder = str(tmp_path / "S")
    one = str(sky / "s0_20200201.tif")
    predict_scenes(saved_model, one, folder, OPTIONS)
    assert predict_scenes(saved_model, one, folder, OPTIONS).num_predicted == 0
    more = dataclasses.replace(OPTIONS, formats=("netcdf", "geojson", "cog"))
    assert predict_scenes(saved_model, one, folder, more).num_predicted == 1
    os.utime(one, ns=(1, 1))
    assert predict_scenes(saved_model, one, folder, more).num_predicted == 1
    with pytest.raises(ValueError, match="has results of overlap 0.25, got 0.5"):
        predict_scenes(saved_model, one, folder, dataclasses.replace(OPTIONS, overlap=0.5))


def hostile(folder):
    """Writes scenes that cannot be predicted; gives what is said of each."""
    whole = folder / "whole_20200101.tif"
    write_mosaic(whole, (200, 300), (0.0, 0.0, 12.0, 8.0))
    content = whole.read_bytes()
    (folder / "cut_20200101.tif").write_bytes(content[: len(content) // 3])
    (folder / "empty_20200101.tif").write_bytes(b"")
    (folder / "text_20200101.jpg").write_bytes(b"<html>")
    write_mosaic(folder / "pixel_20200101.tif", (1, 1), (0.0, 0.0, 0.01, 0.01))
    write_mosaic(folder / "metres_20200101.tif", (200, 300), (5e5, 5e6, 6e5, 5.1e6))
    write_mosaic(folder / "coarse_20200101.tif", (20, 30), (0.0, 0.0, 30.0, 20.0))
    write_mosaic(folder / "undated.tif", (200, 300), (0.0, 0.0, 12.0, 8.0))
    Image.fromarray(np.zeros((200, 300), np.uint16)).save(folder / "deep_20200101.png")
    Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(folder / "nowhere_20200101.png")
    with rasterio.open(
        folder / "bomb_20200101.tif", "w", "GTiff", 100000, 100000, 3, "EPSG:4326",
        rasterio.transform.from_bounds(-180, -90, 180, 90, 100000, 100000), np.uint8,
        sparse_ok=True, tiled=True,
    ):
        pass
    (folder / "bad_20200101.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
    return {
        "cut_20200101.tif": "cannot be read",
        "empty_20200101.tif": "it begins with b''",
        "text_20200101.jpg": "is not a TIFF, JPEG",
        "pixel_20200101.tif": "expected at least 0.64 x 0.64",
        "metres_20200101.tif": "coordinate reference system correct",
        "coarse_20200101.tif": "--force",
        "undated.tif": "--date",
        "deep_20200101.png": "--value_range",
        "nowhere_20200101.png": "--extent",
        "bomb_20200101.tif": "--max_scene_pixels",
        "bad_20200101.nc": "cannot be read",
    }


def test_hostile_scenes_get_a_line_each_and_the_others_their_masks(saved_model, tmp_path):
    (tmp_path / "in").mkdir()
    expected = hostile(tmp_path / "in")
    result = predict_scenes(saved_model, str(tmp_path / "in"), str(tmp_path / "S"), OPTIONS)
    assert result.num_predicted == 1 and len(result.failed) == len(expected)
    for name, message in expected.items():
        (line,) = [line for line in result.failed if line.startswith(str(tmp_path / "in" / name))]
        assert message in line and "\n" not in line, line
    made = sorted(name for name in os.listdir(tmp_path / "S") if name.endswith((".nc", ".geojson")))
    assert made == ["whole_20200101.geojson", "whole_20200101.nc"]
    # What was wrong can be set right.
    reading = Reading(extent=Extent(0, 0, 12, 8), value_range=(0, 65535))
    options = dataclasses.replace(OPTIONS, reading=reading, force=True)
    result = predict_scenes(saved_model, str(tmp_path / "in"), str(tmp_path / "S"), options)
    failed = {os.path.basename(line.split(":")[0]) for line in result.failed}
    assert not failed & {"deep_20200101.png", "nowhere_20200101.png", "coarse_20200101.tif"}
    with pytest.raises(ValueError, match="cannot be read|first bytes"):
        predict_scenes(
            saved_model, str(tmp_path / "in"), str(tmp_path / "T"), OPTIONS, on_error="fail"
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"overlap": 0.9}, "overlap: got 0.9"),
        ({"resolution": 5}, "resolution: got 5"),
        ({"formats": ("shapefile",)}, "formats: got shapefile"),
        ({"batch_size": 0}, "batch_size: got 0"),
    ],
)
def test_impossible_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Options(**arguments)


def test_outputs_never_mix_with_scenes(saved_model, sky):
    with pytest.raises(ValueError, match="has the scenes themselves"):
        predict_scenes(saved_model, str(sky), str(sky), OPTIONS)
    assert not (sky / "scenes.csv").exists()


@pytest.mark.skipif(
    sys.version_info < (3, 10),
    reason="the last Beam for Python 3.9 hands the name of its runner to Dask, which refuses it",
)
def test_dask_makes_the_same_files(saved_model, sky, undisturbed, tmp_path):
    """In a cluster of two processes."""
    pytest.importorskip("apache_beam")
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        options = (f"--dask_client_address={cluster.scheduler_address}",)
        runner = Runner("dask", beam_options=options)
        predict_scenes(saved_model, str(sky), str(tmp_path), OPTIONS, runner=runner)
        distributed.default_client().close()  # Beam leaves it open, and xarray would turn to it
    assert contents(tmp_path) == undisturbed


@pytest.mark.parametrize(
    "missing, formats, extra",
    [
        ("rasterio", ("netcdf",), "geo"),
        ("h5netcdf", ("netcdf",), "geo"),
        ("pyarrow", ("geoparquet",), "parquet"),
        ("matplotlib", ("picture",), "plots"),
    ],
)
def test_a_missing_package_is_one_line_before_any_work(
    sky, tmp_path, monkeypatch, missing, formats, extra
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    folder = tmp_path / "S"
    with pytest.raises(ValueError, match=rf"{missing}.*\[{extra}\]"):
        predict_scenes("no model", str(sky), str(folder), Options(formats=formats))
    assert not folder.exists()
