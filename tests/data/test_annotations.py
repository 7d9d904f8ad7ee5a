import dataclasses
import functools
import gzip

import numpy as np
import pandas as pd
import pytest
from shared_fixtures import real_data

from clouds_tf import files
from clouds_tf.data import annotations
from clouds_tf.data.annotations import check_mask_size
from clouds_tf.data.planning import _read_folds, _read_groups, _split_into_folds
from clouds_tf.dataset import CLOUDS, Dataset

pytestmark = pytest.mark.lanes

CLASS_NAMES = CLOUDS.class_names

TINY = dataclasses.replace(CLOUDS, mask_size=(4, 5))
HEADER = "Image_Label,EncodedPixels"


def _write(tmp_path, *lines, header=HEADER):
    path = tmp_path / "train.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def _four(filename, *rles):
    return [f"{filename}_{name},{rle}" for name, rle in zip(CLASS_NAMES, rles)]


def test_reads_one_row_per_image_in_the_order_of_the_classes(tmp_path):
    lines = _four("b.jpg", "1 2", "", "", "5 1 7 1") + _four("a_1.jpg", "", "3 3", "", "")
    path = _write(tmp_path, *lines[:4], *lines[:3:-1])
    table = annotations.read_csv(path, TINY)
    assert table.columns.tolist() == ["filename", *CLASS_NAMES]
    assert table.values.tolist() == [
        ["b.jpg", "1 2", "", "", "5 1 7 1"],
        ["a_1.jpg", "", "3 3", "", ""],
    ]
    assert annotations.presence(table).tolist() == [
        [True, False, False, True],
        [False, True, False, False],
    ]


@pytest.mark.parametrize(
    "lines, message",
    [
        (_four("a.jpg", "1 2", "", "", "")[:3], "a.jpg has no row for Sugar"),
        (["a.jpg_Fish,", "a.jpg_Fish,"], "line 3: a.jpg has a second row for Fish"),
        (["a.jpg_Cirrus,"], "line 2: got the label 'a.jpg_Cirrus', expected .*Fish, Flower"),
        (["_Fish,"], "line 2: got the label '_Fish'"),
        (["nonsense,"], "line 2: got the label 'nonsense'"),
        (_four("a.jpg", "", "1 2 3", "", ""), "line 3: a.jpg, Flower: odd count of numbers .3."),
        (_four("a.jpg", "", "", "", "0 2"), "line 5: a.jpg, Sugar: pair 1 .*start 0"),
        (_four("a.jpg", "19 3", "", "", ""), "line 2: a.jpg, Fish: .*last pixel 21.* at most 20"),
        (_four("a.jpg", "5 3 6 1", "", "", ""), "line 2: a.jpg, Fish: pair 2"),
        (_four("a.jpg", "one 2", "", "", ""), "line 2: a.jpg, Fish: .*one"),
        (_four("a.jpg", "", "-1", "", ""), "line 3: .* got '-1'; leave the cell of an absent"),
        (_four("a.jpg", "nan", "", "", ""), "line 2: .* got 'nan'; leave the cell of an absent cl"),
        (_four("a.jpg", "", '"1\n1\n"', "", "0 2"), "line 7: a.jpg, Sugar: pair 1 .*start 0"),
        ([], "no rows below the header"),
    ],
)
def test_faults_are_named(tmp_path, lines, message):
    with pytest.raises(ValueError, match=f"train.csv.*{message}"):
        annotations.read_csv(_write(tmp_path, *lines), TINY)


def test_a_fault_far_down_is_named_by_its_line(tmp_path):
    lines = [line for i in range(700) for line in _four(f"{i}.jpg", "1 1", "", "", "")]
    lines[2500] = "625.jpg_Fish,1"
    with pytest.raises(ValueError, match="line 2502: 625.jpg, Fish"):
        annotations.read_csv(_write(tmp_path, *lines), TINY)


