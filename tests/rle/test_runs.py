import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds_tf.rle import runs

pytestmark = pytest.mark.lanes

BOUNDS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted), max_size=6)


def vector(values):
    return tf.constant(list(values), tf.int64)


@settings(max_examples=50)
@given(BOUNDS)
def test_expand_lists_what_stands_between_the_bounds(bounds):
    numbers, index = runs.expand(vector(a for a, _ in bounds), vector(b for _, b in bounds))
    expected = [(n, i) for i, (a, b) in enumerate(bounds) for n in range(a, b)]
    assert list(zip(numbers.numpy(), index.numpy())) == expected


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), unique=True, max_size=12).map(sorted), st.integers(0, 5))
def test_count_up(edges, rest):
    start, end = edges[: len(edges) // 2 * 2 : 2], edges[1::2]
    size = max(edges, default=0) + rest
    for dtype, first in ((tf.int32, 0), (tf.int64, 1 << 40)):
        base = tf.constant([first] * len(end), dtype)
        got = runs.count_up(vector(start), vector(end), base, tf.constant(size, tf.int64))
        assert got.dtype == dtype
        expected = np.full(size, -1, object)
        for a, b in zip(start, end):
            expected[a:b] = range(first, first + b - a)
        inside = got.numpy() >= 0
        np.testing.assert_array_equal(inside, expected >= 0)
        np.testing.assert_array_equal(got.numpy()[inside], expected[inside])


@settings(max_examples=50)
@given(st.lists(st.integers(-5, 5)).map(sorted), st.lists(st.integers(-6, 6)))
def test_count_below(values, limits):
    got = runs.count_below(vector(values), vector(limits))
    assert got.numpy().tolist() == [sum(v < limit for v in values) for limit in limits]


def test_index_in_row():
    assert runs.index_in_row(vector([0, 0, 2, 2, 2, 5])).numpy().tolist() == [0, 1, 0, 1, 2, 0]


def test_runs_that_touch_are_merged_within_their_row():
    start, length, row = [0, 2, 5, 6, 7], [2, 3, 1, 1, 1], [0, 0, 1, 1, 2]
    merged = runs.merge_runs(vector(start), vector(length), vector(row))
    assert [x.numpy().tolist() for x in merged] == [[0, 5, 7], [5, 2, 1], [0, 1, 2]]
    assert [x.shape for x in runs.merge_runs(*[vector([])] * 3)] == [[0]] * 3


def test_to_ragged():
    values, row = vector([4, 5, 6]), vector([1, 1, 3])
    assert runs.to_ragged(values, row, vector([2, 2])).to_list() == [[[], [4, 5]], [[], [6]]]
    assert runs.to_ragged(values, row, vector([5])).to_list() == [[], [4, 5], [], [6], []]
    assert runs.to_ragged(values, row * 0, vector([])).numpy().tolist() == [4, 5, 6]
