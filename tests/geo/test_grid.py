import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.geo import GLOBE, Extent, Grid, cover, earth
from clouds_tf.geo import grid as grids
from clouds_tf.geo import named_extent, parse_extent, parse_regions

pytestmark = pytest.mark.lanes

CELL = (0.04, 0.04)


def test_cells_have_centres_and_edges():
    grid = Grid(0.5, (-61, 10, -40, 24))
    assert grid.shape == (28, 42)
    assert grid.lat[0] == 10.25 and grid.lat[-1] == 23.75
    assert grid.lon_edges[0] == -61 and grid.lon_edges[-1] == -40
    np.testing.assert_allclose(np.diff(grid.lon), 0.5, atol=1e-12)
    assert not grid.periodic and Grid(1).periodic
    north_first = Grid((0.5, 0.25), grid.extent, north_first=True)
    assert north_first.shape == (28, 84) and north_first.lat.tolist() == grid.lat.tolist()[::-1]


def test_areas_are_those_of_a_sphere():
    # The sphere has 4 pi r^2; the northern cap beyond 60 degrees 2 pi (1 - sin 60) r^2.
    areas = Grid(2.0).areas / earth.RADIUS**2
    assert areas.sum() == pytest.approx(4 * np.pi, rel=1e-12)
    tall = Grid((30.0, 1.0))  # a cell need not be square
    assert tall.areas.sum() == pytest.approx(4 * np.pi * earth.RADIUS**2, rel=1e-12)
    assert areas[-15:].sum() == pytest.approx(2 * np.pi * (1 - np.sqrt(3) / 2), rel=1e-12)
    # Small cells: cosine of the latitude.
    grid = Grid(0.01, (0, 50, 0.1, 51))
    cosines = np.cos(np.radians(grid.lat))
    np.testing.assert_allclose(
        grid.row_areas / grid.row_areas[0], cosines / cosines[0], rtol=1e-7
    )


def test_the_sphere_has_the_area_of_the_earth():
    """Of WGS 84 (Moritz, "Geodetic Reference System 1980"), whose degrees pyproj measures."""
    assert Grid(10).areas.sum() == pytest.approx(510_065_621.7, rel=1e-6)
    pyproj = pytest.importorskip("pyproj")
    *_, metres = pyproj.Geod("+a=6371007.2 +b=6371007.2").inv(0, 10, 0, 11)
    assert earth.KM_PER_DEGREE == pytest.approx(metres / 1000, rel=1e-9)


@pytest.mark.parametrize(
    "cell, extent, reason",
    [
        (0.7, GLOBE, "does not divide the 180 degrees"),
        (0, GLOBE, "a positive number of degrees"),
        (float("nan"), GLOBE, "a positive number of degrees"),
        ((1, 2, 3), GLOBE, "a positive number of degrees"),
        (1, (-180, -91, 180, 90), "expected -90 to 90"),
        (1, (-360, 0, 360, 5), "more than 360"),
        (1, (0, float("nan"), 1, 2), "finite"),
    ],
)
def test_impossible_grids_are_named(cell, extent, reason):
    with pytest.raises(ValueError, match=reason):
        Grid(cell, extent)


@given(
    st.floats(-180, 180, exclude_max=True), st.floats(-90, 80), st.floats(1, 360), st.floats(1, 10)
)
def test_cells_lie_where_the_transform_of_rasterio_puts_them(west, south, width, height):
    extent = Extent(west, south, west + width, south + height)
    grid = cover(extent, CELL)
    transform = rasterio.transform.from_origin(extent.lon_min, extent.lat_max, *CELL[::-1])
    rows, columns = grid.shape
    west_edge, north_edge = transform @ (0, 0)
    east_edge, south_edge = transform @ (columns, rows)
    np.testing.assert_allclose(grid.lon_edges[[0, -1]], [west_edge, east_edge], atol=1e-9)
    np.testing.assert_allclose(grid.lat_edges[[0, -1]], [north_edge, south_edge], atol=1e-6)
    lons, lats = rasterio.transform.xy(transform, [0, rows - 1], [0, columns - 1])
    np.testing.assert_allclose(grid.lon[[0, -1]], lons, atol=1e-9)
    np.testing.assert_allclose(grid.lat[[0, -1]], lats, atol=1e-6)
    assert south_edge >= -90 - 1e-6 and columns <= 9000


def test_a_snapshot_is_one_frame_of_cells():
    grid = cover(named_extent("Aqua_CorrectedReflectance20071227_-61--40_10-24"), CELL)
    assert grid.shape == (350, 525) and grid.extent == pytest.approx((-61, 10, -40, 24))


