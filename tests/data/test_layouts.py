"""Data sets as their publishers spell them, at tiny size."""

import dataclasses
import json

from cli import dataset_names, read_dataset

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from shared_fixtures import REPOSITORY

from clouds_tf import rle
from clouds_tf.data import annotations, sources
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.evaluation.score import compare
from clouds_tf.serving import outputs
from clouds_tf.serving.inputs import read_inputs, read_sample_rows

SIZE = (6, 8)


def _dataset(name, **changes):
    found = read_dataset(name)
    return dataclasses.replace(found, mask_size=SIZE, submission_size=SIZE, **changes)


def _write(folder, dataset, header, rows, images):
    """A data folder of empty image files."""
    for name in images:
        path = folder / dataset.train_images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / dataset.train_csv).write_text("\n".join([header, *rows]) + "\n")
    return str(folder)


def _masks(folder, dataset):
    """File name -> masks [C, h, w] of a data folder without faults."""
    found = sources.read_annotations(folder, dataset)
    assert not found.faults + found.unlisted
    return {
        name: rle.decode(rles, SIZE, SIZE, dataset.rle_order).numpy()
        for name, *rles in found.table.values.tolist()
    }


def _submitted(tmp_path, dataset, rows):
    """Lines of a submission; it must score 1 against itself."""
    path = str(tmp_path / "submission.csv")
    outputs.write_submission(path, rows, dataset)
    assert compare(path, path, dataset).dice.min() == 1
    with open(path) as file:
        return file.read().splitlines()


def _mask(*rectangles):
    mask = np.zeros(SIZE, np.uint8)
    for top, left, bottom, right in rectangles:
        mask[top:bottom, left:right] = 1
    return mask


def test_all_descriptions_can_be_named_and_clouds_is_the_default():
    assert dataset_names() == ["airbus", "carvana", "clouds", "severstal", "siim", "tgs_salt"]
    assert read_dataset("clouds") == CLOUDS
    for name in dataset_names():
        dataset = read_dataset(name)
        assert Dataset.from_json(json.loads(json.dumps(dataset.to_json()))) == dataset
    with pytest.raises(ValueError, match="severstall: no such file.*one of airbus, carvana"):
        read_dataset("severstall")


def test_severstal_has_rows_of_present_classes_only(tmp_path):
    dataset = _dataset("severstal")
    rows = ["0002cc93b.jpg,1,7 3", "0007a71bf.jpg,3,1 2 47 2", "0007a71bf.jpg,4,5 2"]
    images = ["0002cc93b.jpg", "0007a71bf.jpg", "00031f466.jpg"]  # the last one has no defect
    folder = _write(tmp_path, dataset, "ImageId,ClassId,EncodedPixels", rows, images)
    masks = _masks(folder, dataset)
    assert set(masks) == set(images) and not masks["00031f466.jpg"].any()
    assert masks["0002cc93b.jpg"].sum(axis=(1, 2)).tolist() == [3, 0, 0, 0]
    np.testing.assert_array_equal(masks["0002cc93b.jpg"][0], _mask((0, 1, 3, 2)))
    assert masks["0007a71bf.jpg"].sum(axis=(1, 2)).tolist() == [0, 0, 4, 2]
    rows = [("00031f466.jpg", "1", ""), ("0002cc93b.jpg", "1", "7 3")]
    assert _submitted(tmp_path, dataset, rows) == [
        "ImageId,ClassId,EncodedPixels",
        "00031f466.jpg,1,",
        "0002cc93b.jpg,1,7 3",
    ]


def test_rows_that_are_missing_in_the_truth_are_blank_but_not_in_a_submission(tmp_path):
    dataset = _dataset("severstal")
    truth, predicted = str(tmp_path / "train.csv"), str(tmp_path / "submission.csv")
    outputs.write_submission(truth, [("a.jpg", "2", "1 4")], dataset)
    rows = [(name, label, "") for name in ("a.jpg", "b.jpg") for label in "1234"]
    rows[1], rows[6] = ("a.jpg", "2", "3 4"), ("b.jpg", "3", "1 1")
    outputs.write_submission(predicted, rows, dataset)
    assert compare(predicted, truth, dataset).dice.tolist() == [[1, 0.5, 1, 1], [1, 1, 0, 1]]
    with pytest.raises(ValueError, match="train.csv: no rows for b.jpg, which is in"):
        compare(truth, predicted, dataset)


