import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from clouds_tf import rle

MASKS = st.one_of(
    hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    # Long runs, whose counts take several characters.
    st.tuples(st.integers(1, 3), st.integers(1, 400), st.integers(1, 400), st.integers(0)).map(
        lambda args: np.random.default_rng(args[3]).random(args[:3]) < 0.002
    ),
)


def pycocotools_strings(masks):
    return [coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"] for mask in masks]


@settings(max_examples=30)
@given(MASKS)
def test_strings_are_those_of_pycocotools(masks):
    size, strings = masks.shape[1:], rle.encode(masks)
    theirs = pycocotools_strings(masks)
    assert rle.to_coco_string(strings, size).numpy().tolist() == theirs
    assert rle.from_coco_string(theirs, size).numpy().tolist() == strings.numpy().tolist()


@settings(max_examples=30)
@given(MASKS)
def test_counts_are_those_of_pycocotools(masks):
    size, strings = masks.shape[1:], rle.encode(masks)
    counts = rle.to_coco_counts(strings, size)
    rebuilt = [
        coco.frPyObjects({"counts": c, "size": list(size)}, *size)["counts"]
        for c in counts.to_list()
    ]
    assert rebuilt == pycocotools_strings(masks)
    assert rle.from_coco_counts(counts, size).numpy().tolist() == strings.numpy().tolist()


@pytest.mark.parametrize(
    "string, counts",
    [("", [6]), ("1 6", [0, 6]), ("1 1", [0, 1, 5]), ("6 1", [5, 1]), ("3 2", [2, 2, 2])],
)
def test_small_lists(string, counts):
    assert rle.to_coco_counts(string, (3, 2)).numpy().tolist() == counts
    assert rle.from_coco_counts(counts, (3, 2)).numpy().decode() == string


def test_lists_in_any_shape():
    ragged = tf.ragged.constant([[[6], [0, 6]], [[5, 1], [2, 1, 0, 3]]])
    expected = [[b"", b"1 6"], [b"6 1", b"3 4"]]
    assert rle.from_coco_counts(ragged, (3, 2)).numpy().tolist() == expected
    assert rle.from_coco_counts([[[1, 5], [3, 3]]], (3, 2)).numpy().tolist() == [[b"2 5", b"4 3"]]
    counts = rle.to_coco_counts([["", "1 6"]], (3, 2))
    assert counts.to_list() == [[[6], [0, 6]]]
    assert rle.to_coco_string([[""], ["1 6"]], (3, 2)).shape == [2, 1]
    assert rle.to_coco_string(tf.zeros([0], tf.string), (3, 2)).shape == [0]
    assert rle.from_coco_string(tf.zeros([0, 2], tf.string), (3, 2)).shape == [0, 2]


def test_runs_that_touch_are_joined():
    joined = rle.encode(rle.decode("1 2 3 2 6 1", (3, 2), (3, 2)))
    assert rle.to_coco_counts("1 2 3 2 6 1", (3, 2)).numpy().tolist() == [0, 4, 1, 1]
    assert rle.from_coco_counts([0, 2, 0, 2, 1, 1], (3, 2)).numpy() == joined.numpy()


def test_empty_turns_are_no_runs():
    counts = tf.ragged.constant([[1, 0, 5], [1, 0, 1, 4], [0, 0, 0, 6], [6, 0]])
    assert rle.from_coco_counts(counts, (3, 2)).numpy().tolist() == [b"", b"3 4", b"1 6", b""]


def test_the_largest_counts_of_coco():
    size = (1 << 16, (1 << 16) - 1)
    theirs = coco.frPyObjects({"counts": [5, size[0] * size[1] - 5], "size": size}, *size)
    assert rle.to_coco_string(f"6 {size[0] * size[1] - 5}", size).numpy() == theirs["counts"]
    back = rle.from_coco_string(theirs["counts"], size).numpy()
    assert back.decode() == f"6 {size[0] * size[1] - 5}"


@pytest.mark.parametrize(
    "counts, message",
    [
        ([5], r"counts\[\]: sum 5, expected 6"),
        ([[6], [7]], r"counts\[1\]: count 7, expected 0 to 6"),
        ([[3, 3], [-1, 7]], r"counts\[1\]: count -?\d, expected 0 to 6"),
        ([1 << 62, 1 << 62, 1 << 62, (1 << 62) + 6], r"counts\[\]: count 46\d+, expected 0 to 6"),
        (tf.ragged.constant([[6], []], dtype=tf.int32), r"counts\[1\]: sum 0, expected 6"),
    ],
)
def test_lists_that_do_not_fit(counts, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        rle.from_coco_counts(counts, (3, 2))


@pytest.mark.parametrize(
    "string, message",
    [
        ("6 0", r"string\[\]: 6: expected characters from 0 to o, at most 7 for a count"),
        (["6", "p"], r"string\[1\]: p: expected characters"),
        ("33P", r"string\[\]: 33P: expected characters"),
        (["3P", "3"], r"string\[0\]: 3P: expected characters"),
        ("oooooooo0", "expected characters from 0 to o, at most 7 for a count"),
        (b"\xff6", "expected characters"),
        ("", r"string\[\]: sum 0, expected 6"),
        ("5", r"string\[\]: sum 5, expected 6"),
        ("3N", r"string\[\]: count -2, expected 0 to 6"),
        ("o" * 5_000_000, "expected characters"),
    ],
)
def test_strings_that_do_not_fit(string, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message) as error:
        rle.from_coco_string(string, (3, 2))
    assert len(error.value.message) < 400


@settings(max_examples=30)
@given(st.binary(max_size=12))
def test_any_bytes_give_a_mask_or_an_error(string):
    try:
        mask = rle.from_coco_string(string, (3, 2))
    except tf.errors.InvalidArgumentError as error:
        assert "string[]: " in error.message
    else:
        assert rle.faults(mask, (3, 2)).numpy() == b""
