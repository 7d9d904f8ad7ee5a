import json
import os

import cv2
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sample import SMALL, member
from sample import small_records as _small_records
from shared_fixtures import IMAGE_SIZE

from clouds_tf import rle
from clouds_tf.evaluation import out_of_fold
from clouds_tf.evaluation.held_out import HeldOut
from clouds_tf.evaluation.search import search
from clouds_tf.models.metrics import competition_dice
from clouds_tf.prediction.postprocessing import postprocess

small_records = _small_records
SIZE = SMALL.submission_size


@pytest.fixture(scope="module")
def recorded(small_records, tmp_path_factory):
    """The table of folds 0 and 2, its maps, Counts and rules, and what the models predicted."""
    folder, seen = tmp_path_factory.mktemp("oof"), []
    members = {0: [member(IMAGE_SIZE)], 2: [member(IMAGE_SIZE, 2)]}
    table, maps = str(folder / "t.parquet"), str(folder / "maps")
    with out_of_fold.recording(small_records, [0, 2], table, maps) as recorder:

        def keep(*batch):
            seen.append(batch)
            recorder.add(*batch)

        counts = HeldOut(small_records, members, 3).count(keep=keep)
        found = search(counts)
        assert not os.path.exists(maps)
        recorder.write(counts, found, "W0, W2")
    masks, probabilities = (np.concatenate(parts) for parts in zip(*seen))
    return pd.read_parquet(table), maps, counts, found, masks, probabilities


@pytest.mark.slow
def test_each_row_says_what_was_predicted_for_a_class(recorded, small_records):
    table, _, counts, found, truth, probabilities = recorded
    folds = pd.read_csv(os.path.join(small_records.path, "folds.csv"), index_col="filename")["fold"]
    assert len(table) == 4 * len(truth) == 4 * folds.isin([0, 2]).sum()
    assert (table["fold"] == folds[table["filename"]].to_numpy()).all()
    assert (table["class"] == np.tile(SMALL.class_names, len(truth))).all()

    masks = postprocess(probabilities, found.rules).numpy()
    for column, expected in (("encoded_pixels", masks), ("true_pixels", truth)):
        drawn = rle.decode(table[column].tolist(), SIZE, SIZE).numpy()
        expected = expected.transpose(0, 3, 1, 2).reshape(-1, *SIZE)
        np.testing.assert_array_equal(drawn, expected)
        name = "area" if column == "encoded_pixels" else "true_area"
        np.testing.assert_array_equal(table[name], expected.sum((1, 2)))
    np.testing.assert_array_equal(table["present"], truth.any((1, 2)).ravel())
    np.testing.assert_allclose(table["dice"], tf.reshape(competition_dice(truth, masks), [-1]))
    np.testing.assert_array_equal(table["dice_cross_fitted"], found.cross_fitted.ravel())
    np.testing.assert_array_equal(table["presence"], counts.presence.ravel())
    for name, threshold in (("area_05", 0.05), ("area_50", 0.5), ("area_95", 0.95)):
        expected = (probabilities > np.float32(threshold)).sum((1, 2)).ravel()
        np.testing.assert_array_equal(table[name], expected)
    top = np.sort(probabilities.reshape(len(truth), -1, 4), axis=1)[:, -37:]  # 0.5 % of 70 x 105
    np.testing.assert_allclose(table["top_mean"], top.mean(1).ravel(), rtol=1e-5)


@pytest.mark.slow
def test_maps_are_the_probabilities_at_a_quarter_of_the_size(recorded):
    table, maps, _, _, _, probabilities = recorded
    names = table["filename"].iloc[::4]
    assert sorted(os.listdir(maps)) == sorted([*(f"{n}.png" for n in names), "soft_targets.json"])
    with open(os.path.join(maps, "soft_targets.json")) as file:
        info = json.load(file)
    assert info["class_names"] == list(SMALL.class_names) and info["size"] == [18, 27]
    assert info["source"] == "W0, W2"
    for name, expected in zip(names, probabilities):
        found = cv2.imread(os.path.join(maps, f"{name}.png"), cv2.IMREAD_UNCHANGED)
        expected = cv2.resize(expected, (27, 18), interpolation=cv2.INTER_AREA)
        found = found.reshape(4, 18, 27).transpose(1, 2, 0)
        np.testing.assert_allclose(found / 255, expected, atol=0.006)


def test_nothing_is_left_of_a_recording_that_fails(small_records, tmp_path):
    table, maps = str(tmp_path / "t.parquet"), str(tmp_path / "maps")
    with pytest.raises(KeyboardInterrupt):
        with out_of_fold.recording(small_records, [0], table, maps):
            raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