def test_airbus_has_a_row_for_each_ship(tmp_path):
    dataset = _dataset("airbus")
    rows = ["a.jpg,8 2 14 2", "b.jpg,", "a.jpg,41 2"]
    folder = _write(tmp_path, dataset, "ImageId,EncodedPixels", rows, ["a.jpg", "b.jpg"])
    assert (tmp_path / "train_ship_segmentations_v2.csv").exists()
    masks = _masks(folder, dataset)
    np.testing.assert_array_equal(masks["a.jpg"][0], _mask((1, 1, 3, 3), (4, 6, 6, 7)))
    assert not masks["b.jpg"].any()
    rows = [("a.jpg", "ship", "8 2 14 2 41 2"), ("b.jpg", "ship", "")]
    assert _submitted(tmp_path, dataset, rows) == [
        "ImageId,EncodedPixels",
        "a.jpg,8 2 14 2",
        "a.jpg,41 2",
        "b.jpg,",
    ]
    (tmp_path / "sample.csv").write_text("ImageId,EncodedPixels\nb.jpg,1 2\na.jpg,1 2\na.jpg,\n")
    wanted = list(read_sample_rows(str(tmp_path / "sample.csv"), dataset))
    assert wanted == [("b.jpg", "ship"), ("a.jpg", "ship")]


def test_tgs_salt_has_ids_without_ending_and_more_files_beside(tmp_path):
    dataset = _dataset("tgs_salt")
    rows = ["575d24d81d,", "a266a2a9df,43 6"]
    images = ["575d24d81d.png", "a266a2a9df.png"]
    folder = _write(tmp_path, dataset, "id,rle_mask", rows, images)
    (tmp_path / "depths.csv").write_text("id,z\n4ac19fb269,306\n")
    (tmp_path / "train" / "masks").mkdir()
    masks = _masks(folder, dataset)
    np.testing.assert_array_equal(masks["a266a2a9df.png"][0], _mask((0, 7, 6, 8)))
    rows = [("575d24d81d.png", "salt", "1 1"), ("a266a2a9df.png", "salt", "")]
    expected = ["id,rle_mask", "575d24d81d,1 1", "a266a2a9df,"]
    assert _submitted(tmp_path, dataset, rows) == expected
    (tmp_path / "train" / "images" / "x.jpg").touch()
    inputs = read_inputs(str(tmp_path / "train" / "images"), None, dataset)
    assert [name for name, _ in inputs.images] == images
    assert inputs.skipped == ("x.jpg: does not end in .png",)


def _relative(mask):
    """The competition's sample code: each start counts from the end of the run before."""
    text, last, position, begins = [], 0, 0, -1
    for pixel in mask.T.ravel().tolist() + [0]:
        if pixel != last:
            if pixel:
                begins, length = position, 0
            else:
                text += [begins, length]
                position = 0
        length = length + 1 if pixel else 0
        last = pixel
        position += 1
    return " ".join(map(str, text))


def test_siim_has_relative_runs_from_0_blanks_and_minus_1(tmp_path):
    dataset = _dataset("siim")
    first, second = _mask((1, 2, 4, 4)), _mask((3, 3, 6, 5))  # they overlap
    assert _relative(first) == "13 3 3 3"
    names = [f"1.2.276.0.{i}" for i in range(3)]
    rows = [
        f"{names[0]}, {_relative(first)}",
        f"{names[1]}, -1",
        f"{names[0]}, {_relative(second)}",
    ]
    rows += [f"{names[2]}, {_relative(_mask((0, 0, 1, 1)))}"]
    images = [f"{name}.png" for name in names]
    folder = _write(tmp_path, dataset, "ImageId, EncodedPixels", rows, images)
    masks = _masks(folder, dataset)
    np.testing.assert_array_equal(masks[images[0]][0], first | second)
    assert not masks[images[1]].any() and masks[images[2]][0].sum() == masks[images[2]][0, 0, 0]
    rows = [(images[0], "pneumothorax", "14 3 20 3"), (images[1], "pneumothorax", "")]
    assert _submitted(tmp_path, dataset, rows) == [
        "ImageId,EncodedPixels",
        f"{names[0]},13 3 3 3",
        f"{names[1]},-1",
    ]


