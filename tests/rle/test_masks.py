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
from clouds_tf.rle.masks import draw_words

SIDE = st.integers(1, 12)
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=4, max_side=9))
FULL = CLOUDS.mask_size


def numpy_encode(mask):
    """The usual numpy function, column-major."""
    pixels = np.concatenate([[0], mask.T.flatten(), [0]])
    runs = np.where(pixels[1:] != pixels[:-1])[0] + 1
    runs[1::2] -= runs[::2]
    return " ".join(str(x) for x in runs)


def nearest(mask, size):
    """Nearest-neighbour resize at pixel centres, in whole numbers."""
    height, width = mask.shape[-2:]
    y = [(2 * i + 1) * height // (2 * size[0]) for i in range(size[0])]
    x = [(2 * j + 1) * width // (2 * size[1]) for j in range(size[1])]
    return mask[..., y, :][..., x]


def overlaps(source, target):
    """[target, source]: the share of each target cell that each source cell takes, on one side."""
    step = source / target
    upper = np.arange(target)[:, np.newaxis] * step
    lower = np.arange(source)
    return np.clip(np.minimum(upper + step, lower + 1) - np.maximum(upper, lower), 0, None) / step


def real_rows(count=None):
    with open(real_data("clouds_small") / TRAIN_CSV, newline="") as file:
        return [row[CLOUDS.rle_column] for row in csv.DictReader(file)][:count]


@settings(max_examples=60)
@given(MASKS)
def test_encode_gives_what_numpy_gives(mask):
    got = rle.encode(mask).numpy()
    flat = mask.reshape(-1, *mask.shape[-2:])
    assert [x.decode() for x in np.ravel(got)] == [numpy_encode(x) for x in flat]
    assert np.shape(got) == mask.shape[:-2]


@settings(max_examples=60)
@given(MASKS)
def test_decode_undoes_encode(mask):
    size = mask.shape[-2:]
    strings = rle.encode(mask)
    masks = rle.decode(strings, size, size)
    assert masks.dtype == tf.uint8
    np.testing.assert_array_equal(masks, mask)
    np.testing.assert_array_equal(rle.encode(masks), strings)


@settings(max_examples=75)
@given(MASKS, SIDE, SIDE)
def test_decode_is_the_nearest_neighbour_resize_of_the_full_mask(mask, height, width):
    got = rle.decode(rle.encode(mask), mask.shape[-2:], (height, width))
    np.testing.assert_array_equal(got, nearest(mask, (height, width)))


@pytest.mark.slow
@settings(max_examples=75)
@given(MASKS, SIDE, SIDE)
def test_resize_writes_the_nearest_neighbour_resize(mask, height, width):
    got = rle.resize(rle.encode(mask), mask.shape[-2:], (height, width)).numpy()
    expected = nearest(mask, (height, width)).reshape(-1, height, width)
    assert [x.decode() for x in np.ravel(got)] == [numpy_encode(x) for x in expected]
    assert np.shape(got) == mask.shape[:-2]


def test_real_rows_are_resized_without_being_drawn():
    rows = real_rows(64)
    got = rle.resize(rows, FULL, CLOUDS.submission_size)
    drawn = rle.decode(rows, FULL, CLOUDS.submission_size)
    np.testing.assert_array_equal(got, rle.encode(drawn))


@settings(max_examples=75)
@given(MASKS, SIDE, SIDE)
def test_coverage_is_the_area_average_of_the_full_mask(mask, height, width):
    got = rle.coverage(rle.encode(mask), mask.shape[-2:], (height, width))
    rows, columns = overlaps(mask.shape[-2], height), overlaps(mask.shape[-1], width)
    assert got.dtype == tf.float32
    np.testing.assert_allclose(got, rows @ mask @ columns.T, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=30)
@given(MASKS, SIDE, SIDE)
def test_along_rows_is_down_the_columns_of_the_transposed_mask(mask, height, width):
    size, target = mask.shape[-2:], (height, width)
    rows = rle.encode(mask, order="rows")
    # As earlier versions spelled it.
    np.testing.assert_array_equal(rows, rle.encode(mask, order="C"))
    np.testing.assert_array_equal(rows, rle.encode(np.swapaxes(mask, -1, -2)))
    np.testing.assert_array_equal(
        rle.decode(rows, size, target, order="rows"), nearest(mask, target)
    )
    np.testing.assert_array_equal(
        rle.coverage(rows, size, target, order="rows"), rle.coverage(rle.encode(mask), size, target)
    )


@pytest.mark.parametrize("size", [(320, 480), (350, 525), (1400, 2100), (97, 211), (1500, 2200)])
def test_decode_is_the_resize_of_opencv_and_tensorflow(size):
    rng = np.random.default_rng(0)
    mask = cv2.resize((rng.random((35, 53)) < 0.4).astype(np.uint8), FULL[::-1], interpolation=0)
    got = rle.decode(rle.encode(mask), FULL, size).numpy()
    if size != (97, 211):  # whose centres OpenCV and TensorFlow round in floating point
        plain = tf.image.resize(mask[..., np.newaxis], size, "nearest")[..., 0]
        np.testing.assert_array_equal(got, plain)
    np.testing.assert_array_equal(got, nearest(mask, size))


@pytest.mark.slow
def test_coverage_is_the_area_resize_of_opencv():
    mask = (np.random.default_rng(0).random(FULL) < 0.4).astype(np.float32)
    string = rle.encode(mask > 0)
    for size in ((320, 480), (97, 211), (1, 1)):
        expected = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA)
        found = rle.coverage(string, FULL, size)
        np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=str(size))


