"""What every function takes: pandas columns, missing values, sizes; and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from clouds_tf import rle

pytestmark = pytest.mark.lanes

SIZE = (7, 5)
# Called with encodings of masks of SIZE.
CALLS = {
    "area": rle.area,
    "component_areas": lambda x: rle.component_areas(x, SIZE),
    "coverage": lambda x: rle.coverage(x, SIZE, (2, 3)),
    "decode": lambda x: rle.decode(x, SIZE, (4, 9)),
    "dice": lambda x: rle.dice(x, np.full(np.shape(x), "1 9")),
    "faults": lambda x: rle.faults(x, SIZE),
    "intersection": lambda x: rle.intersection(np.full(np.shape(x), "1 9"), x),
    "parse": lambda x: rle.parse(x, SIZE),
    "resize": lambda x: rle.resize(x, SIZE, (4, 3)),
    "to_coco_counts": lambda x: rle.to_coco_counts(x, SIZE),
    "to_coco_string": lambda x: rle.to_coco_string(x, SIZE),
}
ALL_CALLS = pytest.mark.parametrize("function", CALLS.values(), ids=CALLS.keys())
MISSING = (None, np.nan, float("nan"), pd.NA)
STRINGS = st.lists(st.sampled_from(["", "1 3 9 20", "35 1", *MISSING]), min_size=1, max_size=4)
# Ways in which strings come out of pandas.
CONTAINERS = {
    "list": list,
    "object array": lambda x: np.array(x, object),
    "column": lambda x: pd.Series(x, dtype=object),
    "filtered column": lambda x: pd.Series(["junk", *x], dtype=object).iloc[1:],
    "string column": lambda x: pd.Series(x, dtype="string"),
    "Categorical": lambda x: pd.Series(x, dtype="string").astype("category"),
}


def as_list(x):
    return x.to_list() if isinstance(x, tf.RaggedTensor) else np.asarray(x).tolist()


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS.keys())
@settings(max_examples=15)
@given(strings=STRINGS, name=st.sampled_from(sorted(CALLS)))
def test_missing_values_are_empty_masks(container, strings, name):
    filled = [x if isinstance(x, str) else "" for x in strings]
    assert as_list(CALLS[name](container(strings))) == as_list(CALLS[name](filled))


@ALL_CALLS
@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_a_missing_scalar_is_an_empty_mask(function, missing):
    assert as_list(function(missing)) == as_list(function(""))


@ALL_CALLS
def test_a_column_that_read_csv_gave(function, tmp_path):
    (tmp_path / "a.csv").write_text("Image_Label,EncodedPixels\na_Fish,1 3\na_Sugar,\n")
    column = pd.read_csv(tmp_path / "a.csv")["EncodedPixels"]
    assert as_list(function(column)) == as_list(function(["1 3", ""]))


def test_columns_of_classes():
    table = pd.DataFrame({"Fish": ["1 3", None], "Sugar": [np.nan, "2 2"]})
    assert rle.area(table).numpy().tolist() == [[3, 0], [0, 2]]


@ALL_CALLS
def test_an_element_that_is_no_string_is_named(function):
    with pytest.raises(ValueError, match=r"(rle|b|a)\[1\]: got 3.5, expected a string, None, NaN"):
        function(pd.Series(["1 3", 3.5], dtype=object))
    with pytest.raises(ValueError, match=r"\[1, 0\]: got 7, expected a string"):
        function([["1 3"], [7]])
    with pytest.raises(ValueError, match="got a tensor of int32, expected strings"):
        function(tf.constant([1, 2]))


def test_missing_strings_of_coco_are_named():
    with pytest.raises(ValueError, match=r"string\[1\]: got None, expected a string; drop missing"):
        rle.from_coco_string(["o", None], SIZE)


WITH_SIZES = {
    "component_areas": lambda size: rle.component_areas("1 1", size),
    "coverage": lambda size: rle.coverage("1 1", size, (2, 2)),
    "coverage to": lambda size: rle.coverage("1 1", (2, 2), size),
    "coverage of rows": lambda size: rle.coverage("1 1", (2, 2), size, order="rows"),
    "decode": lambda size: rle.decode("1 1", size, (2, 2)),
    "decode to": lambda size: rle.decode("1 1", (2, 2), size),
    "decode of rows": lambda size: rle.decode("1 1", size, (2, 2), order="rows"),
    "draw": lambda size: rle.draw(tf.zeros([0, 3], tf.int32), 1, size, (2, 2)),
    "draw to": lambda size: rle.draw(tf.zeros([0, 3], tf.int32), 1, (2, 2), size),
    "faults": lambda size: rle.faults("1 1", size),
    "from_coco_counts": lambda size: rle.from_coco_counts([1], size),
    "from_coco_string": lambda size: rle.from_coco_string("1", size),
    "parse": lambda size: rle.parse("1 1", size),
    "resize": lambda size: rle.resize("1 1", size, (2, 2)),
    "resize to": lambda size: rle.resize("1 1", (2, 2), size),
    "to_coco_counts": lambda size: rle.to_coco_counts("1 1", size),
    "to_coco_string": lambda size: rle.to_coco_string("1 1", size),
}


@pytest.mark.parametrize("function", WITH_SIZES.values(), ids=WITH_SIZES.keys())
@pytest.mark.parametrize(
    "size, shown",
    [
        (1400, "1400"),
        ((1400,), r"\(1400,\)"),
        ((3, 4, 5), r"\(3, 4, 5\)"),
        ((0, 4), r"\(0, 4\)"),
        ((3, -4), r"\(3, -4\)"),
        ((3.5, 4), r"\(3.5, 4\)"),
        ("12", "12"),
        (None, "None"),
        (tf.constant([3, 0]), r"\[3, 0\]"),
        ((None, 4), r"\(None, 4\)"),
        (np.array([[3, 4]]), r"\[\[3 4\]\]"),
        (tf.zeros([2, 2], tf.int32), ""),
    ],
    ids=str,
)
def test_what_is_no_size_is_refused(function, size, shown):
    expected = rf"size: got {shown}.*, expected \(height, width\) in whole pixels"
    if size is None and function in (WITH_SIZES["faults"], WITH_SIZES["parse"]):
        return  # leaves the size open
    with pytest.raises(ValueError, match=expected):
        function(size)


def test_the_size_at_fault_is_named():
    with pytest.raises(ValueError, match="^source_size: got 1400"):
        rle.decode("1 1", 1400, (350, 525))
    with pytest.raises(ValueError, match="^size: got 350"):
        rle.decode("1 1", (1400, 2100), 350)


def test_a_mask_without_two_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"mask: got shape \(3,\), expected \[..., height, width"):
        rle.encode([1, 0, 1])
