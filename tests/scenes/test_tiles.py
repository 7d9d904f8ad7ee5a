import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clouds_tf.geo import Extent, Grid, cover
from clouds_tf.scenes import tiles
from clouds_tf.scenes.read import Scene
from clouds_tf.scenes.tiles import Blend, Layout, Strip, Tile

pytestmark = pytest.mark.lanes


@given(st.integers(1, 400), st.integers(2, 60), st.floats(0, 0.75), st.booleans())
def test_windows_cover_an_axis_with_the_overlap_asked_for(length, size, overlap, periodic):
    begin = np.array(tiles.starts(length, size, overlap, periodic))
    if length <= size:
        assert len(begin) == 1 and begin[0] <= 0 and begin[0] + size >= length
        return
    steps = np.diff(np.r_[begin, begin[0] + length] if periodic else begin)
    assert (steps > 0).all() and (steps <= np.ceil(size * (1 - overlap)) + 1e-9).all()
    assert begin[0] == 0 and (periodic or begin[-1] == length - size)


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_ramps_of_neighbours_sum_to_one(overlap):
    weights = tiles.ramp(100, overlap)
    margin = round(100 * overlap)
    assert (weights > 0).all() and 0.999 < weights.max() <= 1
    np.testing.assert_allclose(weights[100 - margin :] + weights[:margin], 1, atol=1e-6)


def layout(size, window=(20, 30), overlap=0.25, periodic=False, scale=1):
    west, width = (-180, 360) if periodic else (0, 0.04 * size[1])
    extent = Extent(west, 10 - 0.04 * size[0], west + width, 10)
    grid = Grid((0.04, width / size[1]), extent, north_first=True)
    return Layout(grid, window, scale, overlap)


@pytest.mark.parametrize("size", [(20, 30), (7, 11), (55, 30), (20, 95), (61, 83)])
@pytest.mark.parametrize("overlap, periodic", [(0, False), (0.25, False), (0.5, True)])
def test_windows_of_one_picture_blend_into_that_picture(size, overlap, periodic):
    plan = layout(size, overlap=overlap, periodic=periodic and size[1] > 30)
    picture = np.random.default_rng(0).random((*size, 2)).astype(np.float32)
    blend, found = Blend(plan, 2), np.zeros((2, *size), np.float32)

    def store(start, probabilities, masks):
        found[:, start : start + probabilities.shape[1]] = probabilities
        np.testing.assert_array_equal(masks, probabilities > 0.5)

    for row in plan.rows:
        for column in plan.columns:
            window = picture[plan.row_index(row)[:, np.newaxis], plan.column_index(column)]
            store(*blend.add(row, column, window, window > 0.5))
    store(*blend.flush(size[0]))
    np.testing.assert_allclose(found, np.moveaxis(picture, -1, 0), atol=1e-6)


def test_masks_are_decided_by_the_windows_near_by():
    plan = layout((20, 300))
    blend, ones = Blend(plan, 1), np.ones((20, 30, 1), np.float32)
    for column in plan.columns:
        blend.add(0, column, ones, np.full(ones.shape, column < 100))
    _, probabilities, masks = blend.flush(20)
    assert masks[0, :, :100].all() and not masks[0, :, 130:].any()
    assert (probabilities == 1).all()


def test_windows_without_an_answer_leave_no_probability():
    plan = layout((20, 90), overlap=0)
    blend, ones = Blend(plan, 1), np.ones((20, 30, 1), np.float32)
    blend.add(0, 0, ones, ones > 0)
    _, probabilities, masks = blend.flush(20)
    assert probabilities[0, :, :30].all() and masks[0, :, :30].all()
    assert not probabilities[0, :, 30:].any() and not masks[0, :, 30:].any()


@pytest.mark.parametrize("scale", [1, 2])
def test_beside_a_small_scene_its_window_is_black(scale):
    pixels = np.full((10 * scale, 20 * scale, 4), 255, np.uint8)
    extent = Extent(0, 9.6, 0.8, 10)
    scene = Scene(
        "x", extent, pixels.shape[:2], datetime.datetime(2020, 1, 1), "", lambda a, b: pixels[a:b]
    )
    plan = Layout(cover(extent, (0.04, 0.04)), (20, 30), scale, 0.25)
    _, tile = tiles.cut(scene, plan, 2)
    expected = np.zeros((20, 30), np.uint8)
    expected[5:15, 5:25] = 255
    np.testing.assert_array_equal(tile.pixels[..., 0], np.kron(expected, np.ones([scale] * 2)))
    assert tile.filled == pytest.approx(10 * 20 / (20 * 30))


@pytest.mark.parametrize("scale", [1, 2])
def test_cutting_reads_each_row_once_and_gives_strips_before_their_tiles(scale):
    pixels = np.random.default_rng(0).integers(3, 256, (100 * scale, 70 * scale, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[60 * scale :, :] = 0  # nothing there
    reads = []

    def read(start, stop):
        reads.append((start, stop))
        return pixels[start:stop].copy()

    extent = Extent(0, 6, 2.8, 10)
    scene = Scene("x", extent, pixels.shape[:2], datetime.datetime(2020, 1, 1), "", read)
    plan = Layout(cover(extent, (0.04, 0.04)), (20, 30), scale, 0.25)
    parts = list(tiles.cut(scene, plan, 2))
    assert reads[0][0] == 0 and reads[-1][1] == len(pixels)
    assert all(a[1] == b[0] for a, b in zip(reads, reads[1:]))
    strips = [part for part in parts if isinstance(part, Strip)]
    observed = np.concatenate([strip.observed for strip in strips])
    assert observed[:60].all() and not observed[60:].any()
    assert isinstance(parts[0], Strip)
    found = [part for part in parts if isinstance(part, Tile)]
    assert all(tile.row < 60 for tile in found) and len({t.column for t in found}) == 3
    for tile in found:
        rows = slice(tile.row * scale, (tile.row + 20) * scale)
        columns = slice(tile.column * scale, (tile.column + 30) * scale)
        np.testing.assert_array_equal(tile.pixels, pixels[rows, columns, :3])


def test_whole_rows_of_windows_may_be_left_out():
    plan = layout((100, 30), overlap=0)
    blend, ones = Blend(plan, 1), np.ones((20, 30, 1), np.float32)
    blend.add(0, 0, ones, ones > 0)
    start, probabilities, _ = blend.add(80, 0, ones, ones > 0)
    assert start == 0 and probabilities.shape == (1, 80, 30)
    assert probabilities[0, :20].all() and not probabilities[0, 20:].any()
    start, probabilities, masks = blend.flush(100)
    assert start == 80 and probabilities.all() and masks.all()