@pytest.mark.parametrize(
    "start, column, row, string",
    [
        (264918, 189, 317, "264918 937 266318 937"),  # 0011165.jpg_Fish
        (3510, 2, 709, "3510 690 4910 690"),  # 0031ae9.jpg_Fish
    ],
)
def test_published_rows_stand_where_they_should(start, column, row, string):
    mask = rle.decode(string, FULL, FULL).numpy()
    length = int(string.split()[1])
    assert mask.sum() == 2 * length
    assert mask[row : row + length, column : column + 2].all()


@pytest.mark.parametrize(
    "string, columns",
    [
        ("", ["000", "000"]),
        ("  ", ["000", "000"]),
        ("1 6", ["111", "111"]),
        ("1 1", ["100", "000"]),
        ("6 1", ["000", "001"]),
        ("3 2", ["001", "100"]),
        ("2 4", ["011", "110"]),
        ("1 1 2 1 4 1", ["110", "100"]),
        ("4 3", ["000", "111"]),
    ],
)
def test_small_masks(string, columns):
    expected = np.array([list(map(int, column)) for column in columns]).T
    np.testing.assert_array_equal(rle.decode(string, (3, 2), (3, 2)), expected)


@pytest.mark.parametrize(
    "mask",
    [
        np.array([[0, 255], [7, 0]], np.uint8),
        np.array([[0, -1], [1, 0]], np.int32),
        np.array([[0, 256], [1 << 40, 0]], np.int64),
        np.array([[False, True], [True, False]]),
    ],
    ids=lambda mask: mask.dtype.name,
)
def test_whatever_is_not_zero_belongs_to_the_mask(mask):
    assert rle.encode(mask).numpy() == b"2 2"


@pytest.mark.parametrize("function", [rle.encode, rle.components])
def test_probabilities_are_refused(function):
    with pytest.raises(TypeError, match="mask of dtype float32, expected an integer or bool"):
        function(tf.constant([[0.2, 0.7]]))


def test_empty_batches():
    assert rle.encode(tf.zeros([0, 3, 4], tf.uint8)).shape == [0]
    assert rle.encode(tf.zeros([2, 0, 3, 4], tf.bool)).shape == [2, 0]
    assert rle.decode(tf.zeros([0], tf.string), (3, 4), (6, 7)).shape == [0, 6, 7]
    assert rle.coverage(tf.zeros([2, 0], tf.string), (3, 4), (6, 7)).shape == [2, 0, 6, 7]