def test_rows_come_one_at_a_time_too(tmp_path):
    lines = [line for i in range(700) for line in _four(f"{i}.jpg", "1 1", "", "", "2 2")]
    path = _write(tmp_path, *lines)
    rows = list(annotations.iterate_rows(path, CLOUDS))
    assert rows[:2] == [("0.jpg", "Fish", "1 1"), ("0.jpg", "Flower", "")]
    assert len(rows) == 2800 and rows[-1] == ("699.jpg", "Sugar", "2 2")
    rows = annotations.iterate_rows(_write(tmp_path, *lines, "nonsense,"), CLOUDS)
    assert next(rows) == ("0.jpg", "Fish", "1 1")
    with pytest.raises(ValueError, match="train.csv, line 2802: got the label 'nonsense'"):
        list(rows)


def test_a_missing_column_is_named(tmp_path):
    path = _write(tmp_path, "a.jpg_Fish,", header="Image_Label,Pixels")
    with pytest.raises(ValueError, match="no column 'EncodedPixels', got 'Image_Label', 'Pixels'"):
        annotations.read_csv(path, CLOUDS)


@pytest.mark.parametrize("column", HEADER.split(","))
def test_a_column_given_twice_is_refused(tmp_path, column):
    path = _write(tmp_path, "a.jpg_Fish,,b", header=f"{HEADER},{column}")
    with pytest.raises(ValueError, match=f"train.csv: two columns '{column}'"):
        annotations.read_csv(path, TINY)


def test_an_empty_or_missing_file_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(ValueError, match="train.csv: not a CSV file"):
        annotations.read_csv(str(tmp_path / "train.csv"), CLOUDS)
    with pytest.raises(FileNotFoundError, match="other.csv: no such file"):
        annotations.read_csv(str(tmp_path / "other.csv"), CLOUDS)


def test_writing_and_reading_agree(tmp_path):
    path = str(tmp_path / "out.csv")
    rles = [["1 2", "", "3 4", ""], ["", "", "", "20 1"]]
    annotations.write_csv(path, ["x.jpg", "y.jpg"], rles, CLOUDS)
    table = annotations.read_csv(path, TINY)
    assert table["filename"].tolist() == ["x.jpg", "y.jpg"]
    assert table[list(CLASS_NAMES)].values.tolist() == rles
    with open(path) as file:
        assert file.read().startswith(f"{HEADER}\nx.jpg_Fish,1 2\nx.jpg_Flower,\n")


def test_rows_that_fail_leave_no_file(tmp_path):
    def rows():
        yield "a.jpg", "Fish", ""
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        cells = annotations.spelled(rows(), CLOUDS)
        files.write_table(str(tmp_path / "out.csv"), CLOUDS.columns, cells)
    assert not list(tmp_path.iterdir())


def test_folds_are_even_in_every_class_and_repeatable():
    labels = np.random.default_rng(0).random((500, 4)) < [0.5, 0.43, 0.53, 0.68]
    folds = _split_into_folds(labels, 5, seed=3)
    assert set(folds) == set(range(5))
    for fold in range(5):
        members = labels[folds == fold]
        assert 90 <= len(members) <= 110
        np.testing.assert_allclose(members.mean(axis=0), labels.mean(axis=0), atol=0.06)
    assert (folds == _split_into_folds(labels, 5, seed=3)).all()
    assert (folds != _split_into_folds(labels, 5, seed=4)).any()


@pytest.mark.parametrize("num_folds", [1, 11])
def test_an_impossible_number_of_folds_is_refused(num_folds):
    with pytest.raises(ValueError, match=f"num_folds: got {num_folds}, expected 2 to 10"):
        _split_into_folds(np.ones((10, 4), bool), num_folds, seed=0)


def test_one_image_makes_no_folds():
    with pytest.raises(ValueError, match="num_folds: got 1 image without fault, expected at lea"):
        _split_into_folds(np.ones([1, 4], bool), 5, seed=0)


def test_an_image_in_two_folds_is_refused(tmp_path):
    path = _write(tmp_path, "a.jpg,0", "b.jpg,1", "a.jpg,1", header="filename,fold")
    with pytest.raises(ValueError, match="train.csv, line 4: second row for a.jpg"):
        _read_folds(path, ["a.jpg", "b.jpg"])


