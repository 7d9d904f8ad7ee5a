import numpy as np
import pytest
import shapely

from clouds_tf.geo import Extent, Grid, cover, land
from clouds_tf.scenes.exclude import land_mask


@pytest.mark.parametrize(
    "place, lon, lat, expected",
    [
        ("Mexico City", -99.1, 19.4, True),
        ("Barbados", -59.55, 13.18, True),
        ("Trade winds", -57.0, 13.2, False),
        ("Gulf of Mexico", -90.0, 25.0, False),
        ("Caspian Sea", 51.0, 41.0, False),
        ("Vanua Levu", 179.2, -16.6, True),
        ("Chukotka", -175.0, 67.0, True),
        ("South Pole", 0.0, -89.9, True),
        ("Null Island", 0.0, 0.0, False),
    ],
)
def test_places_are_on_land_or_not(place, lon, lat, expected):
    grid = cover(Extent(lon - 0.02, max(lat - 0.02, -90), lon + 0.02, lat + 0.02), (0.04, 0.04))
    assert land_mask(grid)[0, 0] == expected, place


@pytest.mark.parametrize("west, south", [(-62, 8), (176, -20), (-190, 62), (170, -48)])
def test_masks_are_those_of_shapely(west, south):
    extent = Extent(west, south, west + 10, south + 10)
    grid = cover(extent, (0.25, 0.25))
    shape = shapely.unary_union(
        [shapely.Polygon(p[0], p[1:]).buffer(0) for p in land.polygons(extent)]
    )
    x, y = np.meshgrid(grid.lon, grid.lat)
    expected = shapely.contains_xy(shape, x, y)
    found = land_mask(grid)
    assert found.any() and not found.all()
    edge = shapely.distance(shape.boundary, shapely.points(x, y)) < 1e-3
    np.testing.assert_array_equal(found[~edge], expected[~edge])
    southern_first = Grid(0.25, extent)
    np.testing.assert_array_equal(land_mask(southern_first)[::-1], found)


def test_coastlines_stay_near_their_extent_and_have_no_seam():
    extent = Extent(170, 60, -170, 72)
    lines = np.concatenate(land.coastlines(extent))
    seen = lines[np.isfinite(lines[:, 0])]
    assert len(seen) > 500
    assert seen[:, 0].min() > 165 and seen[:, 0].max() < 195
    steps = abs(np.diff(lines, axis=0))
    along_seam = (abs(lines[1:, 0] - 180) < 0.01) & (steps[:, 0] < 0.01) & (steps[:, 1] > 0.5)
    assert not along_seam.any()
    assert not land.coastlines(Extent(-30, 0, -20, 10))
