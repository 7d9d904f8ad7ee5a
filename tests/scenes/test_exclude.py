"""Land and masks of area that does not count."""

import dataclasses
import json

import numpy as np
import pytest
import rasterio
import xarray
from small import write_mosaic
from test_folder import OPTIONS, Stub, _run
from test_folder import stub as _stub

from clouds_tf.geo import Extent, cover
from clouds_tf.scenes import exclude

stub = _stub  # the fixture, which is used by every test here
GRID = cover(Extent(-91, 18, -85, 24), (0.04, 0.04))  # Yucatan
BOX = {"type": "Polygon", "coordinates": [[[-88, 22], [-86, 22], [-86, 23], [-88, 23], [-88, 22]]]}


def _in_box(grid, west, south, east, north):
    rows, columns = (grid.lat > south) & (grid.lat < north), (grid.lon > west) & (grid.lon < east)
    return rows[:, np.newaxis] & columns


def _write_values(folder):
    """Temperatures that fall to the east, with a gap in the north, as NetCDF and as GeoTIFF."""
    lat, lon = np.linspace(17, 24, 71), np.linspace(265, 276.9, 120)  # 95 to 83 W, from 0 to 360
    values = np.broadcast_to(300 - 10 * (lon - 270), (len(lat), len(lon))).astype(np.float32).copy()
    values[lat > 23] = np.nan
    data = {"BT": (("lat", "lon"), values), "other": (("lat", "lon"), values)}
    coordinates = {"lat": lat, "lon": lon}
    xarray.Dataset(data, coordinates).to_netcdf(folder / "F.nc", engine="h5netcdf")
    transform = rasterio.transform.from_bounds(-95.05, 16.95, -83.05, 24.05, len(lon), len(lat))
    with rasterio.open(
        folder / "F.tif", "w", "GTiff", len(lon), len(lat), 1, "EPSG:4326", transform, np.float32
    ) as file:
        file.write(values[::-1], 1)


def test_polygons_and_conditions_find_their_cells(tmp_path):
    (tmp_path / "box.geojson").write_text(json.dumps({"type": "Feature", "geometry": BOX}))
    found = exclude.excluded(GRID, "none", [f"{tmp_path}/box.geojson"], "s")
    np.testing.assert_array_equal(found, _in_box(GRID, -88, 22, -86, 23))
    _write_values(tmp_path)
    north, east = _in_box(GRID, -91, 23.05, -85, 24), _in_box(GRID, -88, 18, -85, 24)
    for name in ("F.nc:BT<280", "F.tif:<280"):
        found = exclude.excluded(GRID, "none", [f"{tmp_path}/{name}"], "s")
        expected = north | east
        near = abs(np.add.outer(0 * GRID.lat, GRID.lon) + 88) < 0.11
        near |= abs(np.add.outer(GRID.lat, 0 * GRID.lon) - 23.05) < 0.11
        np.testing.assert_array_equal(found[~near], expected[~near])
        assert found[~near].any() and not found[~near].all()
    both = exclude.excluded(
        GRID, "none", [f"{tmp_path}/{n}" for n in ("F.nc:BT<0", "box.geojson")], ""
    )
    assert both[~north & ~near].sum() == (_in_box(GRID, -88, 22, -86, 23) & ~north & ~near).sum()


def test_masks_of_zeros_and_ones_need_no_condition(tmp_path):
    grid = cover(Extent(178, -2, 184, 2), (0.04, 0.04))  # across 180 degrees
    transform = rasterio.transform.from_bounds(-180, -2, -178, 2, 20, 40)
    with rasterio.open(
        tmp_path / "m.tif", "w", "GTiff", 20, 40, 1, "EPSG:4326", transform, np.uint8, nodata=0
    ) as file:
        file.write(np.ones((40, 20), np.uint8), 1)
    found = exclude.excluded(grid, f"{tmp_path}/m.tif", [], "s")
    np.testing.assert_array_equal(found, _in_box(grid, 180, -2, 182, 2))


