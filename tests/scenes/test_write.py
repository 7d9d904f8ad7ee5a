"""Each format is read by a library that did not write it."""

import datetime
import time

import geopandas
import h5py
import numpy as np
import pytest
import rasterio
import tifffile
from shapely.geometry import box, shape

from clouds_tf.geo import Extent, Grid, cover
from clouds_tf.scenes import masks, write
from clouds_tf.scenes.masks import Prediction
from clouds_tf.scenes.results import draw

pytestmark = pytest.mark.lanes

NAMES = ("Fish", "Flower")


def prediction_of(fish, grid, observed=None):
    """A Prediction whose first class has this mask."""
    rng = np.random.default_rng(0)
    found = np.stack([fish, np.zeros_like(fish)]).astype(bool)
    return Prediction(
        name="scene",
        date=datetime.datetime(2020, 2, 1, 13, 30),
        platform="Aqua",
        model="abc",
        class_names=NAMES,
        grid=grid,
        probabilities=rng.random((2, *grid.shape), np.float32),
        masks=found,
        observed=np.ones(grid.shape, bool) if observed is None else observed,
        image=rng.integers(0, 255, (*grid.shape, 3)).astype(np.uint8),
    )


def blocks(size, *rectangles):
    """A mask of rectangles (top, left, bottom, right)."""
    mask = np.zeros(size, bool)
    for top, left, bottom, right in rectangles:
        mask[top:bottom, left:right] = True
    return mask


def features_of(prediction):
    found = masks.objects_of(prediction)
    return found, list(write.features(prediction, found))


@pytest.mark.parametrize("seed", range(4))
def test_polygons_are_the_cells_of_the_mask(seed, tmp_path):
    rng = np.random.default_rng(seed)
    west, south = rng.uniform(-180, 170), rng.uniform(-80, 60)
    grid = cover(Extent(west, south, west + 2.9, south + 1.7), (0.04, 0.04))
    mask = np.kron(rng.random((11, 19)) < 0.4, np.ones((4, 4), bool))
    mask = mask[: grid.shape[0], : grid.shape[1]]
    observed = np.ones(grid.shape, bool)
    observed[:, 20:23] = False
    prediction = prediction_of(mask, grid, observed)
    _, items = features_of(prediction)
    path = str(tmp_path / "x.geojson")
    write.write_geojson(path, iter(items))
    table = geopandas.read_file(path)
    assert table.geometry.is_valid.all() and (table["class"] == "Fish").all()
    # Every cell, by the transform of rasterio, is in the polygons just where the mask is.
    transform = rasterio.transform.from_origin(grid.extent[0], grid.extent[3], 0.04, 0.04)
    burnt = rasterio.features.rasterize(table.geometry, grid.shape, transform=transform)
    np.testing.assert_array_equal(burnt.astype(bool), mask & observed)
    corners = np.array([c for g in table.geometry for p in g.geoms for c in p.exterior.coords])
    columns, rows = ~transform @ (corners[:, 0], corners[:, 1])
    lons, lats = transform @ (np.rint(columns), np.rint(rows))
    np.testing.assert_allclose(corners, np.stack([lons, lats], axis=1), atol=1e-9)
    assert all(p.exterior.is_ccw for g in table.geometry for p in g.geoms)


def test_objects_are_measured_on_the_sphere():
    grid = cover(Extent(10, 0, 12, 2), (0.04, 0.04))
    prediction = prediction_of(blocks(grid.shape, (5, 5, 10, 15), (30, 30, 40, 35)), grid)
    (found, _), items = features_of(prediction)
    assert len(items) == 2
    radius = 6371.0072
    north, south = np.radians([2 - 0.2, 2 - 0.4])
    expected = radius**2 * np.radians(0.4) * (np.sin(north) - np.sin(south))
    assert items[0]["properties"]["area_km2"] == pytest.approx(expected, rel=1e-6)
    mean = prediction.probabilities[0, 5:10, 5:15].mean()
    assert items[0]["properties"]["mean_probability"] == pytest.approx(mean, abs=1e-3)
    assert items[0]["properties"]["centroid_lon"] == pytest.approx(10.4, abs=1e-6)
    assert items[0]["properties"]["centroid_lat"] == pytest.approx(1.7, abs=1e-4)
    assert shape(items[0]["geometry"]).equals(box(10.2, 1.6, 10.6, 1.8))
    assert items[0]["bbox"] == pytest.approx([10.2, 1.6, 10.6, 1.8], abs=1e-9)
    areas = masks.measure(prediction, [2, 0])
    total = sum(item["properties"]["area_km2"] for item in items)
    assert areas[0].area_km2 == pytest.approx(total, abs=0.01) and areas[0].present
    assert areas[0].share == pytest.approx(total / (grid.row_areas.sum() * 50), rel=1e-5)
    assert not areas[1].present and areas[1].share == 0


