import datetime

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.scenes.georeference import (
    EARTH_RADIUS,
    Extent,
    Grid,
    cover,
    named_date,
    named_extent,
    named_platform,
    parse_date,
    parse_extent,
    rows_within_poles,
)

CELL = (0.04, 0.04)


@given(
    st.floats(-180, 180, exclude_max=True), st.floats(-90, 80), st.floats(1, 360), st.floats(1, 10)
)
def test_cells_lie_where_the_transform_of_rasterio_puts_them(west, south, width, height):
    grid = cover(Extent(west, south, west + width, south + height), CELL)
    transform = rasterio.transform.from_origin(grid.lon_min, grid.lat_max, *CELL[::-1])
    rows, columns = grid.size
    west_edge, north_edge = transform @ (0, 0)
    east_edge, south_edge = transform @ (columns, rows)
    np.testing.assert_allclose(grid.longitude_edges[[0, -1]], [west_edge, east_edge], atol=1e-9)
    np.testing.assert_allclose(grid.latitude_edges[[0, -1]], [north_edge, south_edge], atol=1e-9)
    lons, lats = rasterio.transform.xy(transform, [0, rows - 1], [0, columns - 1])
    np.testing.assert_allclose(grid.longitudes[[0, -1]], lons, atol=1e-9)
    np.testing.assert_allclose(grid.latitudes[[0, -1]], lats, atol=1e-9)
    assert south_edge >= -90 - 1e-6 and columns <= 9000


def test_a_snapshot_is_one_frame_of_cells():
    grid = cover(named_extent("Aqua_CorrectedReflectance20071227_-61--40_10-24"), CELL)
    assert grid == Grid(-61, 24, CELL, (350, 525))


def test_the_globe_is_periodic_and_ends_at_the_poles():
    grid = cover(Extent(-180, -90, 180, 90), CELL)
    assert grid.size == (4500, 9000) and grid.periodic
    np.testing.assert_allclose(grid.latitude_edges[[0, -1]], [90, -90], atol=1e-9)
    assert abs(grid.cell_areas.sum() * 9000 - 4 * np.pi * EARTH_RADIUS**2) < 1e-3
    assert not cover(Extent(-180, -10, 179, 10), CELL).periodic
    assert cover(Extent(0, -90, 10, -85.01), CELL).size[0] == 124  # 124.75 would pass the pole


def test_extents_cross_the_date_line():
    extent = parse_extent("170, -10, -170, 10")
    assert extent == Extent(170, -10, 190, 10) and extent.degrees == (20, 20)
    assert Extent(-190, 0, -170, 1) == Extent(170, 0, 190, 1)
    assert Extent(0, 0, 360, 1).degrees == (1, 360)


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,2,3", "expected lon_min,lat_min,lon_max,lat_max"),
        ("a,b,c,d", "expected lon_min,lat_min,lon_max,lat_max"),
        ("0,20,10,10", "south before north"),
        ("0,-91,10,10", "expected -90 to 90"),
        ("0,nan,10,10", "finite"),
        ("0,0,361,10", "more than 360"),
        ("0,0,9e9,10", "expected degrees"),
    ],
)
def test_impossible_extents_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_extent(text)


def test_rows_beyond_a_pole_are_left_out():
    # 0.25 degrees with centres from 90 to -90, as reanalyses have them.
    assert rows_within_poles(90.125, -90.125, 721) == (1, 720, 89.875, -89.875)
    assert rows_within_poles(24, 10, 1400) == (0, 1400, 24, 10)
    with pytest.raises(ValueError, match="coordinate reference system"):
        rows_within_poles(2e6, 1e6, 100)


def test_file_names_carry_dates_and_platforms():
    assert named_date("Aqua_CorrectedReflectance20071227_-61--40") == datetime.datetime(
        2007, 12, 27
    )
    assert named_date("snapshot-2023-01-15T10_30_00Z") == datetime.datetime(2023, 1, 15, 10, 30)
    assert named_date("MOD09.A2007361.h10") == datetime.datetime(2007, 12, 27)
    assert named_date("goes_s202036612") == datetime.datetime(2020, 12, 31, 12)
    assert named_date("20071399") is None and named_date("120071227") is None
    assert named_platform("Terra_2003") == "Terra" and named_platform("VIIRS_NOAA20") == "NOAA-20"
    assert named_platform("x") == "" and named_extent("x_1-2") is None
    assert parse_date("2007-12-27T13:30Z") == datetime.datetime(2007, 12, 27, 13, 30)
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        parse_date("27.12.2007")
