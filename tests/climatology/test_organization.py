"""Organisation of clouds; scipy and plain loops are the oracles."""

import numpy as np
import pytest
from scipy import integrate, spatial

from clouds_tf.climatology import objects
from clouds_tf.geo import Extent, Grid


@pytest.mark.parametrize("number", [2, 3, 50, 600])
def test_iorg_is_the_area_under_its_curve(number):
    points = np.random.default_rng(number).uniform(0, 100, (number, 2))
    distances, _ = spatial.cKDTree(points).query(points, k=2)
    nearest = np.sort(distances[:, 1])
    r = np.linspace(0, 400, 400_001)
    of_clouds = np.searchsorted(nearest, r, side="right") / number
    of_poisson = 1 - np.exp(-np.pi * number / 100**2 * r**2)
    expected = integrate.trapezoid(of_clouds, of_poisson)
    found = objects.organization_index(points, 100.0**2)
    assert found == pytest.approx(expected, abs=1e-3)


def test_iorg_tells_clusters_from_a_lattice_and_chance():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0, 1000, (3000, 2))
    centres = rng.uniform(0, 1000, (20, 2))
    clusters = centres[rng.integers(0, 20, 500)] + rng.normal(0, 5, (500, 2))
    lattice = np.stack(np.meshgrid(np.arange(0, 1000, 50.0), np.arange(0, 1000, 50.0)), -1)
    found = [
        objects.organization_index(points.reshape(-1, 2), 1e6)
        for points in (chance, clusters, lattice)
    ]
    assert found[0] == pytest.approx(0.5, abs=0.03)
    assert found[1] > 0.8 and found[2] < 0.1
    assert np.isnan(objects.organization_index(np.zeros((1, 2)), 1e6))


@pytest.mark.parametrize("seed", range(4))
def test_open_sky_is_that_of_loops(seed):
    rng = np.random.default_rng(seed)
    cloudy, observed = rng.random((12, 17)) < 0.2, rng.random((12, 17)) < 0.95
    cloudy &= observed
    clear, skies = observed & ~cloudy, []
    for i, j in zip(*np.nonzero(clear)):
        reach = []
        for di, dj in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            steps, y, x = 0, i + di, j + dj
            while 0 <= y < 12 and 0 <= x < 17 and clear[y, x]:
                steps, y, x = steps + 1, y + di, x + dj
            reach.append(steps)
        skies.append((reach[0] + reach[1] + 1) * (reach[2] + reach[3] + 1))
    largest, mean = objects.open_sky(cloudy, observed)
    assert largest == pytest.approx(max(skies) / observed.sum())
    assert mean == pytest.approx(np.mean(skies) / observed.sum())


def test_skies_without_clouds_and_without_gaps():
    nothing, all_of_it = np.zeros((5, 6), bool), np.ones((5, 6), bool)
    assert objects.open_sky(nothing, all_of_it) == (1, 1)
    assert np.isnan(objects.open_sky(all_of_it, all_of_it)).all()
    assert np.isnan(objects.open_sky(nothing, nothing)).all()


def test_the_cloud_fraction_counts_observed_area_only():
    cloudy, observed = np.zeros((2, 4), bool), np.ones((2, 4), bool)
    cloudy[0, :2] = True
    grid = Grid((30, 1), Extent(0, 0, 4, 60), north_first=True)
    observed[1] = False
    found = objects.organization(cloudy, observed, grid)
    assert found["cloud_fraction"] == pytest.approx(0.5)
    empty = objects.organization(cloudy & False, observed & False, grid)
    assert all(np.isnan(value) for value in empty.values())


def test_degrees_of_longitude_are_short_far_north():
    """Two clouds at 60 degrees, by the haversine formula and the area of a zone of a sphere."""
    grid = Grid(0.1, Extent(0, 59, 4, 61))
    cloudy = np.zeros(grid.shape, bool)
    cloudy[10, [5, 25]] = cloudy[11, [5, 25]] = True  # 2 degrees apart
    radius = 6371.0
    half = np.sin(np.radians(1)) * np.cos(np.radians(60))
    distance = 2 * radius * np.arcsin(half)
    zone = np.sin(np.radians(61)) - np.sin(np.radians(59))
    area = radius**2 * np.radians(4) * zone
    found = objects.organization(cloudy, np.ones(grid.shape, bool), grid)
    assert found["iorg"] == pytest.approx(np.exp(-2 * np.pi * distance**2 / area), rel=2e-3)
    some = np.diff(np.sin(np.radians([60.0, 60.2])))[0] * np.radians(0.2) * radius**2
    assert found["cloud_fraction"] == pytest.approx(some / area, rel=1e-3)
