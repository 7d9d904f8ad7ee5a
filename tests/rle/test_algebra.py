import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clouds_tf import rle

pytestmark = pytest.mark.lanes

PAIRS = hnp.array_shapes(min_dims=2, max_dims=4, max_side=8).flatmap(
    lambda shape: st.tuples(hnp.arrays(bool, shape), hnp.arrays(bool, shape))
)


@settings(max_examples=30)
@given(PAIRS)
def test_areas_and_overlaps_are_those_of_the_pixels(masks):
    a, b = masks
    runs_a, runs_b = rle.encode(a), rle.encode(b)
    shared, both = (a & b).sum((-1, -2)), a.sum((-1, -2)) + b.sum((-1, -2))
    expected = np.where(both == 0, 1, 2 * shared / np.maximum(both, 1))
    np.testing.assert_array_equal(rle.area(runs_a), a.sum((-1, -2)))
    np.testing.assert_array_equal(rle.intersection(runs_a, runs_b), shared)
    np.testing.assert_allclose(rle.dice(runs_a, runs_b), expected, rtol=1e-6)


def test_dice_of_empty_masks():
    assert rle.dice(["", " ", "1 2", ""], ["", "3 1", "", " "]).numpy().tolist() == [1, 0, 0, 1]


def test_dtypes_and_shapes():
    strings = [["1 2", ""], ["3 4", "5 6"]]
    assert rle.area(strings).dtype == rle.intersection(strings, strings).dtype == tf.int64
    assert rle.dice(strings, strings).dtype == tf.float32
    assert rle.area(strings).numpy().tolist() == [[2, 0], [4, 6]]
    assert rle.dice("1 2", "2 2").numpy() == 0.5
    assert rle.area(tf.zeros([0], tf.string)).shape == [0]
    assert rle.dice(tf.zeros([0], tf.string), tf.zeros([0], tf.string)).shape == [0]


def test_touching_runs_count_once():
    assert rle.intersection("1 2 3 2 5 2", "2 1 3 3").numpy() == 4


def test_the_longest_runs_do_not_overflow():
    long = "1 999999999999"
    assert rle.intersection([long] * 1000, [long] * 1000).numpy().tolist() == [10**12 - 1] * 1000
    assert rle.dice(long, long).numpy() == 1


def test_masks_of_a_batch_overlap_only_with_their_own():
    assert rle.intersection(["9 9", "", "1 5"], ["1 8", "1 99", "3 99"]).numpy().tolist() == [
        0,
        0,
        3,
    ]


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"b: got shape \(2,\), expected that of a, \(1,\)"):
        rle.intersection(["1 1"], ["1 1", "1 1"])


@pytest.mark.parametrize("function", [rle.intersection, rle.dice])
def test_errors_name_the_string(function):
    good, bad = ["1 1", "1 1"], ["1 1", "0 1"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a\[1\]: pair 1 \(0 1\): start 0"):
        function(bad, good)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"b\[1\]: pair 1 \(0 1\): start 0"):
        function(good, bad)