def test_objects_across_the_date_line_are_one_and_cut_there():
    grid = cover(Extent(178, 0, 182, 2), (0.04, 0.04))
    prediction = prediction_of(blocks(grid.shape, (10, 40, 20, 60)), grid)
    _, items = features_of(prediction)
    geometry = shape(items[0]["geometry"])
    assert len(items) == 1 and len(geometry.geoms) == 2 and geometry.is_valid
    expected = box(179.6, 1.2, 180, 1.6).union(box(-180, 1.2, -179.6, 1.6))
    assert geometry.symmetric_difference(expected).area < 1e-9
    assert items[0]["bbox"] == pytest.approx([179.6, 1.2, -179.6, 1.6], abs=1e-9)


def test_objects_across_the_seam_of_the_globe_are_one():
    grid = Grid((0.25, 0.5), Extent(-180, -1, 180, 1), north_first=True)
    mask = blocks(grid.shape, (2, 0, 4, 3), (3, 718, 5, 720), (6, 100, 7, 101))
    found, items = features_of(prediction_of(mask, grid))
    assert len(items) == 2
    item = items[0]
    assert item["bbox"] == pytest.approx([179, -0.25, -178.5, 0.5])
    assert shape(item["geometry"]).area == pytest.approx((6 + 4) * 0.125)
    # East of the seam 6 cells around -179.25, west of it 4 around 179.5.
    expected = -180 + (6 * 0.75 + 4 * -0.5) / 10
    assert item["properties"]["centroid_lon"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("west", [-180, 0, 0.7, 179.9])
def test_the_geojson_of_a_globe_is_valid_wherever_its_seam_is(west):
    """Cells across 180 degrees are cut there; long objects keep their bounds."""
    grid = Grid((2.0, 1.0), Extent(west, -10, west + 360, 10), north_first=True)
    mask = np.zeros(grid.shape, bool)
    east_of = (grid.lon - 140) % 360
    mask[2, east_of < 250] = mask[6, east_of < 60] = True
    _, items = features_of(prediction_of(mask, grid))
    assert len(items) == 2
    for item in items:
        shape_of_item, bounds = shape(item["geometry"]), item["bbox"]
        assert shape_of_item.is_valid
        width = (bounds[2] - bounds[0]) % 360
        assert shape_of_item.area == pytest.approx(2 * width)
        assert abs((bounds[0] - 140 + 180) % 360 - 180) <= 1
        assert width == pytest.approx(250 if bounds[1] > 0 else 60, abs=1)
        assert item["properties"]["model"] == "abc" and item["properties"]["platform"] == "Aqua"


def test_a_cog_is_read_by_tifffile(tmp_path):
    grid = cover(Extent(10, 0, 40, 22), (0.04, 0.04))
    observed = np.ones(grid.shape, bool)
    observed[:, :50] = False
    prediction = prediction_of(blocks(grid.shape, (5, 5, 300, 415)), grid, observed)
    path = str(tmp_path / "x.tif")
    write.write_cog(path, prediction, str(tmp_path / "scratch"))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        pixels = page.asarray()
        pixels = np.moveaxis(pixels, 0, -1) if len(pixels) == 4 else pixels
        np.testing.assert_array_equal(pixels[..., 0], prediction.masks[0])
        np.testing.assert_allclose(
            pixels[..., 3] * 0.004, prediction.probabilities[1], atol=0.00201
        )
        scale, tie = page.tags[33550].value, page.tags[33922].value
        np.testing.assert_allclose([tie[3], tie[4], *scale[:2]], [10, 22, 0.04, 0.04], atol=1e-9)
        assert page.tags[306].value == "2020:02:01 13:30:00" and page.is_tiled
        assert len(file.pages) >= 3  # overviews and masks
    with rasterio.open(path) as file:  # what GDAL itself says of it
        assert file.descriptions == (*NAMES, "Fish probability", "Flower probability")
        assert file.overviews(1) and file.crs.to_epsg() == 4326
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(file.read(1), prediction.masks[0])
        np.testing.assert_allclose(file.read(3) * 0.004, prediction.probabilities[0], atol=0.00201)
        np.testing.assert_array_equal(file.dataset_mask() > 0, observed)


def test_geoparquet_is_read_by_geopandas(tmp_path):
    grid = cover(Extent(10, 0, 12, 2), (0.04, 0.04))
    mask = blocks(grid.shape, (5, 5, 10, 15), (30, 30, 40, 35))
    _, items = features_of(prediction_of(mask, grid))
    path = str(tmp_path / "x.parquet")
    write.write_geoparquet(path, iter(items))
    table = geopandas.read_parquet(path)
    assert table.crs == "OGC:CRS84" and len(table) == 2
    for found, item in zip(table.geometry, items):
        assert found.equals(shape(item["geometry"]))
    assert table["area_km2"].tolist() == [item["properties"]["area_km2"] for item in items]


def test_netcdf_has_the_same_bytes_and_no_probability_where_nothing_was_observed(tmp_path):
    grid = cover(Extent(10, 0, 12, 2), (0.04, 0.04))
    observed = np.ones(grid.shape, bool)
    observed[3] = False
    prediction = prediction_of(blocks(grid.shape, (5, 5, 10, 15)), grid, observed)
    for name in ("a.nc", "b.nc"):
        write.write_netcdf(str(tmp_path / name), prediction)
        time.sleep(1.1)  # HDF5 writes times in seconds, unless told not to
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()
    with h5py.File(tmp_path / "a.nc") as file:
        assert (file["probability"][0, 0, 3] == -1).all() and not file["observed"][0, 3].any()
        found = file["probability"][0, 1, 4:] * file["probability"].attrs["scale_factor"]
        np.testing.assert_allclose(found, prediction.probabilities[1, 4:], atol=0.00201)
        np.testing.assert_array_equal(file["mask"][0], prediction.masks[0])


def test_pictures_have_coordinates_on_their_axes():
    pytest.importorskip("matplotlib")
    grid = cover(Extent(178, -1, 184, 3), (0.04, 0.04))
    figure = draw(prediction_of(blocks(grid.shape, (5, 5, 30, 65)), grid))
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        *("178°E", "179°E", "180°", "179°W", "178°W", "177°W", "176°W"),
    ]
    latitudes = [text.get_text() for text in axes.get_yticklabels()]
    assert latitudes == ["1°S", "0°", "1°N", "2°N", "3°N"]


