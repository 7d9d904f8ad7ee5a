import dataclasses

import numpy as np
import pandas as pd
import pytest
from programs import run_tool
from scipy import stats
from shared_fixtures import real_data

from clouds_tf import rle
from clouds_tf.data import annotations, sample_data
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.evaluation.score import Comparison, compare, intervals, table, worst_images

pytestmark = pytest.mark.lanes


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
    found = compare(submission, truth, CLOUDS)
    assert found.filenames == ("a.jpg", "b.jpg")
    np.testing.assert_allclose(found.dice, [[1, 350 / 525, 1, 0], [1, 0, 1, 1]])
    np.testing.assert_array_equal(found.true_areas, [[350, 350, 0, 0], [0, 0, 350, 0]])
    np.testing.assert_array_equal(found.predicted_areas, [[350, 175, 0, 1], [0, 1, 350, 0]])
    np.testing.assert_array_equal(found.intersections, [[350, 175, 0, 0], [0, 0, 350, 0]])


def test_truth_at_the_size_of_the_submission(tmp_path):
    path = _write(tmp_path, "t.csv", ["a.jpg"], [["1 350 700 3", "", "", "183750 1"]])
    found = compare(path, path, CLOUDS, (350, 525))
    np.testing.assert_array_equal(found.dice, 1)


def test_three_classes_with_runs_along_rows_and_two_label_columns(tmp_path):
    steel = Dataset(
        ("pit", "scratch", "stain"),
        (8, 32),
        (4, 16),
        label_columns=("ImageId", "ClassId"),
        rle_order="rows",
    )
    truth, submission = str(tmp_path / "t.csv"), str(tmp_path / "s.csv")
    # The two upper rows of 32 pixels are the first one of 16.
    annotations.write_csv(truth, ["a.jpg"], [["1 64", "", "1 64"]], steel)
    annotations.write_csv(submission, ["a.jpg"], [["1 16", "", "9 16"]], steel)
    found = compare(submission, truth, steel)
    np.testing.assert_array_equal(found.true_areas, [[16, 0, 16]])
    np.testing.assert_array_equal(found.dice, [[1, 1, 0.5]])
    assert worst_images(found)[0] == ["filename", "dice", "pit", "scratch", "stain", "faults"]


def test_differing_images_are_named(tmp_path):
    one = _write(tmp_path, "one.csv", ["a.jpg"], [["", "", "", ""]])
    two = _write(tmp_path, "two.csv", ["a.jpg", "b.jpg"], [["", "", "", ""]] * 2)
    with pytest.raises(ValueError, match="one.csv: no rows for b.jpg, which is in .*two.csv"):
        compare(one, two, CLOUDS)
    with pytest.raises(ValueError, match="two.csv: rows for b.jpg, which is not in .*one.csv"):
        compare(two, one, CLOUDS)
    three = _write(tmp_path, "three.csv", ["c.jpg", "b.jpg"], [["", "", "", ""]] * 2)
    with pytest.raises(ValueError, match="(?s)2 faults:.*no rows for a.jpg.*rows for c.jpg"):
        compare(three, two, CLOUDS)


def test_rle_beyond_the_submission_is_refused(tmp_path):
    good = _write(tmp_path, "t.csv", ["a.jpg"], [["", "", "", ""]])
    bad = _write(tmp_path, "s.csv", ["a.jpg"], [["", "", "183750 2", ""]])
    with pytest.raises(ValueError, match="s.csv, line 4: a.jpg, Gravel: .*183751"):
        compare(bad, good, CLOUDS)


@pytest.mark.slow
def test_all_blank_on_the_real_rows(tmp_path):
    """Of the whole training set .4665 of the rows are blank; these are a thousand of its images."""
    truth = str(real_data("clouds_small") / "train.csv")
    filenames = list(dict.fromkeys(row[0] for row in annotations.iterate_rows(truth, CLOUDS)))
    blank = _write(tmp_path, "blank.csv", filenames, [[""] * 4] * len(filenames))
    found = compare(blank, truth, CLOUDS)
    assert found.dice.mean() == pytest.approx(0.4665, abs=0.02)
    np.testing.assert_array_equal(found.dice, found.true_areas == 0)


def test_the_table_shows_every_class_and_the_mean():
    text = table({"submission": np.array([[0, 0.5, 1, 1], [1, 0.5, 1, 0]])}, CLOUDS.class_names)
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
    lines = table(scores, CLOUDS.class_names, interval_of="one").splitlines()
    assert [line.split()[0] for line in lines] == ["Fish", "one", "95", "to", "other"]
    assert lines[2].split()[3:] == ["0.0000", "1.0000", "0.0000", "1.0000", "0.5000"]


