"""Fractions of cells by boxes; shapely, which knows no grid, is the oracle."""

import numpy as np
import pytest
import shapely

from clouds_tf.climatology.boxes import View, day_fields, looks_at
from clouds_tf.geo.earth import RADIUS, sine
from clouds_tf.geo.grid import Grid


def _rectangle(west, south, east, north):
    """A box in the plane of longitude and sine of latitude, where areas are those of the sphere."""
    return shapely.box(west, sine(south), east, sine(north))


def _turned(boxes):
    return [_rectangle(w + turn, s, e + turn, n) for w, s, e, n in boxes for turn in (-360, 0, 360)]


def _cells(grid):
    south, west = grid.lat_edges, grid.lon_edges
    h, w = grid.shape
    corners = [[(west[j], south[i], west[j + 1], south[i + 1]) for j in range(w)] for i in range(h)]
    return [[_rectangle(*corner) for corner in row] for row in corners]


def _share_of_cells(shape, grid):
    return np.array([[cell.intersection(shape).area / cell.area for cell in row]
                     for row in _cells(grid)])


def _random_boxes(rng, number, extent):
    west, south, east, north = extent
    start = rng.uniform([west - 5, south - 3], [east, north], (number, 2))
    size = rng.uniform(0.5, 15, (number, 2))
    boxes = np.column_stack([start, start + size])
    return np.clip(boxes, [-360, -90, -360, -90], [360, 90, 720, 90])


@pytest.mark.parametrize(
    "extent, cell",
    [((-20, -10, 20, 10), 4.0), ((150, -90, 210, -60), 6.0), ((-180, 30, 180, 90), 20.0)],
)
def test_fractions_are_those_of_shapely(extent, cell):
    grid, rng = Grid(cell, extent), np.random.default_rng(int(cell))
    boxes, labels = _random_boxes(rng, 40, extent), rng.integers(0, 3, 40)
    fields = day_fields("2017-01-01", [View(boxes, labels)], 3, grid)
    unions = [shapely.union_all(_turned(boxes[labels == c])) for c in range(3)]
    for c in range(3):
        expected = _share_of_cells(unions[c], grid)
        np.testing.assert_allclose(fields.fraction[c], expected, atol=1e-6)
    nothing = 1 - _share_of_cells(shapely.union_all(unions), grid)
    np.testing.assert_allclose(fields.unclassified, nothing, atol=1e-6)
    whole = _rectangle(*extent)
    for i, j in np.ndindex(3, 3):
        both = unions[i].intersection(unions[j]).intersection(whole).area / whole.area
        assert fields.shared[i, j] == pytest.approx(both, abs=1e-9)
    assert (fields.coverage == 1).all()


def test_a_box_across_the_date_line_is_whole_on_every_grid():
    boxes, labels = np.array([[175.0, 0, 187.5, 10]]), np.zeros(1, int)
    for extent in ((-180, -20, 180, 20), (0, -20, 360, 20), (170, -20, 190, 20)):
        grid = Grid(2.5, extent)
        fields = day_fields("2017-01-01", [View(boxes, labels)], 1, grid)
        area = (fields.fraction[0] * grid.areas).sum()
        expected = RADIUS**2 * np.radians(12.5) * np.sin(np.radians(10))
        assert area == pytest.approx(expected, rel=1e-6)


def test_views_of_one_region_are_averaged():
    grid = Grid(1.0, (0, 0, 4, 2))
    extent = (0, 0, 2, 2)
    one = View(np.array([[0.0, 0, 1, 1]]), np.zeros(1, int), extent)
    none = View(np.zeros((0, 4)), np.zeros(0, int), extent)
    fields = day_fields("2017-01-01", [one, none, none, none], 1, grid)
    assert fields.fraction[0].tolist() == [[0.25, 0, 0, 0], [0, 0, 0, 0]]
    assert fields.unclassified.tolist() == [[0.75, 1, 0, 0], [1, 1, 0, 0]]
    assert fields.coverage.tolist() == [[1, 1, 0, 0]] * 2
    assert fields.shared[0, 0] == pytest.approx(
        0.25 * grid.areas[0, 0] / grid.areas[:, :2].sum(), rel=1e-9
    )


def test_coverage_is_the_union_of_the_extents():
    grid = Grid(2.0, (0, 0, 6, 2))
    empty = np.zeros((0, 4)), np.zeros(0, int)
    views = [View(*empty, (0, 0, 3, 2)), View(*empty, (2, 0, 3.5, 2))]
    coverage = day_fields("2017-01-01", views, 1, grid).coverage
    np.testing.assert_allclose(coverage, [[1, 0.75, 0]], atol=1e-7)
    # A box counts where its own view looked.
    boxes = np.array([[0.0, 0, 6, 2]]), np.zeros(1, int)
    fields = day_fields("2017-01-01", [View(*boxes, (0, 0, 1, 2))], 1, grid)
    np.testing.assert_allclose(fields.fraction[0], [[1, 0, 0]])
    np.testing.assert_allclose(fields.coverage, [[0.5, 0, 0]], atol=1e-7)


def test_the_order_of_views_and_boxes_does_not_matter():
    grid, rng = Grid(5.0, (-20, -10, 20, 10)), np.random.default_rng(0)
    views = [
        View(_random_boxes(rng, 9, grid.extent), rng.integers(0, 2, 9), (-20.0, -10.0, 20.0, 10.0))
        for _ in range(4)
    ]
    shuffled = [View(view.boxes[::-1], view.labels[::-1], view.extent) for view in views[::-1]]
    one, other = (day_fields("2017-01-01", v, 2, grid) for v in (views, shuffled))
    np.testing.assert_allclose(one.fraction, other.fraction, atol=1e-7)


def test_a_view_elsewhere_does_not_look_at_the_grid():
    empty = np.zeros((0, 4)), np.zeros(0, int)
    grid = Grid(1.0, (170, 0, 190, 10))
    assert looks_at(View(*empty, (-175, 0, -160, 5)), grid)
    assert not looks_at(View(*empty, (-165, 0, -160, 5)), grid)
    assert not looks_at(View(*empty, (175, 10, 180, 15)), grid)
