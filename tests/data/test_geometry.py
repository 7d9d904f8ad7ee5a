import dataclasses

import numpy as np
import pandas as pd
import pytest

from clouds_tf import rle
from clouds_tf.data import annotations, examples
from clouds_tf.dataset import CLOUDS

pytestmark = pytest.mark.lanes

BY_ROWS = dataclasses.replace(CLOUDS, mask_size=(40, 60), rle_order="rows")


def _along_rows(mask):
    """A hand-written encoder along the rows."""
    edges = np.flatnonzero(np.diff(np.pad(mask.ravel(), 1)))
    return " ".join(f"{a + 1} {b - a}" for a, b in zip(edges[::2], edges[1::2]))


def test_runs_along_rows_become_columns():
    masks = (np.random.default_rng(0).random((4, 40, 60)) < 0.3).astype(np.uint8)
    masks[3] = 0
    found = examples.to_column_major([_along_rows(mask) for mask in masks], BY_ROWS)
    expected = [_along_rows(mask.T) for mask in masks]
    assert [text.decode() for text in found.numpy()] == expected
    np.testing.assert_array_equal(rle.decode(found, (40, 60), (40, 60)), masks)


def test_columns_stay_as_they_are():
    assert examples.to_column_major(["1 2  5 1"], CLOUDS).numpy().tolist() == [b"1 2  5 1"]


def test_the_width_shows_in_runs_along_rows():
    mask = np.zeros((400, 600), np.uint8)
    mask[50:350, 100:500] = 1
    table = pd.DataFrame({"filename": ["a"], "Fish": [_along_rows(mask)]})
    dataset = dataclasses.replace(BY_ROWS, mask_size=(400, 600))
    annotations.check_mask_size(table, dataset, "a.csv", "--mask_size")
    with pytest.raises(ValueError, match="a.csv: the runs are those of masks of 600 columns, got"):
        annotations.check_mask_size(table, dataset, "a.csv", "--mask_size", (400, 300))
    message = "got 400x600 .* with --mask_size, or rle_order='rows' if it is 400x600"
    with pytest.raises(ValueError, match=message):
        dataset = dataclasses.replace(dataset, rle_order="columns")
        annotations.check_mask_size(table, dataset, "a.csv", "--mask_size")


def test_few_runs_do_not_tell():
    table = pd.DataFrame({"filename": ["a"], "Fish": ["1 2 51 2 101 2"]})
    annotations.check_mask_size(table, CLOUDS, "a.csv", "--mask_size")