def test_outlines_in_pictures_lie_on_their_masks():
    pytest.importorskip("matplotlib")
    grid = cover(Extent(0, 0, 4, 3), (0.1, 0.1))
    figure = draw(prediction_of(blocks(grid.shape, (2, 10, 12, 20)), grid))
    (outline,) = figure.axes[0].collections
    extents = outline.get_paths()[0].get_extents().extents
    np.testing.assert_allclose(extents, [1.0, 1.8, 2.0, 2.8], atol=0.05)  # west, south, east, north


@pytest.mark.parametrize("count, dtype", [(8, "uint8"), (9, "uint16"), (17, "uint32")])
def test_bit_fields_hold_all_classes(count, dtype):
    found = np.random.default_rng(0).random((count, 5, 6)) < 0.5
    field = write.bit_field(found)
    assert field.dtype == dtype
    np.testing.assert_array_equal([field >> i & 1 for i in range(count)], found)


def test_netcdf_is_read_by_the_library_of_unidata(tmp_path):
    """GDAL reads NetCDF with netCDF-C; the georeference is what it makes of CF."""
    grid = cover(Extent(170, -6, 190, 5), (0.04, 0.04))
    prediction = prediction_of(blocks(grid.shape, (5, 5, 100, 150)), grid)
    path = str(tmp_path / "a.nc")
    write.write_netcdf(path, prediction)
    with rasterio.open(f'NETCDF:"{path}":mask') as file:
        assert file.crs.to_epsg() == 4326 and file.shape == grid.shape
        np.testing.assert_allclose(file.transform[:6], write.transform(grid)[:6], atol=1e-9)
        np.testing.assert_array_equal(file.read(1), prediction.masks[0])