def test_the_worst_image_comes_first_with_its_faults():
    comparison = Comparison(
        CLOUDS.class_names,
        ("good.jpg", "bad.jpg"),
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
    flipped = dataclasses.replace(
        comparison, true_areas=comparison.predicted_areas, predicted_areas=comparison.true_areas
    )
    assert worst_images(flipped)[1][0][-1].endswith("Sugar: too large, 900 px, 100 of 100 hit")


def test_the_table_compares_with_a_baseline():
    scores = {"all_blank": np.array([[1, 0], [1, 0]]), "ours": np.array([[1, 1], [0, 1]])}
    lines = table(scores, ("a", "b"), baseline="all_blank").splitlines()
    assert lines[1].split() == "all blank 1.0000 0.0000 0.5000".split()
    assert lines[3].split() == "over blank -0.5000 +1.0000 +0.2500".split()


@pytest.fixture(scope="module")
def masks():
    """Of 6 images, four classes each, at (1400, 2100) and as the submission has them."""
    _, masks = sample_data.render_images(6, (350, 525), seed=3)
    small = rle.encode(np.transpose(masks, [0, 3, 1, 2]))
    large = rle.resize(small, (350, 525), (1400, 2100))
    return [[[r.decode() for r in row] for row in x.numpy()] for x in (large, small)]


@pytest.fixture
def csv_pair(masks, tmp_path):
    """The truth and a submission, the same masks."""
    names = [f"{i}.jpg" for i in range(6)]
    pairs = zip(("truth.csv", "submission.csv"), masks)
    return [_write(tmp_path, name, names, rles) for name, rles in pairs]


def test_truth_of_another_geometry_is_refused(csv_pair):
    truth, submission = csv_pair
    np.testing.assert_array_equal(compare(submission, truth, CLOUDS).dice, 1)
    with pytest.raises(ValueError, match="submission.csv: .* 350 rows.*--annotations_size"):
        compare(submission, submission, CLOUDS)
    with pytest.raises(ValueError, match="truth.csv: "):
        compare(submission, truth, CLOUDS, (2100, 1400))


def test_a_submission_of_another_geometry_is_refused(csv_pair, masks, tmp_path):
    truth, submission = csv_pair
    # Rows and columns exchanged: as many pixels, so that the runs fit.
    decoded = rle.decode([r for row in masks[1] for r in row], (350, 525), (350, 525))
    turned = rle.encode(np.transpose(decoded, [0, 2, 1])).numpy().reshape(6, 4)
    rles = [[text.decode() for text in row] for row in turned]
    rotated = _write(tmp_path, "rotated.csv", [f"{i}.jpg" for i in range(6)], rles)
    with pytest.raises(ValueError, match="rotated.csv: .* 525 rows.*; the masks of a submission"):
        compare(rotated, truth, CLOUDS)


def test_the_table_of_predict_in_parquet_is_read(csv_pair, tmp_path):
    truth, submission = csv_pair
    path = str(tmp_path / "s.parquet")
    pd.read_csv(submission).fillna("").to_parquet(path)
    np.testing.assert_array_equal(compare(path, truth, CLOUDS).dice, 1)
    with pytest.raises(FileNotFoundError, match="t.parquet: no such file"):
        compare(str(tmp_path / "t.parquet"), truth, CLOUDS)
    (tmp_path / "t.parquet").write_text("a,b")
    with pytest.raises(ValueError, match="t.parquet: not a Parquet file, or damaged"):
        compare(str(tmp_path / "t.parquet"), truth, CLOUDS)
    pd.DataFrame({"Image_Label": ["a.jpg_Fish"], "area": [3]}).to_parquet(path)
    with pytest.raises(ValueError, match="s.parquet: no column 'EncodedPixels', got 'Image_Label'"):
        compare(path, truth, CLOUDS)
    pd.DataFrame({"Image_Label": ["a.jpg_Fish"], "EncodedPixels": ["0 3"]}).to_parquet(path)
    with pytest.raises(ValueError, match="s.parquet.*: a.jpg"):
        compare(path, truth, CLOUDS)


def test_many_faults_are_the_first_few_and_a_count(tmp_path):
    truth = _write(tmp_path, "t.csv", [f"{i:03}.jpg" for i in range(80)], [[""] * 4] * 80)
    other = _write(tmp_path, "s.csv", ["a.jpg"], [[""] * 4])
    with pytest.raises(ValueError) as error:
        compare(other, truth, CLOUDS)
    lines = str(error.value).splitlines()
    assert len(lines) <= 12 and lines[0] == "81 faults:" and lines[-1].strip() == "and 71 more"


def test_the_tool_shows_the_interval_of_the_submission(tmp_path):
    names = [f"{i}.jpg" for i in range(12)]
    rles = [["1 5600" if i % 2 else "", "", "", ""] for i in range(12)]
    truth = _write(tmp_path, "t.csv", names, rles)
    submission = _write(tmp_path, "s.csv", names, [["1 350", "", "", ""]] * 12)
    found = run_tool("score", f"--submission={submission}", f"--annotations={truth}")
    assert found.returncode == 0, found.stderr
    lines = [line.split()[:2] for line in found.stdout.splitlines()[1:]]
    places = {" ".join(words): i for i, words in enumerate(lines)}
    assert places["95 %"] == next(i for n, i in places.items() if n.startswith("submission")) + 1