def test_real_rows_pass():
    table = annotations.read_csv(str(real_data("clouds_small") / "train.csv"), CLOUDS)
    assert len(table) == 1000
    assert table["filename"][0] == "0011165.jpg"
    assert table["Fish"][0].startswith("264918 937 266318 937 267718 937")


def test_unusual_files_are_read(tmp_path):
    lines = [f"{line},7" for line in _four("a.jpg", "1 2", "", "", "")]
    text = "\n".join([f"{HEADER},Extra", '"a.jpg_Fish","1 2",7', *lines[1:]])
    for content in (
        text.encode(),
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode() + b"\r\n\r\n",
        gzip.compress(text.encode()),
    ):
        (tmp_path / "train.csv").write_bytes(content)
        table = annotations.read_csv(str(tmp_path / "train.csv"), TINY)
        assert table.values.tolist() == [["a.jpg", "1 2", "", "", ""]]


def test_all_faults_are_found_and_the_other_images_kept(tmp_path):
    lines = _four("a.jpg", "1 2", "", "0 1", "x") + _four("b.jpg", "", "", "", "")[:2]
    path = _write(tmp_path, *lines, *_four("c.jpg", "", "", "", "1 1"), "c_Fish,", "d.jpg_Fog,")
    table, names, faults = annotations.check_csv(path, TINY, exclude=["c"])
    assert table["filename"].tolist() == ["c.jpg"] and names == {"a.jpg", "b.jpg", "c.jpg"}
    assert [fault.line for fault in faults] == [0, 4, 5, 13]
    assert "b.jpg has no row for Gravel, Sugar" in faults[0].reason
    with pytest.raises(ValueError, match="^5 faults:\n"):
        annotations.read_csv(path, TINY)


@pytest.mark.parametrize("ending", [",x", ",,"])
def test_more_cells_than_columns_are_an_error(ending, tmp_path):
    lines = [line + ending for line in _four("a.jpg", "1 2", "", "", "")]
    with pytest.raises(ValueError, match="train.csv: rows have more cells than the header"):
        annotations.read_csv(_write(tmp_path, *lines), TINY)


def test_damaged_gzip_is_named(tmp_path):
    path = tmp_path / "train.csv.gz"
    lines = [line for i in range(300) for line in _four(f"{i}.jpg", f"{i % 7 + 1} 2", "", "", "")]
    content = bytearray(gzip.compress("\n".join([HEADER, *lines]).encode()))
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="train.csv.gz: not a CSV file, or damaged"):
        annotations.read_csv(str(path), TINY)


def test_many_faults_are_counted_and_the_first_ones_listed(tmp_path):
    path = _write(tmp_path, *(f"{i}.jpg_Cirrus," for i in range(81)))
    with pytest.raises(ValueError, match="81 faults:") as error:
        list(annotations.iterate_rows(path, CLOUDS))
    lines = str(error.value).splitlines()
    assert len(lines) == 12 and lines[-1] == "  and 71 more"


