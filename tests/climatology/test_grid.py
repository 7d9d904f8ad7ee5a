import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.climatology import grid as grids
from clouds_tf.climatology.grid import Grid


def test_cells_have_centres_and_edges():
    grid = Grid(cell=0.5, extent=(-61, 10, -40, 24))
    assert grid.shape == (28, 42)
    assert grid.lat[0] == 10.25 and grid.lat[-1] == 23.75
    assert grid.lon_edges[0] == -61 and grid.lon_edges[-1] == -40
    np.testing.assert_allclose(np.diff(grid.lon), 0.5, atol=1e-12)
    assert not grid.is_global and Grid().is_global
    assert Grid(**grid.to_json()) == grid


def test_areas_are_those_of_a_sphere():
    # The sphere has 4 pi steradians; the northern cap beyond 60 degrees 2 pi (1 - sin 60).
    areas = np.radians(Grid(cell=2.0).areas)
    assert areas.sum() == pytest.approx(4 * np.pi, rel=1e-12)
    assert areas[-15:].sum() == pytest.approx(2 * np.pi * (1 - np.sqrt(3) / 2), rel=1e-12)
    # Small cells: cosine of the latitude.
    small = Grid(cell=0.01, extent=(0, 50, 0.1, 51)).areas
    cosines = np.cos(np.radians(Grid(cell=0.01, extent=(0, 50, 0.1, 51)).lat))
    np.testing.assert_allclose(small[:, 0] / small[0, 0], cosines / cosines[0], rtol=1e-7)


@pytest.mark.parametrize(
    "cell, extent, reason",
    [
        (0.7, (-180, -90, 180, 90), "does not divide the 360 degrees"),
        (0, (-180, -90, 180, 90), "a positive cell"),
        (1, (-180, -91, 180, 90), "expected lon_min, lat_min, lon_max, lat_max"),
        (1, (10, 0, 0, 5), "lon_min < lon_max"),
        (1, (-360, 0, 360, 5), "at most 360"),
        (1, (0, float("nan"), 1, 2), "got cell 1 and extent"),
    ],
)
def test_impossible_grids_are_named(cell, extent, reason):
    with pytest.raises(ValueError, match=reason):
        Grid(cell, extent)


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
    shared = grids.overlaps_around(Grid().lon_edges, source)
    np.testing.assert_allclose(shared.sum(axis=0), 5, atol=1e-9)
    of_degree = {(start + k) % 360 for k in range(30)}
    touched = Grid().lon[shared.any(axis=1)]
    assert {np.floor(lon) % 360 for lon in touched} == of_degree


def test_weights_of_a_region_are_its_area():
    grid = Grid(cell=3.0)
    one = grids.extent_weights(grid, (-61, 10, -40, 24))
    assert one.sum() == pytest.approx(21 * (np.sin(np.radians(24)) - np.sin(np.radians(10))))
    across = grids.extent_weights(grid, (159, 8, -170, 22))
    assert across.sum() == pytest.approx(31 * (np.sin(np.radians(22)) - np.sin(np.radians(8))))
    assert across[:, :4].any() and across[:, -8:].any() and not across[:, 4:-8].any()


def test_regions_are_parsed_or_refused():
    assert grids.parse_regions(["Barbados:-61,10,-40,24"]) == {"Barbados": (-61, 10, -40, 24)}
    for text in ("-61,10,-40,24", "a:1,2,3", ":1,2,3,4", "a:b,2,3,4"):
        with pytest.raises(ValueError, match="expected"):
            grids.parse_regions([text])
    with pytest.raises(ValueError, match="outside the grid"):
        grids.extent_weights(Grid(1, (0, 0, 10, 10)), (20, 0, 30, 10))
