import numpy as np
import pytest
from conftest import real_data

from clouds_tf.data import annotations
from clouds_tf.evaluation.score import score, table


def _write(tmp_path, name, filenames, rles):
    path = str(tmp_path / name)
    annotations.write_csv(path, filenames, rles)
    return path


def test_scores_by_hand(tmp_path):
    truth = _write(
        tmp_path,
        "t.csv",
        ["a.jpg", "b.jpg"],
        [["1 5600", "1 5600", "", ""], ["", "", "1 5600", ""]],
    )
    # At 350x525 four columns are one, of 350 pixels.
    submission = _write(
        tmp_path,
        "s.csv",
        ["b.jpg", "a.jpg"],
        [["", "7 1", "1 350", ""], ["1 350", "1 175", "", "3 1"]],
    )
    found = score(submission, truth)
    np.testing.assert_allclose(found["submission"], [[1, 350 / 525, 1, 0], [1, 0, 1, 1]])
    np.testing.assert_allclose(found["all blank"], [[0, 0, 1, 1], [1, 1, 0, 1]])


def test_truth_at_the_size_of_the_submission(tmp_path):
    path = _write(tmp_path, "t.csv", ["a.jpg"], [["1 350 700 3", "", "", "183750 1"]])
    found = score(path, path, annotations_size=(350, 525))
    np.testing.assert_array_equal(found["submission"], 1)


def test_differing_images_are_named(tmp_path):
    one = _write(tmp_path, "one.csv", ["a.jpg"], [["", "", "", ""]])
    two = _write(tmp_path, "two.csv", ["a.jpg", "b.jpg"], [["", "", "", ""]] * 2)
    with pytest.raises(ValueError, match="one.csv: no rows for b.jpg, which .*two.csv has"):
        score(one, two)
    with pytest.raises(ValueError, match="two.csv: rows for b.jpg, which .*one.csv has not"):
        score(two, one)


def test_rle_beyond_the_submission_is_refused(tmp_path):
    good = _write(tmp_path, "t.csv", ["a.jpg"], [["", "", "", ""]])
    bad = _write(tmp_path, "s.csv", ["a.jpg"], [["", "", "183750 2", ""]])
    with pytest.raises(ValueError, match="s.csv, line 4: a.jpg, Gravel: .*183751"):
        score(bad, good)


def test_all_blank_on_the_real_rows(tmp_path):
    """Of the whole training set .4665 of the rows are blank; these are a thousand of its images."""
    truth = str(real_data("clouds_small") / "train.csv")
    filenames = annotations.read_rows(truth)["filename"].unique()
    blank = _write(tmp_path, "blank.csv", filenames, [[""] * 4] * len(filenames))
    found = score(blank, truth)
    assert found["submission"].mean() == pytest.approx(0.4665, abs=0.02)
    np.testing.assert_array_equal(found["submission"], found["all blank"])


def test_the_table_shows_every_class_and_the_mean():
    text = table({"submission": np.array([[0, 0.5, 1, 1], [1, 0.5, 1, 0]])})
    assert text.split() == "Fish Flower Gravel Sugar mean submission".split() + [
        "0.5000",
        "0.5000",
        "1.0000",
        "0.5000",
        "0.6250",
    ]
