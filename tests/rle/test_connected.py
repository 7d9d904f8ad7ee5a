import csv

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shared_fixtures import real_data

from clouds_tf import rle
from clouds_tf.dataset import CLOUDS, TRAIN_CSV

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=12))
CONNECTIVITY = st.sampled_from([4, 8])


def opencv(mask, connectivity):
    """Labels, and the area of each label."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=connectivity
    )
    return labels, stats[:, cv2.CC_STAT_AREA]


def same_components(a, b):
    """Whether two label images agree up to the choice of the numbers, 0 staying 0."""
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist()))
    firsts, seconds = zip(*pairs)
    one_to_one = len(set(firsts)) == len(set(seconds)) == len(pairs)
    return one_to_one and all((x == 0) == (y == 0) for x, y in pairs)


def spiral(height, width):
    """One path, one pixel wide, inwards from the upper left corner."""
    mask = np.zeros((height, width), bool)
    y, x, dy, dx = 0, 0, 0, 1
    while True:
        mask[y, x] = True
        ahead, further = (y + dy, x + dx), (y + 2 * dy, x + 2 * dx)
        inside = 0 <= ahead[0] < height and 0 <= ahead[1] < width
        free = not (0 <= further[0] < height and 0 <= further[1] < width and mask[further])
        if not (inside and free):
            dy, dx = dx, -dy
            further = (y + 2 * dy, x + 2 * dx)
            if not (0 <= further[0] < height and 0 <= further[1] < width) or mask[further]:
                return mask
        y, x = y + dy, x + dx


def comb(height, width):
    mask = np.zeros((height, width), bool)
    mask[::2] = mask[:, -1] = True
    return mask


def snake(height, width):
    mask = np.zeros((height, width), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    return mask


SHAPES = {
    "empty": np.zeros((7, 9), bool),
    "full": np.ones((50, 70), bool),
    "spiral": spiral(60, 81),
    "spiral on its side": spiral(60, 81).T,
    "comb": comb(60, 81),
    "comb on its side": comb(60, 81).T,
    "snake": snake(60, 81),
    "chessboard": np.indices((40, 51)).sum(axis=0) % 2 == 0,
    "one pixel": np.ones((1, 1), bool),
    "noise near the threshold": np.random.default_rng(0).random((120, 150)) < 0.593,
}


@settings(max_examples=40)
@given(MASKS, CONNECTIVITY)
def test_components_are_those_of_opencv(masks, connectivity):
    labels = rle.components(masks, connectivity)
    assert labels.dtype == tf.int32
    for ours, mask in zip(labels.numpy(), masks):
        assert same_components(ours, opencv(mask, connectivity)[0])


@settings(max_examples=40)
@given(MASKS, CONNECTIVITY)
def test_areas_stand_in_the_order_of_the_labels(masks, connectivity):
    areas = rle.component_areas(rle.encode(masks), masks.shape[1:], connectivity)
    for ours, labels in zip(areas.to_list(), rle.components(masks, connectivity).numpy()):
        assert ours == np.bincount(labels.ravel())[1:].tolist()
        firsts = [np.argmax(labels.T == label) for label in range(1, len(ours) + 1)]
        assert firsts == sorted(firsts)


@settings(max_examples=40)
@given(MASKS, CONNECTIVITY, st.integers(0, 20))
def test_remove_small_removes_what_opencv_finds_small(masks, connectivity, min_area):
    removed = rle.remove_small(masks, min_area, connectivity)
    assert removed.dtype == tf.bool
    for ours, mask in zip(removed.numpy(), masks):
        labels, areas = opencv(mask, connectivity)
        np.testing.assert_array_equal(ours, mask & (areas[labels] >= min_area))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("mask", SHAPES.values(), ids=SHAPES.keys())
def test_winding_shapes(mask, connectivity):
    ours = rle.components(mask, connectivity).numpy()
    assert same_components(ours, opencv(mask, connectivity)[0])


def test_the_spiral_is_one_path():
    """Else the shapes above would prove less than they seem to."""
    assert rle.component_areas(rle.encode(SHAPES["spiral"]), (60, 81), 4).shape == [1]
    assert SHAPES["spiral"].sum() > 60 * 81 / 2 - 100


def test_masks_of_a_batch_are_apart():
    masks = np.ones((2, 3, 4, 5), np.uint8)
    assert (rle.components(masks).numpy() == 1).all()
    assert rle.component_areas(rle.encode(masks), (4, 5)).to_list() == [[[20]] * 3] * 2


def test_columns_far_apart_are_not_neighbours():
    mask = np.zeros((3, 5), bool)
    mask[2, 0] = mask[0, 1] = mask[2, 1] = mask[0, 3] = True
    assert rle.components(mask, 8).numpy().max() == 3
    mask[2, 1] = False
    assert rle.component_areas(rle.encode(mask), (3, 5), 8).numpy().tolist() == [1, 1, 1]


def test_each_mask_may_have_its_own_least_area():
    mask = np.zeros((2, 3, 6, 6), np.int16)
    mask[..., :2, :2] = 7  # 4 pixels
    mask[..., 4, :] = -1  # 6 pixels
    kept = rle.remove_small(mask, [4, 5, 7])
    assert kept.dtype == tf.int16
    np.testing.assert_array_equal(kept[:, 0], mask[:, 0])
    np.testing.assert_array_equal(kept[:, 1], np.where(mask < 0, mask, 0)[:, 1])
    assert not kept[:, 2].numpy().any()
    per_mask = rle.remove_small(mask, [[4, 7, 7], [7, 4, 7]]).numpy()
    assert per_mask.any(axis=(2, 3)).tolist() == [[True, False, False], [False, True, False]]


def test_empty_batches():
    assert rle.components(tf.zeros([0, 3, 4], tf.uint8)).shape == [0, 3, 4]
    assert rle.remove_small(tf.zeros([0, 2, 3, 4], tf.uint8), [5, 6]).shape == [0, 2, 3, 4]
    assert rle.component_areas(tf.zeros([0], tf.string), (3, 4)).shape.as_list() == [0, None]


def test_other_connectivities_are_refused():
    with pytest.raises(ValueError, match="connectivity: got 6, expected 4 or 8"):
        rle.components([[1]], 6)
    with pytest.raises(ValueError, match="connectivity: got 6, expected 4 or 8"):
        rle.remove_small([[1]], 5, 6)
    with pytest.raises(ValueError, match="connectivity: got 6, expected 4 or 8"):
        rle.component_areas("1 1", (3, 3), 6)


def test_real_rows():
    with open(real_data("clouds_small") / TRAIN_CSV, newline="") as file:
        rows = [row[CLOUDS.rle_column] for row, _ in zip(csv.DictReader(file), range(40))]
    masks = rle.decode(rows, CLOUDS.mask_size, CLOUDS.submission_size)
    labels = rle.components(masks).numpy()
    removed = rle.remove_small(masks, 5000).numpy()
    full_areas = rle.component_areas(rows[:4], CLOUDS.mask_size).to_list()
    full = rle.decode(rows[:4], CLOUDS.mask_size, CLOUDS.mask_size).numpy()
    for i, mask in enumerate(masks.numpy()):
        theirs, areas = opencv(mask, 8)
        assert same_components(labels[i], theirs)
        np.testing.assert_array_equal(removed[i], mask * (areas[theirs] >= 5000))
    for ours, mask in zip(full_areas, full):
        assert sorted(ours) == sorted(opencv(mask, 8)[1][1:].tolist())


@given(MASKS)
@settings(max_examples=25)
def test_holes_are_what_opencv_draws_inside_outlines(masks):
    expected = np.zeros(masks.shape, np.uint8)
    for mask, filled in zip(masks.astype(np.uint8), expected):
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    np.testing.assert_array_equal(rle.fill_holes(masks), expected)


@given(MASKS, CONNECTIVITY)
@settings(max_examples=25)
def test_boxes_are_those_of_opencv(masks, connectivity):
    expected = np.zeros(masks.shape, bool)
    for mask, filled in zip(masks.astype(np.uint8), expected):
        boxes = cv2.connectedComponentsWithStats(mask, connectivity=connectivity)[2][1:]
        for x, y, width, height, _ in boxes:
            filled[y : y + height, x : x + width] = True
    np.testing.assert_array_equal(rle.fill_boxes(masks, connectivity), expected)


def test_what_is_filled_in_a_graph_of_unknown_shape():
    ring = np.zeros((2, 6, 7), np.int32)
    ring[1, 1:5, 2:6] = 9
    ring[1, 2:4, 3:5] = 0
    ring[1, 1, 2] = 0
    signature = [tf.TensorSpec([None, None, None], tf.int32)]
    holes = tf.function(rle.fill_holes, input_signature=signature)(ring).numpy()
    boxes = tf.function(rle.fill_boxes, input_signature=signature)(ring).numpy()
    assert holes.sum() == 15 and boxes.sum() == 16 and not (holes[0].any() or boxes[0].any())
    assert rle.fill_holes(ring[:0]).shape == rle.fill_boxes(ring[:0]).shape == (0, 6, 7)
