"""Objects and their rectangles; scipy and shapely are the oracles."""

import numpy as np
import pytest
import shapely
from scipy import ndimage

from clouds_tf.geo import Extent, Grid, cover, earth
from clouds_tf.geo.objects import find_objects, minimal_rectangle, rectangle_in_km


@pytest.mark.parametrize("seed", range(20))
def test_the_minimal_rectangle_is_that_of_shapely(seed):
    points = np.random.default_rng(seed).normal(size=(3 + seed, 2)) @ [[3, 1], [0, 1]]
    found = minimal_rectangle(points)
    expected = shapely.MultiPoint(points).minimum_rotated_rectangle
    corners = np.array(expected.exterior.coords)[:3]
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    assert found.length * found.width == pytest.approx(expected.area, rel=1e-6)
    assert [found.length, found.width] == pytest.approx(sorted(sides)[::-1], rel=1e-6)
    longer = np.diff(corners, axis=0)[sides.argmax()]
    expected_angle = np.degrees(np.arctan2(longer[1], longer[0])) % 180
    assert abs((found.orientation - expected_angle + 90) % 180 - 90) < 1e-6


def test_objects_are_measured_in_km():
    grid = Grid(0.1, Extent(175, -2, 185, 2), north_first=True)
    mask = np.zeros(grid.shape, bool)
    mask[10:12, 20:60] = True  # 0.2 x 4 degrees near the equator
    mask[12, 60] = True  # touches at a corner
    (found,), labels = find_objects(mask, np.where(mask, 0.5, 0), grid)
    rectangle = rectangle_in_km(found, grid)
    degree = earth.KM_PER_DEGREE
    assert found.area_km2 == pytest.approx(81 * (0.1 * degree) ** 2, rel=1e-3)
    assert rectangle.length == pytest.approx(4.1 * degree, rel=0.01)
    assert 0.2 * degree < rectangle.width < 0.31 * degree
    assert found.centroid[0] == pytest.approx(179.025, abs=0.01)
    assert found.mean_probability == pytest.approx(0.5)
    np.testing.assert_array_equal(labels, mask)


@pytest.mark.parametrize("north_first", [True, False])
def test_objects_are_those_of_scipy_in_the_order_of_their_first_cells(north_first):
    rng = np.random.default_rng(0)
    grid = Grid(0.5, Extent(10, -6, 20, 9), north_first)
    mask, values = rng.random(grid.shape) < 0.3, rng.random(grid.shape)
    found, labels = find_objects(mask, values, grid)
    numbers, count = ndimage.label(mask, np.ones((3, 3)))
    assert len(found) == count == labels.max()
    areas = sorted(ndimage.sum_labels(grid.areas, numbers, range(1, count + 1)))
    assert sorted(item.area_km2 for item in found) == pytest.approx(areas)
    firsts = [int(np.flatnonzero((labels == i + 1).T.ravel())[0]) for i in range(count)]
    assert firsts == sorted(firsts)
    for number, item in enumerate(found, start=1):
        rows, columns = np.nonzero(labels == number)
        lat = np.sort([grid.lat_edges[rows], grid.lat_edges[rows + 1]], axis=0)
        west, east = grid.lon_edges[columns.min()], grid.lon_edges[columns.max() + 1]
        assert item.bounds == pytest.approx((west, lat.min(), east, lat.max()))


@pytest.mark.parametrize("start", [-180, 0, 100])
@pytest.mark.parametrize("span", [20, 200, 350])
def test_an_object_across_a_seam_is_one_wherever_the_grid_begins(start, span):
    """The same cells on a grid that begins elsewhere, where they are in one piece."""
    plain = Grid(10.0, Extent(30, -20, 390, 20))
    mask = np.zeros(plain.shape, bool)
    mask[1, 2 : 2 + span // 10] = mask[2, 3] = True
    grid = Grid(10.0, Extent(start, -20, start + 360, 20))
    shift = round((30 - grid.extent.lon_min) / 10)
    values = np.random.default_rng(0).random(plain.shape)
    ((one,), _), ((other,), labels) = (
        find_objects(np.roll(mask, turn, axis=1), np.roll(values, turn, axis=1), g)
        for g, turn in ((plain, 0), (grid, shift))
    )
    assert other.area_km2 == pytest.approx(one.area_km2)
    assert other.bounds == pytest.approx(one.bounds)
    assert other.centroid == pytest.approx(one.centroid)
    assert other.mean_probability == pytest.approx(one.mean_probability)
    found, expected = rectangle_in_km(other, grid), rectangle_in_km(one, plain)
    assert (found.length, found.width) == pytest.approx((expected.length, expected.width))
    np.testing.assert_array_equal(labels > 0, np.roll(mask, shift, axis=1))


def test_a_ring_round_the_globe_and_nothing():
    grid = cover(Extent(-180, -4, 180, 4), (1.0, 2.0))
    mask = np.zeros(grid.shape, bool)
    mask[3] = True
    (ring,), _ = find_objects(mask, mask, grid)
    assert ring.bounds == (-180, 0, 180, 1)
    assert ring.area_km2 == pytest.approx(grid.area_in(Extent(-180, 0, 180, 1)).sum())
    assert find_objects(mask & False, mask, grid)[0] == []
