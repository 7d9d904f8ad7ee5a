"""Objects and their rectangles; shapely is the oracle."""

import datetime

import numpy as np
import pandas as pd
import pytest
import shapely
import xarray
from scene_writer import write_scene
from scipy import ndimage

from clouds_tf.climatology import objects, product, scenes
from clouds_tf.climatology.grid import Grid
from clouds_tf.climatology.inputs import Added
from clouds_tf.scenes import write
from clouds_tf.scenes.georeference import Extent, cover
from clouds_tf.scenes.masks import Prediction

EARTH_AREA = 510_065_621.7  # km2, WGS 84 (Moritz, "Geodetic Reference System 1980")


@pytest.mark.parametrize("seed", range(20))
def test_the_minimal_rectangle_is_that_of_shapely(seed):
    points = np.random.default_rng(seed).normal(size=(3 + seed, 2)) @ [[3, 1], [0, 1]]
    found = objects.minimal_rectangle(points)
    expected = shapely.MultiPoint(points).minimum_rotated_rectangle
    corners = np.array(expected.exterior.coords)[:3]
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    assert found.length * found.width == pytest.approx(expected.area, rel=1e-6)
    assert [found.length, found.width] == pytest.approx(sorted(sides)[::-1], rel=1e-6)
    longer = np.diff(corners, axis=0)[sides.argmax()]
    expected_angle = np.degrees(np.arctan2(longer[1], longer[0])) % 180
    assert abs((found.orientation - expected_angle + 90) % 180 - 90) < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_the_hull_is_that_of_shapely(seed):
    points = np.random.default_rng(seed).integers(0, 6, (30, 2)).astype(float)
    hull = objects.convex_hull(points)
    expected = np.array(shapely.MultiPoint(points).convex_hull.exterior.coords)[:-1]
    assert {tuple(point) for point in hull} == {tuple(point) for point in expected}


def test_a_whole_sphere_has_the_area_of_the_earth():
    mask = np.ones((18, 36), bool)
    edges = np.linspace(-90, 90, 19), np.linspace(-180, 180, 37)
    (found,) = objects.find(mask, np.full(mask.shape, 0.25), *edges)
    assert found["area_km2"] == pytest.approx(EARTH_AREA, rel=1e-6)
    assert found["latitude"] == pytest.approx(0, abs=1e-9)
    assert found["mean_probability"] == pytest.approx(0.25)


def test_objects_are_measured_in_km():
    mask = np.zeros((40, 100), bool)
    mask[10:12, 20:60] = True  # 0.2 x 4 degrees near the equator
    mask[12, 60] = True  # touches at a corner
    lat_edges, lon_edges = np.linspace(2, -2, 41), np.linspace(175, 185, 101)
    probability = np.zeros(mask.shape)
    probability[mask] = 0.5
    (found,) = objects.find(mask, probability, lat_edges, lon_edges)
    degree = np.pi * objects.EARTH_RADIUS / 180
    assert found["area_km2"] == pytest.approx(81 * (0.1 * degree) ** 2, rel=1e-3)
    assert found["length_km"] == pytest.approx(4.1 * degree, rel=0.01)
    assert 0.2 * degree < found["width_km"] < 0.31 * degree
    assert found["longitude"] == pytest.approx(179.025, abs=0.01)
    assert found["mean_probability"] == pytest.approx(0.5)


def test_the_tables_of_a_folder(tmp_path):
    (tmp_path / "s").mkdir()
    for i, date in enumerate(("2017-03-04", "2017-03-05")):
        path = tmp_path / "s" / f"{i}.nc"
        masks, observed, probabilities, *_ = write_scene(path, date=date, seed=i)
    made = product.make(
        str(tmp_path / "c.nc"),
        scenes_dir=str(tmp_path / "s"),
        grid=Grid(5.0, (-20, 0, 10, 10)),
        form=product.Form("all", num_resamples=0),
        extras=product.Extras(objects_file=str(tmp_path / "o.parquet")),
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
        rows = np.abs(np.diff(np.sin(np.radians(scene.lat_edges))))
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
        product.check("c.nc", Grid(), product.Form(), product.Extras(objects_file="o.parquet"))


def test_scenes_of_this_project_are_read(tmp_path):
    """From `scenes.write` to a cell, across the date line."""
    grid = cover(Extent(175, 10, 185, 14), (0.5, 0.5))
    rng = np.random.default_rng(0)
    masks, observed = rng.random((2, *grid.size)) < 0.5, rng.random(grid.size) < 0.7
    prediction = Prediction(
        name="belt",
        date=datetime.datetime(2020, 2, 1, 23, 30),
        platform="Aqua",
        model="abc",
        class_names=("Fish", "Flower"),
        grid=grid,
        probabilities=rng.random((2, *grid.size), np.float32),
        masks=masks,
        observed=observed,
        image=rng.integers(0, 255, (*grid.size, 3)).astype(np.uint8),
    )
    write.write_netcdf(str(tmp_path / "belt.nc"), prediction)
    made = product.make(
        str(tmp_path / "c.nc"),
        scenes_dir=str(tmp_path / "belt.nc"),
        grid=Grid(10.0),
        form=product.Form("day"),
        extras=product.Extras(objects_file=str(tmp_path / "o.parquet")),
    )
    assert made.added == Added(1, 0, 0)
    lat = grid.latitudes
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