def test_neighbours_in_a_batch_do_not_run_into_each_other():
    masks = np.ones((3, 4, 5), bool)
    masks[1] = False
    assert rle.encode(masks).numpy().tolist() == [b"1 20", b"", b"1 20"]
    np.testing.assert_array_equal(rle.decode(["1 20", "", "1 20"], (4, 5), (4, 5)), masks)


def test_a_mask_of_a_hundred_thousand_runs():
    mask = np.indices((401, 501)).sum(axis=0) % 2
    string = rle.encode(mask)
    assert string.numpy().count(b" ") > 2 * 100_000 - 2
    np.testing.assert_array_equal(rle.decode(string, (401, 501), (401, 501)), mask)
    np.testing.assert_array_equal(rle.decode(string, (401, 501), (57, 73)), nearest(mask, (57, 73)))


def test_the_full_size_is_never_made():
    size = (200_000, 2_000_000)  # 400 GB
    mask = rle.decode(["1 399999999999", "400000000000 1"], size, (10, 10)).numpy()
    assert mask.sum() == 100
    fraction = rle.coverage("1 100000000000", size, (2, 2)).numpy()
    np.testing.assert_allclose(fraction, [[0.5, 0], [0.5, 0]])


@pytest.mark.slow
def test_static_shapes_are_known():
    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.string)])
    def function(strings):
        mask = rle.decode(strings, FULL, (350, 525))
        assert mask.shape.as_list() == [None, 4, 350, 525]
        assert rle.coverage(strings, FULL, (35, 53)).shape.as_list() == [None, 4, 35, 53]
        assert rle.encode(mask).shape.as_list() == [None, 4]
        return mask

    function.get_concrete_function()


@pytest.mark.parametrize("function", [rle.decode, rle.coverage])
def test_an_unknown_order_is_refused(function):
    with pytest.raises(ValueError, match="order: got 'K', expected 'columns' or 'rows'"):
        function("1 1", (3, 3), (3, 3), order="K")
    with pytest.raises(ValueError, match="order: got 'K', expected 'columns' or 'rows'"):
        rle.encode([[1]], order="K")


@pytest.mark.slow
def test_all_real_rows_come_back_byte_for_byte():
    rows = sorted(set(real_rows()))
    assert [x.decode() for x in rle.resize(rows, FULL, FULL).numpy()] == rows
    for row in rows[::100]:  # pixels take long
        assert rle.encode(rle.decode(row, FULL, FULL)).numpy().decode() == row


def test_real_rows_at_half_and_at_odd_sizes():
    rows = [row for row in real_rows(12) if row]
    full = rle.decode(rows, FULL, FULL).numpy()
    for size in [(700, 1050), (320, 480), (1401, 2099)]:
        np.testing.assert_array_equal(rle.decode(rows, FULL, size), nearest(full, size))


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("size", [(5, 7), (3, 4), (10, 21)])
def test_draw_equals_decode(size, dtype):
    strings = ["1 3 9 4", "", "35 1"]
    runs = rle.parse(strings, (5, 7))
    runs = tf.concat([runs.value_rowids()[:, tf.newaxis], runs.values], axis=1)
    drawn = rle.draw(tf.cast(runs, dtype), 3, (5, 7), size)
    np.testing.assert_array_equal(drawn, rle.decode(strings, (5, 7), size))


@pytest.mark.parametrize("size", [(6, 9), (3, 4), (12, 27)])
@pytest.mark.parametrize("count", [1, 4, 5, 17])
def test_words_hold_the_masks_of_decode(size, count):
    masks = np.random.default_rng(count).random((count, 6, 9)) < 0.4
    masks[0] = True
    strings = [*rle.encode(masks).numpy()[:-1], b"1 2 3 2 50 5"]  # two runs touch
    runs = rle.parse(strings, (6, 9))
    runs = tf.concat([runs.value_rowids()[:, tf.newaxis], runs.values], axis=1)
    words = draw_words(tf.cast(runs, tf.int32), count, (6, 9), size).numpy()
    assert words.shape == (-(-count // 4), *size)
    found = [words[i // 4] >> 8 * (i % 4) & 255 for i in range(4 * len(words))]
    np.testing.assert_array_equal(found[:count], rle.decode(strings, (6, 9), size))
    assert not np.any(found[count:])