def test_the_globe_is_periodic_and_ends_at_the_poles():
    grid = cover(GLOBE, CELL)
    assert grid.shape == (4500, 9000) and grid.periodic
    np.testing.assert_allclose(grid.lat_edges[[0, -1]], [90, -90], atol=1e-9)
    assert not cover(Extent(-180, -10, 179, 10), CELL).periodic
    assert cover(Extent(0, -90, 10, -85.01), CELL).shape[0] == 124  # 124.75 would pass the pole


def test_extents_cross_the_date_line():
    extent = parse_extent("170, -10, -170, 10")
    assert extent == Extent(170, -10, 190, 10) and extent.degrees == (20, 20)
    assert Extent(-190, 0, -170, 1) == Extent(170, 0, 190, 1)
    assert Extent(0, 0, 360, 1).degrees == (1, 360)
    assert Grid(1.0, Extent(170, -10, -170, 10)).lon[[0, -1]].tolist() == [170.5, 189.5]


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
    assert grids.rows_within_poles(90.125, -90.125, 721) == (1, 720, 89.875, -89.875)
    assert grids.rows_within_poles(24, 10, 1400) == (0, 1400, 24, 10)
    with pytest.raises(ValueError, match="coordinate reference system"):
        grids.rows_within_poles(2e6, 1e6, 100)


edges = st.lists(st.integers(-50, 50), min_size=2, max_size=8, unique=True).map(sorted)


@given(edges, edges)
def test_overlaps_are_those_of_counted_steps(one, other):
    expected = [
        [len(set(range(a, b)) & set(range(c, d))) for c, d in zip(other, other[1:])]
        for a, b in zip(one, one[1:])
    ]
    assert grids.overlaps(np.array(one), np.array(other)).tolist() == expected


@pytest.mark.parametrize("start", [-180, 0, 170, -190, -360])
def test_overlaps_on_the_circle_keep_all_of_an_interval(start):
    source = np.linspace(start, start + 30, 7)
    shared = grids.overlaps_around(Grid(1).lon_edges, source)
    np.testing.assert_allclose(shared.sum(axis=0), 5, atol=1e-9)
    of_degree = {(start + k) % 360 for k in range(30)}
    touched = Grid(1).lon[shared.any(axis=1)]
    assert {np.floor(lon) % 360 for lon in touched} == of_degree


@pytest.mark.parametrize("north_first", [False, True])
def test_cells_of_two_grids_share_the_area_of_their_rectangles(north_first):
    """Against shapely, in the plane of longitudes and sines of latitudes."""
    shapely = pytest.importorskip("shapely")
    grid, other = Grid(4.0, (-8, 0, 4, 8), north_first), Grid((2.5, 3), (-5, 1, 4, 6), True)
    down, across = grid.shared(other)

    def boxes(g):
        lat = np.sort([g.lat_edges[:-1], g.lat_edges[1:]], axis=0)
        return [
            [shapely.box(*corners) for corners in zip(g.lon_edges, n, g.lon_edges[1:], m)]
            for n, m in zip(*(np.broadcast_to(earth.heights(x)[:, None], g.shape) for x in lat))
        ]

    for (i, row), (k, line) in [
        (a, b) for a in enumerate(boxes(grid)) for b in enumerate(boxes(other))
    ]:
        for (j, one), (m, two) in [(a, b) for a in enumerate(row) for b in enumerate(line)]:
            expected = one.intersection(two).area
            assert down[i, k] * across[j, m] == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_weights_of_a_region_are_its_area():
    def area(width, south, north):
        return earth.RADIUS**2 * np.radians(width) * np.diff(np.sin(np.radians([south, north])))[0]

    grid = Grid(3.0)
    assert grid.area_in(Extent(-61, 10, -40, 24)).sum() == pytest.approx(area(21, 10, 24))
    across = grid.area_in(Extent(159, 8, -170, 22))
    assert across.sum() == pytest.approx(area(31, 8, 22))
    assert across[:, :4].any() and across[:, -8:].any() and not across[:, 4:-8].any()
    with pytest.raises(ValueError, match="outside the grid"):
        Grid(1, (0, 0, 10, 10)).area_in(Extent(20, 0, 30, 10))


def test_regions_are_parsed_or_refused():
    assert parse_regions(["Barbados:-61,10,-40,24"]) == {"Barbados": (-61, 10, -40, 24)}
    for text in ("-61,10,-40,24", "a:1,2,3", ":1,2,3,4", "a:b,2,3,4"):
        with pytest.raises(ValueError, match="expected"):
            parse_regions([text])