@pytest.mark.parametrize("height, got", [(1400, (2100, 1400)), (350, (1400, 2100))])
def test_the_height_of_real_masks_shows(height, got):
    folder = {1400: "clouds_small/train.csv", 350: "clouds_full/train.csv.gz"}[height]
    path = real_data(folder.split("/")[0]) / folder.split("/")[1]
    table = annotations.read_csv(str(path), CLOUDS, (height, height * 3 // 2)).head(100)
    check_mask_size(table, CLOUDS, "train.csv", "--mask_size", (height, height * 3 // 2))
    with pytest.raises(ValueError, match=f"masks of {height} rows, got .*give .* with --mask_size"):
        check_mask_size(table, CLOUDS, "train.csv", "--mask_size", got)


@pytest.mark.parametrize("right, size", [("columns", (30, 20)), ("rows", (20, 30))])
def test_the_other_order_of_runs_shows(right, size):
    starts = " ".join(f"{1 + 30 * i} 9" for i in range(20))
    table = pd.DataFrame({"filename": [str(i) for i in range(9)], "Fish": starts})
    check = functools.partial(check_mask_size, table, path="train.csv", flag="--mask_size")
    check(dataset=dataclasses.replace(CLOUDS, mask_size=size, rle_order=right))
    wrong = {"columns": "rows", "rows": "columns"}[right]
    shown = f"give their size with --mask_size, or rle_order='{right}' if it is {size[0]}x{size[1]}"
    with pytest.raises(ValueError, match=f"masks of 30 {right}, got.*{shown}"):
        check(dataset=dataclasses.replace(CLOUDS, mask_size=size, rle_order=wrong))


TWO_COLUMNS = Dataset(
    class_names=("Big_Fish", "Fish"),
    mask_size=(4, 5),
    submission_size=(4, 5),
    label_columns=("ImageId", "ClassId"),
    rle_column="Pixels",
    rle_order="rows",
)


def test_two_columns_of_labels_are_written_and_read(tmp_path):
    path = str(tmp_path / "out.csv")
    annotations.write_csv(path, ["a_Fish", "b"], [["1 2", ""], ["", "3 4"]], TWO_COLUMNS)
    with open(path) as file:
        assert file.read().startswith("ImageId,ClassId,Pixels\na_Fish,Big_Fish,1 2\n")
    table = annotations.read_csv(path, TWO_COLUMNS)
    assert table.values.tolist() == [["a_Fish", "1 2", ""], ["b", "", "3 4"]]
    rows = list(annotations.iterate_rows(path, TWO_COLUMNS))
    assert rows[1] == ("a_Fish", "Fish", "") and len(rows) == 4


def test_faults_in_two_columns_are_named(tmp_path):
    header = "ImageId,ClassId,Pixels"
    path = _write(tmp_path, "a,Fog,", ",Fish,", header=header)
    with pytest.raises(ValueError, match="line 2: got the class 'Fog', expected a file name and"):
        list(annotations.iterate_rows(path, TWO_COLUMNS))
    path = _write(tmp_path, "a,Fish,1 21", "a,Big_Fish,", header=header)
    with pytest.raises(ValueError, match="line 2: a, Fish: .*last pixel 21, expected at most 20"):
        annotations.read_csv(path, TWO_COLUMNS)
    with pytest.raises(ValueError, match="no column 'ClassId'"):
        annotations.read_csv(_write(tmp_path, "a,1 2", header="ImageId,Pixels"), TWO_COLUMNS)


def test_class_names_may_end_in_each_other(tmp_path):
    dataset = dataclasses.replace(TWO_COLUMNS, label_columns=("Label",))
    path = str(tmp_path / "out.csv")
    annotations.write_csv(path, ["a.jpg"], [["1 2", "3 4"]], dataset)
    assert annotations.read_csv(path, dataset).values.tolist() == [["a.jpg", "1 2", "3 4"]]


def test_images_of_one_group_are_in_one_fold_with_even_shares(tmp_path):
    """Pairs of one day and place, as by Terra and Aqua, and images that no row names."""
    names = [f"{i}.jpg" for i in range(300)]
    rows = [f"{name},day {i // 2}\n" for i, name in enumerate(names[:200])]
    path = tmp_path / "groups.csv"
    path.write_text("filename,group,note\n" + "".join(row.strip() + ",x\n" for row in rows))
    groups = _read_groups(str(path), names[::-1])[::-1]
    assert len(set(groups)) == 200
    assert (groups[:200:2] == groups[1:200:2]).all() and len(set(groups[200:])) == 100
    labels = np.random.default_rng(0).random((300, 4)) < [0.1, 0.3, 0.5, 0.7]
    folds = _split_into_folds(labels, 5, 0, groups)
    assert (folds[:200:2] == folds[1:200:2]).all()
    assert abs(np.bincount(folds) - 60).max() <= 8
    shares = np.array([labels[folds == fold].mean(axis=0) for fold in range(5)])
    assert abs(shares - labels.mean(axis=0)).max() < 0.08
    with pytest.raises(ValueError, match="groups.csv: names no image, expected .* such as x.jpg"):
        _read_groups(str(path), ["x.jpg"])
    path.write_text("filename,group\n0.jpg,a\n0.jpg,b\n")
    with pytest.raises(ValueError, match="groups.csv, line 3: second row for 0.jpg"):
        _read_groups(str(path), names)
