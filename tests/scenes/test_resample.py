import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.geo import Extent, Grid, cover
from clouds_tf.scenes import resample
from clouds_tf.scenes.read import Scene

pytestmark = pytest.mark.lanes


@given(st.integers(1, 40), st.integers(1, 40), st.floats(-3, 5), st.floats(0.2, 7))
def test_taps_are_means_over_the_area_or_interpolate(num_sources, num_targets, first, step):
    """Against numpy.interp: of the running integral where it shrinks, of centres elsewhere."""
    values = np.random.default_rng(0).random(num_sources)
    found = resample.apply(
        resample.taps(num_sources, first, step, num_targets), values.astype(np.float32), 0
    )
    edges = first + step * np.arange(num_targets + 1)
    if step > 1:
        integral = np.interp(edges, np.arange(num_sources + 1), np.r_[0, np.cumsum(values)])
        expected = np.diff(integral) / step
    else:
        centres = edges[:-1] + step / 2
        expected = np.interp(centres, np.arange(num_sources) + 0.5, values)
        inside = (centres > 0) & (centres < num_sources)
        clear = (abs(centres) > 1e-4) & (abs(centres - num_sources) > 1e-4)
        expected, found = (expected * inside)[clear], found[clear]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def scene_of(pixels, extent):
    pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    date = datetime.datetime(2020, 1, 1)
    return Scene(
        "x", extent, pixels.shape[:2], date, "", lambda start, stop: pixels[start:stop].copy()
    )


def test_whole_ratios_are_means_of_blocks_and_equal_grids_copies():
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    scene = scene_of(pixels, Extent(10, -4, 16, 0))
    grid = Grid(0.4, Extent(10, -4, 16, 0), north_first=True)
    found = resample.read_rows(scene, resample.axis_taps(scene, grid), 2, 9, None)
    blocks = pixels.reshape(10, 4, 15, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found[..., :3], blocks[2:9], atol=0.501)
    assert (found[..., 3] == 255).all()
    same = Grid(0.1, Extent(10, -4, 16, 0), north_first=True)
    found = resample.read_rows(scene, resample.axis_taps(scene, same), 0, 40, None)
    np.testing.assert_array_equal(found[..., :3], pixels)


def test_strips_of_any_height_give_the_same_rows(monkeypatch):
    pixels = np.random.default_rng(1).integers(0, 256, (101, 60, 3), np.uint8)
    scene = scene_of(pixels, Extent(10, -10.1, 16, 0))
    axes = resample.axis_taps(scene, cover(scene.extent, (0.23, 0.37)))
    whole = resample.read_rows(scene, axes, 0, len(axes[0].index), 2)
    monkeypatch.setattr(resample, "_PIXELS_AT_ONCE", 1000)
    np.testing.assert_array_equal(resample.read_rows(scene, axes, 0, len(axes[0].index), 2), whole)


@pytest.mark.parametrize("brightness, observed", [(2, 0.5), (None, 1.0), (0, 0.75)])
def test_black_is_not_observed(brightness, observed):
    pixels = np.full((40, 40, 3), 99, np.uint8)
    pixels[:, :10] = 0
    pixels[:, 10:20] = [0, 1, 2]
    scene = scene_of(pixels, Extent(0, 0, 4, 4))
    grid = cover(scene.extent, (4.0, 4.0))
    found = resample.read_rows(scene, resample.axis_taps(scene, grid), 0, 1, brightness)
    assert found[0, 0, 3] == pytest.approx(255 * observed, abs=1)


@pytest.mark.parametrize("missing", ["rows", "pixels"])
def test_missing_pixels_do_not_darken_a_cell(missing):
    """Of bow-tie gaps, and of 40 % of all pixels; numpy's masked mean is the oracle."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(100, 256, (40, 60, 3)).astype(np.uint8)
    gone = rng.random((40, 60)) < 0.4
    if missing == "rows":
        gone[:] = (np.arange(40) % 5 < 2)[:, np.newaxis]
    pixels[gone] = 0
    scene = scene_of(pixels, Extent(10, -4, 16, 0))
    grid = Grid(0.5, scene.extent, north_first=True)
    found = resample.read_rows(scene, resample.axis_taps(scene, grid), 0, 8, 2)
    hidden = np.broadcast_to(gone[..., np.newaxis], pixels.shape)
    blocks = np.ma.array(pixels, mask=hidden, dtype=float).reshape(8, 5, 12, 5, 3)
    share = 1 - gone.reshape(8, 5, 12, 5).mean(axis=(1, 3))
    np.testing.assert_allclose(found[..., 3], 255 * share, atol=0.51)
    seen = share >= resample.LEAST_SEEN
    assert seen.mean() > 0.8
    expected = np.where(seen[..., np.newaxis], blocks.mean(axis=(1, 3)).filled(0), 0)
    np.testing.assert_allclose(found[..., :3], expected, atol=0.51)


def test_planes_are_averaged_over_what_was_seen():
    values, seen = np.random.default_rng(3).random((2, 8, 12)), np.zeros((8, 12), bool)
    seen[:, ::3] = True
    seen[:2] = False
    axes = resample.taps(8, 0, 2, 4), resample.taps(12, 0, 3, 4)
    found = resample.mean_of_seen(values, seen, axes)
    np.testing.assert_allclose(
        found[:, 1:], values[:, 2:, ::3].reshape(2, 3, 2, 4).mean(2), rtol=1e-5
    )
    plain = values.reshape(2, 4, 2, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(found[:, 0], plain[:, 0], rtol=1e-5)