def test_carvana_counts_along_the_rows(tmp_path):
    dataset = _dataset("carvana")
    rows = ["00087a6bd4dc_01.jpg,10 2 18 2", "00087a6bd4dc_02.jpg,1 48"]
    images = ["00087a6bd4dc_01.jpg", "00087a6bd4dc_02.jpg"]
    folder = _write(tmp_path, dataset, "img,rle_mask", rows, images)
    masks = _masks(folder, dataset)
    np.testing.assert_array_equal(masks[images[0]][0], _mask((1, 1, 3, 3)))
    assert masks[images[1]].all()
    rows = [(images[0], "car", "10 2 18 2")]
    assert _submitted(tmp_path, dataset, rows) == ["img,rle_mask", f"{images[0]},10 2 18 2"]


@pytest.mark.parametrize(
    "name, row, message",
    [
        (
            "siim",
            "a, 47 3",
            "line 2: a.png, pneumothorax: .* at most 48 .* .counting pixels from 1",
        ),
        ("siim", "a,-5 3", "line 2: a.png, pneumothorax: .*-5"),
        ("siim", ", 1 2", "line 2: got the image '', expected a file name for pneumothorax"),
        ("tgs_salt", "a,-1", 'line 2: a.png, salt: got .-1.; .* set "absent" in --dataset'),
        ("airbus", "x/a.jpg,", "line 2: got the file name 'x/a.jpg'"),
        ("airbus", "a.jpg,5 3\na.jpg,4 1 2 1", "line 3: a.jpg, ship: pair 2"),
        ("severstal", "a.jpg,5,1 1", "line 2: got the class '5', expected .*1, 2, 3, 4"),
    ],
)
def test_faults_are_named_in_every_layout(tmp_path, name, row, message):
    dataset = _dataset(name)
    path = tmp_path / "train.csv"
    path.write_text(",".join(dataset.columns) + f"\n{row}\n")
    with pytest.raises(ValueError, match=message):
        annotations.read_csv(str(path), dataset)


def test_the_layout_of_clouds_is_stored_as_it_was():
    """Further fields would change the identity of all records."""
    assert list(CLOUDS.to_json()) == [
        "class_names",
        "mask_size",
        "submission_size",
        "label_columns",
        "rle_column",
        "rle_order",
        "gap_brightness",
        "degrees",
    ]
    assert (REPOSITORY / "recipes" / "datasets" / "clouds.json").exists()


def test_masks_of_several_sizes_are_brought_to_one():
    rng = np.random.default_rng(0)
    drawn = {name: rng.random(size) < 0.5 for name, size in (("a", SIZE), ("b", (12, 16)))}
    for order in ("columns", "rows"):
        dataset = dataclasses.replace(_dataset("carvana"), rle_order=order)
        rows = [[name, rle.encode(mask, order).numpy().decode()] for name, mask in drawn.items()]
        table = pd.DataFrame(rows, columns=["filename", "car"])
        sizes = {name: mask.shape for name, mask in drawn.items()}
        found = sources.Annotations(table, sizes, set(drawn), [], [], "").at_mask_size(dataset)
        masks = rle.decode(found["car"].tolist(), SIZE, SIZE, order).numpy()
        np.testing.assert_array_equal(masks[0], drawn["a"])
        small = tf.image.resize(drawn["b"][..., None].astype(np.float32), SIZE, "nearest")
        np.testing.assert_array_equal(masks[1], small[..., 0])
