"""The tables of objects; scipy is the oracle."""

import datetime

import numpy as np
import pandas as pd
import pytest
import xarray
from scene_writer import write_scene
from scipy import ndimage

from clouds_tf.climatology import objects, product, scenes
from clouds_tf.climatology.inputs import AddedDays
from clouds_tf.geo import Extent, cover
from clouds_tf.geo.grid import Grid
from clouds_tf.scenes import write
from clouds_tf.scenes.masks import Prediction

pytestmark = pytest.mark.lanes


def test_the_tables_of_a_folder(tmp_path):
    (tmp_path / "s").mkdir()
    for i, date in enumerate(("2017-03-04", "2017-03-05")):
        path = tmp_path / "s" / f"{i}.nc"
        masks, observed, probabilities, *_ = write_scene(path, date=date, seed=i)
    made = product.make(
        str(tmp_path / "c.nc"),
        scenes_dir=str(tmp_path / "s"),
        grid=Grid(5.0, (-20, 0, 10, 10)),
        form=product.Aggregation("all", num_resamples=0),
        extras=product.ExtraOutputs(objects=str(tmp_path / "o.parquet")),
    )
    table = pd.read_parquet(tmp_path / "o.parquet")
    assert list(table.columns) == list(objects.COLUMNS)
    second = table[table["scene"] == "1"]
    assert set(second["date"]) == {"2017-03-05"}
    eight = np.ones((3, 3))
    for mask, shares, name in zip(masks, probabilities, ("Fish", "Flower", "Gravel", "Sugar")):
        of_class = second[second["class"] == name]
        assert len(of_class) == ndimage.label(mask, eight)[1]
        scene = scenes.read(str(tmp_path / "s" / "1.nc"))
        rows = np.abs(np.diff(np.sin(np.radians(scene.grid.lat_edges))))
        areas = mask * rows[:, None] * np.radians(0.5) * 6371.0072**2
        assert of_class["area_km2"].sum() == pytest.approx(areas.sum(), rel=1e-9)
        weighted = (of_class["area_km2"] * of_class["mean_probability"]).sum()
        assert weighted == pytest.approx((areas * shares).sum(), rel=1e-6)
    summary = pd.read_csv(tmp_path / "o_scenes.csv")
    assert summary["num_objects"].tolist() == list(table.groupby("scene").size())
    assert set(summary["cloudy"]) == {"patterns"}
    area = observed * rows[:, None]
    share = (area * masks.any(axis=0)).sum() / area.sum()
    assert summary["cloud_fraction"][1] == pytest.approx(share, rel=1e-3)
    assert str(made).endswith(f"wrote {tmp_path}/o.parquet; wrote {tmp_path}/o_scenes.csv")
    with pytest.raises(ValueError, match="objects: need scenes_dir"):
        product.check(
            "c.nc", Grid(), product.Aggregation(), product.ExtraOutputs(objects="o.parquet")
        )


def test_scenes_of_this_project_are_read(tmp_path):
    """From `scenes.write` to a cell, across the date line."""
    grid = cover(Extent(175, 10, 185, 14), (0.5, 0.5))
    rng = np.random.default_rng(0)
    masks, observed = rng.random((2, *grid.shape)) < 0.5, rng.random(grid.shape) < 0.7
    prediction = Prediction(
        name="belt",
        date=datetime.datetime(2020, 2, 1, 23, 30),
        platform="Aqua",
        model="abc",
        class_names=("Fish", "Flower"),
        grid=grid,
        probabilities=rng.random((2, *grid.shape), np.float32),
        masks=masks,
        observed=observed,
        image=rng.integers(0, 255, (*grid.shape, 3)).astype(np.uint8),
        likeness=0.75,
    )
    write.write_netcdf(str(tmp_path / "belt.nc"), prediction)
    scene = scenes.read(str(tmp_path / "belt.nc"))
    assert (scene.platform, scene.likeness, scene.seconds % 86400) == ("Aqua", 0.75, 84600)
    made = product.make(
        str(tmp_path / "c.nc"),
        scenes_dir=str(tmp_path / "belt.nc"),
        grid=Grid(10.0),
        form=product.Aggregation("day"),
        extras=product.ExtraOutputs(objects=str(tmp_path / "o.parquet")),
    )
    assert made.added == AddedDays(1, 0, 0)
    lat = grid.lat
    area = np.cos(np.radians(lat))[:, np.newaxis] * observed
    with xarray.open_dataset(tmp_path / "c.nc") as found:
        assert found["period"].item() == "2020-02-01"
        for c, name in enumerate(("Fish", "Flower")):
            share = (area * masks[c]).sum() / area.sum()
            mean = found["region_fraction"].sel({"class": name, "region": "all"}).item()
            assert mean == pytest.approx(share, rel=1e-5)
            west = (area * masks[c])[:, :10].sum() / area[:, :10].sum()
            cell = found["fraction"].sel({"class": name}).sel(lat=15.0, lon=175.0).item()
            assert cell == pytest.approx(west, rel=1e-5)
    summary = pd.read_csv(tmp_path / "o_scenes.csv")
    assert summary["cloudy"].tolist() == ["brightness"]
    bright = np.rint(prediction.image.mean(axis=2)) > 100
    share = (area * bright).sum() / area.sum()
    assert summary["cloud_fraction"][0] == pytest.approx(share, rel=1e-3)
