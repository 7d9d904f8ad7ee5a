"""Scenes of every kind, written by rasterio, Pillow and xarray."""

import datetime

import numpy as np
import pytest
import rasterio
import xarray
from PIL import Image
from shared_fixtures import real_data

from clouds_tf.geo import Extent
from clouds_tf.scenes import read
from clouds_tf.scenes.read import Reading, open_scene

pytestmark = pytest.mark.lanes

DATE = "20200229"
PIXELS = np.random.default_rng(0).integers(3, 256, (40, 60, 3), np.uint8)


def write_tiff(path, pixels=PIXELS, bounds=(-50.0, 4.0, -44.0, 8.0), crs="EPSG:4326", **profile):
    """Writes a GeoTIFF; bounds are west, south, east, north."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., np.newaxis]
    height, width, count = pixels.shape
    profile.setdefault("transform", rasterio.transform.from_bounds(*bounds, width, height))
    with rasterio.open(
        path, "w", "GTiff", width, height, count, crs, dtype=pixels.dtype, **profile
    ) as file:
        file.write(np.moveaxis(pixels, -1, 0))
    return str(path)


def content(path, **reading):
    with open_scene(str(path), Reading(**reading)) as scene:
        return scene, scene.read(0, scene.size[0])


@pytest.mark.parametrize("options", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_a_geotiff_is_read_by_rows(tmp_path, options):
    path = write_tiff(tmp_path / f"a{DATE}.tif", **options)
    with open_scene(path) as scene:
        assert scene.extent == Extent(-50, 4, -44, 8) and scene.size == (40, 60)
        assert scene.date == datetime.datetime(2020, 2, 29)
        rows = scene.read(10, 15)
    np.testing.assert_array_equal(rows[..., :3], PIXELS[10:15])
    assert (rows[..., 3] == 255).all()


def test_an_image_takes_its_place_from_name_world_file_or_option(tmp_path):
    named = tmp_path / f"Terra{DATE}_-61--55_10-14.png"
    Image.fromarray(PIXELS).save(named)
    scene, pixels = content(named)
    assert scene.extent == Extent(-61, 10, -55, 14) and scene.platform == "Terra"
    assert scene.is_plain_image
    np.testing.assert_array_equal(pixels[..., :3], PIXELS)

    path = tmp_path / f"plain{DATE}.png"
    Image.fromarray(PIXELS[..., 0]).save(path)
    with pytest.raises(ValueError, match=f"{path}: has no position.*--extent"):
        content(path)
    scene, pixels = content(path, extent=Extent(0, 0, 6, 4))
    assert scene.extent == Extent(0, 0, 6, 4)
    np.testing.assert_array_equal(pixels[..., 1], PIXELS[..., 0])
    (tmp_path / f"plain{DATE}.pgw").write_text("0.1\n0\n0\n-0.1\n20.05\n29.95\n")
    scene, _ = content(path)
    np.testing.assert_allclose(
        [scene.extent.lon_min, scene.extent.lat_min, scene.extent.lon_max, scene.extent.lat_max],
        [20, 26, 26, 30],
        atol=1e-9,
    )


def test_no_data_alpha_and_nan_are_told_from_data(tmp_path):
    holed = PIXELS.copy()
    holed[5, 6] = 0
    _, pixels = content(write_tiff(tmp_path / f"n{DATE}.tif", holed, nodata=0))
    assert pixels[5, 6].tolist() == [0] * 4 and (pixels[..., 3] == 0).sum() == 1

    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[7, 8] = 0
    rgba = np.concatenate([PIXELS, alpha], axis=2)
    Image.fromarray(rgba).save(tmp_path / f"a{DATE}.png")
    _, pixels = content(tmp_path / f"a{DATE}.png", extent=Extent(0, 0, 6, 4))
    assert pixels[7, 8].tolist() == [0] * 4 and (pixels[..., 3] == 0).sum() == 1
    np.testing.assert_array_equal(pixels[:7], rgba[:7])

    values = PIXELS / np.float32(255)
    values[9, 10] = np.nan
    path = write_tiff(tmp_path / f"f{DATE}.tif", values)
    with pytest.raises(ValueError, match="float32, expected uint8.*--value_range"):
        content(path)
    _, pixels = content(path, value_range=(0, 1))
    assert pixels[9, 10].tolist() == [0] * 4
    np.testing.assert_array_equal(pixels[:9, :, :3], PIXELS[:9])


def test_palettes_and_sixteen_bits_become_colours(tmp_path):
    image = Image.fromarray(PIXELS).quantize(16)
    image.save(tmp_path / f"p{DATE}.png")
    _, pixels = content(tmp_path / f"p{DATE}.png", extent=Extent(0, 0, 6, 4))
    np.testing.assert_array_equal(pixels[..., :3], np.asarray(image.convert("RGB")))

    path = write_tiff(tmp_path / f"s{DATE}.tif", PIXELS.astype(np.uint16) * 257)
    with pytest.raises(ValueError, match="uint16"):
        content(path)
    _, pixels = content(path, value_range=(0, 65535))
    np.testing.assert_array_equal(pixels[..., :3], PIXELS)


def test_values_beyond_the_range_are_black_or_white(tmp_path):
    values = np.uint16([[0, 99], [100, 300], [400, 65_535]])
    path = write_tiff(tmp_path / f"a{DATE}.tif", values)
    _, pixels = content(path, value_range=(100, 400))
    np.testing.assert_array_equal(pixels[..., 0], [[0, 0], [0, 170], [255, 255]])
    assert (pixels[..., 3] == 255).all()


def test_bands_are_chosen_or_asked_for(tmp_path):
    path = write_tiff(tmp_path / f"m{DATE}.tif", np.concatenate([PIXELS, PIXELS + 1], axis=2))
    with pytest.raises(ValueError, match="6 bands, expected 1 or 3; choose them with --bands"):
        content(path)
    _, pixels = content(path, bands=(3, 2, 1))
    np.testing.assert_array_equal(pixels[..., :3], PIXELS[..., ::-1])
    with pytest.raises(ValueError, match="has 6 bands"):
        content(path, bands=(7,))


# Reference system, upper left corner and side of a pixel; what lies across 180 degrees or a pole.
PROJECTED = {
    "Mercator": ("EPSG:3857", -5e6, 2e6, 2000),
    "UTM 33": ("EPSG:32633", 5e5, 5e6, 2000),
    "Mercator beyond 180": ("EPSG:3857", 1.9437e7, 2e6, 2000),
    "Mercator of an ellipsoid": ("EPSG:3395", -2.03e7, 2e6, 2000),
    "UTM 60": ("EPSG:32660", 5e5, 1e6, 2000),
    "UTM 1": ("EPSG:32601", 0, 1e6, 2000),
    "polar stereographic": ("EPSG:3413", -1.2e6, 1.6e6, 2000),
    "sinusoidal": ("+proj=sinu +R=6371007.181 +lon_0=0", -2.0015e7, 1.1e6, 2000),
    "sinusoidal in the middle": ("+proj=sinu +R=6371007.181 +lon_0=0", 1e6, 2.1e6, 2000),
    "GOES-West": ("+proj=geos +h=35786023 +lon_0=-137 +sweep=x +ellps=GRS80", -4.6e6, 3e5, 2000),
    "Himawari": ("+proj=geos +h=35785831 +lon_0=140.7 +sweep=y", 3e6, 2e6, 4000),
}


@pytest.mark.parametrize("name", PROJECTED)
def test_projected_rasters_come_on_longitude_and_latitude(tmp_path, name):
    """A disc lies where pyproj says, in an extent of the size of the raster."""
    pyproj = pytest.importorskip("pyproj")
    crs, x, y, side = PROJECTED[name]
    pixels = np.full((300, 300, 3), 10, np.uint8)
    rows, columns = np.indices((300, 300))
    pixels[np.hypot(rows - 140.5, columns - 180.5) < 8] = 250
    transform = rasterio.transform.from_origin(x, y, side, side)
    path = write_tiff(tmp_path / f"x{DATE}.tif", pixels, crs=crs, transform=transform)
    scene, found = content(path)
    spot = np.argwhere(found[..., 0] > 128).mean(axis=0) + 0.5
    latitude = scene.extent.lat_max - spot[0] * scene.pixel[0]
    longitude = scene.extent.lon_min + spot[1] * scene.pixel[1]
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    expected = to_degrees.transform(*(transform @ (181, 141)))
    assert (longitude - expected[0] + 180) % 360 - 180 == pytest.approx(0, abs=0.02)
    assert latitude == pytest.approx(expected[1], abs=0.02)
    # Pixels are as fine as those of the source, and no belt round the globe is made.
    assert 0.5 * side < scene.pixel[0] * 111195 < 1.3 * side
    assert scene.extent.degrees[1] <= 6 * 300 * side / 111195


def test_a_raster_with_a_pole_goes_round_it(tmp_path):
    transform = rasterio.transform.from_origin(-3e6, 3e6, 60e3, 60e3)
    pixels = np.full((100, 100, 3), 99, np.uint8)
    path = write_tiff(tmp_path / f"x{DATE}.tif", pixels, crs="EPSG:3413", transform=transform)
    scene, found = content(path)
    assert scene.extent == pytest.approx((-180, 52, 180, 90), abs=0.5)
    assert (found[:5, :, 3] == 255).all()


def test_a_full_disk_has_its_own_extent_and_no_data_beyond_the_limb(tmp_path):
    side = 11e6 / 220
    crs, transform = PROJECTED["Himawari"][0], rasterio.transform.from_origin(
        -5.5e6, 5.5e6, side, side
    )
    path = write_tiff(
        tmp_path / f"x{DATE}.tif",
        np.full((220, 220, 3), 99, np.uint8),
        crs=crs,
        transform=transform,
    )
    scene, found = content(path)
    assert scene.extent == pytest.approx((60, -81, 221, 81), abs=10)
    assert found[len(found) // 2, found.shape[1] // 2, 3] == 255 and not found[0, 0].any()


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_mirrored_rasters_are_turned_round(tmp_path, across, down):
    transform = rasterio.Affine(
        -0.1 if across else 0.1,
        0,
        -44 if across else -50,
        0,
        0.1 if down else -0.1,
        4 if down else 8,
    )
    pixels = PIXELS[:: -1 if down else 1, :: -1 if across else 1]
    path = write_tiff(tmp_path / f"m{DATE}.tif", pixels, transform=transform)
    scene, found = content(path)
    assert scene.extent == pytest.approx((-50, 4, -44, 8))
    np.testing.assert_array_equal(found[..., :3], PIXELS)
    with open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read(3, 7), found[3:7])


def test_ground_control_points_place_a_raster(tmp_path):
    points = [
        rasterio.control.GroundControlPoint(row, column, -50 + column / 10, 8 - row / 10)
        for row in (0, 40)
        for column in (0, 60)
    ]
    path = str(tmp_path / f"g{DATE}.tif")
    with rasterio.open(path, "w", "GTiff", 60, 40, 3, dtype=np.uint8) as file:
        file.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
        file.write(np.moveaxis(PIXELS, -1, 0))
    scene, found = content(path, extent=Extent(0, 0, 6, 4))  # which is for files that do not say
    assert scene.extent == pytest.approx((-50, 4, -44, 8))
    np.testing.assert_array_equal(found[..., :3], PIXELS)


def test_scales_and_offsets_of_bands_are_applied(tmp_path):
    path = write_tiff(tmp_path / f"s{DATE}.tif", PIXELS.astype(np.int16) * 40 - 200)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [1e-4] * 3, [0.02] * 3
    with pytest.raises(ValueError, match="float32, expected uint8"):
        content(path)
    _, found = content(path, value_range=(0, 0.004 * 255))
    np.testing.assert_array_equal(found[..., :3], PIXELS)


def test_a_value_range_is_for_values_that_are_no_bytes(tmp_path):
    """So that one range serves a folder of both; 12 bits in a PNG are never decoded as 16."""
    scene, found = content(write_tiff(tmp_path / f"b{DATE}.tif"), value_range=(0, 4095))
    assert scene.ignores_range
    np.testing.assert_array_equal(found[..., :3], PIXELS)
    path = tmp_path / f"deep{DATE}.png"
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 16).save(path)
    scene, found = content(path, value_range=(0, 255 * 16), extent=Extent(0, 0, 6, 4))
    assert not scene.is_plain_image and not scene.ignores_range
    np.testing.assert_array_equal(found[..., 0], PIXELS[..., 0])


def _dataset(latitudes, longitudes, values, **coords):
    array = xarray.DataArray(
        values,
        dims=("lat", "lon", "band")[: values.ndim],
        coords={"lat": latitudes, "lon": longitudes, **coords},
    )
    return array.to_dataset(name="rgb")


@pytest.mark.parametrize("ending", ["nc", "zarr"])
@pytest.mark.parametrize("rising", [True, False])
def test_arrays_are_read_north_up(tmp_path, ending, rising):
    latitudes, longitudes = 7.95 - 0.1 * np.arange(40), 170.05 + 0.5 * np.arange(60)
    longitudes = (longitudes + 180) % 360 - 180
    order = slice(None, None, -1 if rising else 1)
    time = np.datetime64("2021-05-06T07")
    data = _dataset(latitudes[order], longitudes, PIXELS[order], time=time)
    path = tmp_path / f"a.{ending}"
    data.to_netcdf(path, engine="h5netcdf") if ending == "nc" else data.to_zarr(path)
    scene, pixels = content(path)
    np.testing.assert_allclose(
        [scene.extent.lon_min, scene.extent.lat_min, scene.extent.lon_max, scene.extent.lat_max],
        [169.8, 4, 199.8, 8],
        atol=1e-9,
    )
    assert scene.date == datetime.datetime(2021, 5, 6, 7)
    np.testing.assert_array_equal(pixels[..., :3], PIXELS)


def test_packed_arrays_and_polar_centres(tmp_path):
    latitudes = np.linspace(90, -90, 37)
    values = np.linspace(0, 1, 37)[:, np.newaxis].repeat(72, axis=1)
    values[20, 3] = np.nan
    data = _dataset(latitudes, np.arange(0, 360, 5.0), values)
    path = tmp_path / "a2020-01-01.nc"
    data.to_netcdf(
        path,
        engine="h5netcdf",
        encoding={"rgb": {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -1}},
    )
    scene, pixels = content(path, value_range=(0, 1))
    assert scene.size == (35, 72) and scene.extent.lat_max == pytest.approx(87.5)
    assert pixels[19, 3, 3] == 0 and (pixels[..., 3] == 0).sum() == 1
    np.testing.assert_allclose(pixels[:, 0, 0], values[1:-1, 0] * 255, atol=0.6)


@pytest.mark.parametrize(
    "data, message",
    [
        (xarray.Dataset({"a": (("y", "x"), np.zeros((4, 5)))}), "no variable with one-dimensional"),
        (_dataset([3, 2, 0.0], [1, 2.0], np.zeros((3, 2))), "latitude: has uneven steps"),
        (_dataset([3, np.nan, 1], [1, 2.0], np.zeros((3, 2))), "latitude: expected two or more"),
        (_dataset([2, 1.0], [1, 2.0], np.zeros((2, 2, 5), np.uint8)), r"further dimensions band"),
        (
            _dataset([2, 1.0], [1, 2.0], np.zeros((2, 2))).assign(
                b=(("lat", "lon"), np.zeros((2, 2)))
            ),
            "choose one with --variable",
        ),
        (_dataset([2, 1.0], [1, 2.0], np.zeros((2, 2), np.uint8)), "--date=YYYY-MM-DD"),
    ],
)
def test_unusable_arrays_are_named(tmp_path, data, message):
    path = tmp_path / "bad.nc"
    data.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ValueError, match=message):
        content(path, value_range=(0, 1) if "date" not in message else None)


def _saved(path, data, **options):
    data.to_netcdf(path, **{"engine": "h5netcdf", **options})
    return path


LAT, LON = 7.95 - 0.1 * np.arange(40), -49.95 + 0.1 * np.arange(60)


def test_arrays_of_netcdf_3_and_of_other_spellings_of_units(tmp_path):
    data = _dataset(LAT, LON, PIXELS.astype(np.int16), time=np.datetime64("2021-05-06T07"))
    scene, found = content(
        _saved(tmp_path / "a.nc", data, engine="scipy", format="NETCDF3_CLASSIC"),
        value_range=(0, 255),
    )
    np.testing.assert_array_equal(found[..., :3], PIXELS)
    assert scene.date == datetime.datetime(2021, 5, 6, 7)
    (tmp_path / "b.nc").write_bytes(b"CDF\x05")
    with pytest.raises(ValueError, match="nccopy"):
        content(tmp_path / "b.nc")
    for i, (north, east) in enumerate((("degree_N", "degree_E"), ("degreesN", "degreeE"))):
        named = data.rename(lat="nav_lat", lon="nav_lon").astype(np.uint8)
        named["nav_lat"].attrs["units"], named["nav_lon"].attrs["units"] = north, east
        scene, found = content(_saved(tmp_path / f"u{i}.nc", named))
        assert scene.extent == pytest.approx((-50, 4, -44, 8))


def test_times_that_are_none_of_the_picture(tmp_path):
    reference = np.datetime64("2021-05-01T00")
    data = _dataset(LAT, LON, PIXELS, forecast_reference_time=reference)
    data["forecast_reference_time"].attrs["standard_name"] = "forecast_reference_time"
    path = _saved(tmp_path / "f.nc", data)
    with pytest.raises(ValueError, match="--date"):
        content(path)
    day = datetime.datetime(2020, 1, 2)
    assert content(path, date=day)[0].date == day
    nat = _saved(tmp_path / "nat.nc", _dataset(LAT, LON, PIXELS, time=np.datetime64("NaT", "ns")))
    calendar = _dataset(LAT, LON, PIXELS, time=12.0)
    calendar["time"].attrs.update(units="days since 2020-01-01", calendar="360_day")
    for path in (nat, _saved(tmp_path / "c.nc", calendar)):
        with pytest.raises(ValueError, match="not a date of the standard calendar.*--date"):
            content(path)
        assert content(path, date=day)[0].date == day


@pytest.mark.parametrize("dim", ["level", "time", "member"])
def test_three_levels_or_times_are_no_colours(tmp_path, dim):
    data = _dataset(LAT, LON, PIXELS).rename(band=dim)
    path = _saved(tmp_path / f"a{DATE}.nc", data)
    message = "has 3 times" if dim == "time" else f"further dimensions {dim} "
    with pytest.raises(ValueError, match=message):
        content(path)
    if dim != "time":
        np.testing.assert_array_equal(content(path, bands=(2,))[1][..., 0], PIXELS[..., 1])


def test_bytes_with_a_fill_value_stay_bytes(tmp_path):
    holed = PIXELS.copy()
    holed[5, 6] = 0
    path = tmp_path / f"a{DATE}.nc"
    _saved(path, _dataset(LAT, LON, holed), encoding={"rgb": {"_FillValue": np.uint8(0)}})
    _, found = content(path)
    assert not found[5, 6].any() and (found[..., 3] == 0).sum() == 1
    np.testing.assert_array_equal(found[..., :3], holed)


@pytest.mark.parametrize("west, low", [(-3, 0), (357, 0), (177, -180)])
def test_sorted_longitudes_are_put_side_by_side_again(tmp_path, west, low):
    lon = (west + 0.05 + 0.1 * np.arange(60) - low) % 360 + low
    order = np.argsort(lon)
    path = _saved(tmp_path / f"a{DATE}.nc", _dataset(LAT, lon[order], PIXELS[:, order]))
    scene, found = content(path)
    assert scene.extent == pytest.approx(Extent(west, 4, west + 6, 8))
    np.testing.assert_array_equal(found[..., :3], PIXELS)


def test_folders_and_patterns_list_scenes(tmp_path):
    for name in ("b.tif", "a.JPG", "a.jgw", "c.nc", "readme.md", "movie.mp4", "._b.tif"):
        (tmp_path / name).write_bytes(b"")
    found, others, _ = read.find(str(tmp_path))
    assert [path.rsplit("/", 1)[1] for path in found] == ["a.JPG", "b.tif", "c.nc"]
    assert others == ["movie.mp4"]
    assert read.find(str(tmp_path / "*.tif"))[0] == [str(tmp_path / "b.tif")]
    (tmp_path / "a.png").write_bytes(b"")
    found, _, twins = read.find(str(tmp_path))
    assert len(found) == 4 and list(twins) == [str(tmp_path / "a.png")]
    assert "rename one" in twins[str(tmp_path / "a.png")]
    with pytest.raises(FileNotFoundError, match="no scenes"):
        read.find(str(tmp_path / "*.gif"))
    # What exists is no pattern.
    (tmp_path / "[2020]").mkdir()
    (tmp_path / "[2020]" / "x.tif").write_bytes(b"")
    for scenes in ("[2020]", "[2020]/x.tif"):
        assert read.find(str(tmp_path / scenes))[0] == [str(tmp_path / "[2020]" / "x.tif")]


def test_a_snapshot_of_worldview_is_read():
    path = sorted(real_data("scenes").iterdir())[0]
    with open_scene(str(path)) as scene:
        assert scene.extent == Extent(-61, 10, -40, 24) and scene.size == (1400, 2100)
        assert scene.platform == "Aqua" and scene.date == datetime.datetime(2007, 12, 27)
        rows = scene.read(700, 702)
    # Two decoders of JPEG, which enlarge the colours differently.
    difference = rows[..., :3].astype(int) - np.asarray(Image.open(path))[700:702]
    assert abs(difference).max() <= 8 and abs(difference.mean()) < 0.1
