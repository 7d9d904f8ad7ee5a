import numpy as np
import pytest
from conftest import real_data
from scipy import stats

from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS
from clouds_tf.evaluation.score import Comparison, compare, intervals, table, worst_images


def _write(tmp_path, name, filenames, rles):
    path = str(tmp_path / name)
    annotations.write_csv(path, filenames, rles, CLOUDS)
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
    found = compare(submission, truth)
    assert found.filenames == ["a.jpg", "b.jpg"]
    np.testing.assert_allclose(found.dice, [[1, 350 / 525, 1, 0], [1, 0, 1, 1]])
    np.testing.assert_array_equal(found.true_areas, [[350, 350, 0, 0], [0, 0, 350, 0]])
    np.testing.assert_array_equal(found.predicted_areas, [[350, 175, 0, 1], [0, 1, 350, 0]])
    np.testing.assert_array_equal(found.intersections, [[350, 175, 0, 0], [0, 0, 350, 0]])


def test_truth_at_the_size_of_the_submission(tmp_path):
    path = _write(tmp_path, "t.csv", ["a.jpg"], [["1 350 700 3", "", "", "183750 1"]])
    found = compare(path, path, annotations_size=(350, 525))
    np.testing.assert_array_equal(found.dice, 1)


def test_differing_images_are_named(tmp_path):
    one = _write(tmp_path, "one.csv", ["a.jpg"], [["", "", "", ""]])
    two = _write(tmp_path, "two.csv", ["a.jpg", "b.jpg"], [["", "", "", ""]] * 2)
    with pytest.raises(ValueError, match="one.csv: no rows for b.jpg, which .*two.csv has"):
        compare(one, two)
    with pytest.raises(ValueError, match="two.csv: rows for b.jpg, which .*one.csv has not"):
        compare(two, one)
    three = _write(tmp_path, "three.csv", ["c.jpg", "b.jpg"], [["", "", "", ""]] * 2)
    with pytest.raises(ValueError, match="(?s)2 faults:.*no rows for a.jpg.*rows for c.jpg"):
        compare(three, two)


def test_rle_beyond_the_submission_is_refused(tmp_path):
    good = _write(tmp_path, "t.csv", ["a.jpg"], [["", "", "", ""]])
    bad = _write(tmp_path, "s.csv", ["a.jpg"], [["", "", "183750 2", ""]])
    with pytest.raises(ValueError, match="s.csv, line 4: a.jpg, Gravel: .*183751"):
        compare(bad, good)


def test_all_blank_on_the_real_rows(tmp_path):
    """Of the whole training set .4665 of the rows are blank; these are a thousand of its images."""
    truth = str(real_data("clouds_small") / "train.csv")
    filenames = annotations.read_rows(truth, CLOUDS)["filename"].unique()
    blank = _write(tmp_path, "blank.csv", filenames, [[""] * 4] * len(filenames))
    found = compare(blank, truth)
    assert found.dice.mean() == pytest.approx(0.4665, abs=0.02)
    np.testing.assert_array_equal(found.dice, found.true_areas == 0)


def test_the_table_shows_every_class_and_the_mean():
    text = table({"submission": np.array([[0, 0.5, 1, 1], [1, 0.5, 1, 0]])})
    assert text.split() == "Fish Flower Gravel Sugar mean submission".split() + [
        "0.5000",
        "0.5000",
        "1.0000",
        "0.5000",
        "0.6250",
    ]


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    dice = rng.random((60, 4)) * [1, 0.5, 0.1, 0]
    low, high = intervals(dice)
    values = np.column_stack([dice, dice.mean(axis=1)])
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=1, axis=0
    ).confidence_interval
    np.testing.assert_allclose(low, expected.low, atol=0.006)
    np.testing.assert_allclose(high, expected.high, atol=0.006)


def test_the_table_shows_an_interval_where_asked():
    scores = {"one": np.array([[0, 1, 0, 1], [1, 1, 0, 1]]), "other": np.zeros((2, 4))}
    lines = table(scores, interval_of="one").splitlines()
    assert [line.split()[0] for line in lines] == ["Fish", "one", "95", "to", "other"]
    assert lines[2].split()[3:] == ["0.0000", "1.0000", "0.0000", "1.0000", "0.5000"]


def test_the_worst_image_comes_first_with_its_faults():
    comparison = Comparison(
        ["good.jpg", "bad.jpg"],
        np.array([[1, 1, 0.7, 1], [0, 0, 0, 0.2]], np.float32),
        true_areas=np.array([[0, 9, 100, 0], [0, 70, 50, 900]]),
        predicted_areas=np.array([[0, 9, 100, 0], [12, 0, 40, 100]]),
        intersections=np.array([[0, 9, 70, 0], [0, 0, 0, 100]]),
    )
    columns, rows = worst_images(comparison)
    assert columns == ["filename", "dice", "Fish", "Flower", "Gravel", "Sugar", "faults"]
    assert rows[0][:3] == ["bad.jpg", "0.0500", "0.0000"]
    assert rows[0][-1] == (
        "Fish: false alarm of 12 px; Flower: missed, 70 px; Gravel: elsewhere, 40 px instead of "
        "50; Sugar: too small, 100 px, 100 of 900 hit"
    )
    assert rows[1][0] == "good.jpg" and rows[1][-1] == ""
    flipped = comparison._replace(
        true_areas=comparison.predicted_areas, predicted_areas=comparison.true_areas
    )
    assert worst_images(flipped)[1][0][-1].endswith("Sugar: too large, 900 px, 100 of 100 hit")
