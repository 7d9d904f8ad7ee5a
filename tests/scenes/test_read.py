"""Scenes of every kind, written by rasterio, Pillow and xarray."""

import datetime

import numpy as np
import pytest
import rasterio
import xarray
from conftest import real_data
from PIL import Image

from clouds_tf.geo import Extent
from clouds_tf.scenes import read
from clouds_tf.scenes.read import Reading, open_scene

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
    with pytest.raises(ValueError, match=f"{path}: has no place on the map.*--extent"):
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


def test_bands_are_chosen_or_asked_for(tmp_path):
    path = write_tiff(tmp_path / f"m{DATE}.tif", np.concatenate([PIXELS, PIXELS + 1], axis=2))
    with pytest.raises(ValueError, match="6 bands, expected 1 or 3; choose them with --bands"):
        content(path)
    _, pixels = content(path, bands=(3, 2, 1))
    np.testing.assert_array_equal(pixels[..., :3], PIXELS[..., ::-1])
    with pytest.raises(ValueError, match="has 6 bands"):
        content(path, bands=(7,))


def test_projected_rasters_come_on_longitude_and_latitude(tmp_path):
    """A disc in a polar or Mercator projection lies where pyproj says."""
    pyproj = pytest.importorskip("pyproj")
    for crs, x, y in (("EPSG:3857", -5e6, 2e6), ("EPSG:32633", 500000, 5e6)):
        pixels = np.full((300, 300, 3), 10, np.uint8)
        rows, columns = np.indices((300, 300))
        pixels[np.hypot(rows - 100.5, columns - 180.5) < 8] = 250
        transform = rasterio.transform.from_origin(x, y, 2000, 2000)
        path = write_tiff(tmp_path / f"x{DATE}.tif", pixels, crs=crs, transform=transform)
        scene, found = content(path)
        spot = np.argwhere(found[..., 0] > 128).mean(axis=0) + 0.5
        latitude = scene.extent.lat_max - spot[0] * scene.pixel[0]
        longitude = scene.extent.lon_min + spot[1] * scene.pixel[1]
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        expected = to_degrees.transform(*(transform @ (181, 101)))
        np.testing.assert_allclose([longitude, latitude], expected, atol=0.01)


def _dataset(latitudes, longitudes, values, **coords):
    array = xarray.DataArray(
        values, dims=("lat", "lon", "band")[: values.ndim],
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


def test_folders_and_patterns_list_scenes(tmp_path):
    for name in ("b.tif", "a.JPG", "a.jgw", "c.nc", "readme.md", "movie.mp4", ".hidden"):
        (tmp_path / name).write_bytes(b"")
    found, others = read.find(str(tmp_path))
    assert [path.rsplit("/", 1)[1] for path in found] == ["a.JPG", "b.tif", "c.nc"]
    assert others == ["movie.mp4"]
    assert read.find(str(tmp_path / "*.tif"))[0] == [str(tmp_path / "b.tif")]
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="two scenes of one name"):
        read.find(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no scenes"):
        read.find(str(tmp_path / "*.gif"))


def test_a_snapshot_of_worldview_is_read():
    path = sorted(real_data("scenes").iterdir())[0]
    with open_scene(str(path)) as scene:
        assert scene.extent == Extent(-61, 10, -40, 24) and scene.size == (1400, 2100)
        assert scene.platform == "Aqua" and scene.date == datetime.datetime(2007, 12, 27)
        rows = scene.read(700, 702)
    # Two decoders of JPEG, which enlarge the colours differently.
    difference = rows[..., :3].astype(int) - np.asarray(Image.open(path))[700:702]
    assert abs(difference).max() <= 8 and abs(difference.mean()) < 0.1