def test_a_scene_has_no_clouds_on_mexico_and_none_that_are_masked(tmp_path):
    (tmp_path / "in").mkdir()
    extent = (-91.0, 18.0, -85.0, 24.0)
    write_mosaic(tmp_path / "in" / "a_20200101.tif", (150, 150), extent)
    (tmp_path / "a_20200101.geojson").write_text(json.dumps(BOX))
    everything = dataclasses.replace(OPTIONS, land="none")
    masked = dataclasses.replace(OPTIONS, ignore=(f"{tmp_path}/{{scene}}.geojson",))

    def run(options):
        assert _run(tmp_path, options).num_predicted == 1
        return xarray.load_dataset(tmp_path / "S" / "a_20200101.nc")

    plain, ocean, rest = run(everything), run(OPTIONS), run(masked)
    on_land = exclude.land_mask(GRID)
    assert 0.2 < on_land.mean() < 0.6 and plain["observed"].values.all()
    np.testing.assert_array_equal(ocean["observed"].values[0] == 0, on_land)
    assert np.isnan(ocean["probability"].values[0][:, on_land]).all()
    np.testing.assert_array_equal(ocean["mask"], plain["mask"])
    excluded = on_land | _in_box(GRID, -88, 22, -86, 23)
    np.testing.assert_array_equal(rest["observed"].values[0] == 0, excluded)
    assert plain.attrs["land"] == "observed" and plain.attrs["ignored"] == "nothing"
    assert ocean.attrs["land"] == "not observed (Natural Earth 1:50m)"
    assert rest.attrs["ignored"] == "{scene}.geojson"
    assert _run(tmp_path, masked).num_predicted == 0
    (tmp_path / "a_20200101.geojson").write_text(json.dumps({**BOX, "bbox": [-88, 22, -86, 23]}))
    assert _run(tmp_path, masked).num_predicted == 1  # the mask has changed
    (tmp_path / "a_20200101.geojson").unlink()
    (failed,) = _run(tmp_path, masked).failed
    assert "a_20200101.geojson: no such file" in failed
    assert Stub.dataset.num_classes == len(plain["class"])


@pytest.mark.parametrize(
    "masks, message",
    [
        ({"land": "sea"}, "land: got 'sea', expected a file .geojson, .tif or .nc"),
        ({"ignore": ("F.nc:BT<x",)}, "ignore: got 'F.nc:BT<x'"),
        ({"ignore": ("F.nc:BT<1-2",)}, "expected a number at its end"),
        ({"ignore": ("b.geojson:x<2",)}, "b.geojson has polygons, which have no values"),
    ],
)
def test_other_masks_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(OPTIONS, **masks)


def test_unusable_masks_are_named(tmp_path):
    _write_values(tmp_path)
    (tmp_path / "p.geojson").write_text('{"type": "Point", "coordinates": [0, 0]}')
    (tmp_path / "x.geojson").write_text('{"coordinates": [0, 0]}')
    (tmp_path / "m.geojson").write_text(json.dumps(BOX).replace("22", "2200"))
    (tmp_path / "t.geojson").write_text(json.dumps(BOX).replace(", [-88, 23], [-88, 22]", ""))
    (tmp_path / "d.tif").write_text("damaged")
    far = cover(Extent(0, 0, 2, 2), (0.04, 0.04))
    for grid, name, message in (
        (GRID, "p.geojson", "has no polygons"),
        (GRID, "x.geojson", "is not GeoJSON with polygons"),
        (GRID, "m.geojson", "latitudes beyond 90"),
        (GRID, "t.geojson", "a ring of 3 points, expected at least 4"),
        (GRID, "d.tif", "cannot be read"),
        (GRID, "F.nc:XY<2", "has no variable 'XY'"),
        (GRID, "F.nc", "has the variables"),
        (far, "F.nc:BT<280", "has no value in 0,0,2,2"),
        (far, "F.tif:<280", "has no value in 0,0,2,2"),
    ):
        with pytest.raises(ValueError, match=f"{name.split(':')[0]}: .*{message}"):
            exclude.excluded(grid, "none", [f"{tmp_path}/{name}"], "s")
    with pytest.raises(FileNotFoundError, match="none.geojson: no such file"):
        exclude.require_files("auto", [f"{tmp_path}/none.geojson"])
