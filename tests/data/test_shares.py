"""Soft targets from the boxes of several people, against numpy."""

import os
import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import run_tool

from clouds_tf.data import soft_targets
from clouds_tf.data.labellers import COLUMNS, read_boxes
from clouds_tf.data.records import Records
from clouds_tf.data.soft_targets import SoftTargets
from clouds_tf.dataset import CLOUDS
from clouds_tf.models.losses import presence_bce
from clouds_tf.training import Recipe
from clouds_tf.training.runs import make_feed
from clouds_tf.training.workdir import Run

SIZE = (1400, 2100)


def _write(path, rows, columns=COLUMNS):
    path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def records(records_dir):
    return Records.open(records_dir)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 3),
            *[st.integers(-100, 1300), st.integers(-100, 2000), st.integers(1, 900)],
        ),
        min_size=1,
        max_size=6,
    )
)
def test_shares_are_those_of_painted_boxes(tmp_path_factory, boxes):
    boxes = [box for box in boxes if box[2] + box[4] > 0 and box[3] + box[4] > 0]
    rows = ["a.jpg,nobody,,,,,"]
    people = {"nobody"}
    for person, label, top, left, side in boxes:
        name, people = CLOUDS.class_names[label], people | {person}
        rows.append(f"a.jpg,{person},{name},{left},{top},{left + side},{top + side}")
    views = read_boxes(_write(tmp_path_factory.mktemp("b") / "b.csv", rows), CLOUDS, SIZE)["a.jpg"]
    found = views.shares((70, 105), 4)
    y, x = np.mgrid[10:1400:20, 10:2100:20]
    expected = np.zeros((70, 105, 4))
    for some in people - {"nobody"}:
        marked = np.zeros((70, 105, 4), bool)
        for person, label, top, left, side in boxes:
            inside = (y >= top) & (y < top + side) & (x >= left) & (x < left + side)
            marked[..., label] |= inside & (person == some)
        expected += marked / len(people)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture(scope="module")
def shares(records, once, tmp_path_factory):
    """Maps of two images: half of the people gave all of one to Fish; three of four the other."""
    first, second = records.first_names([0, 1])[:2]
    rows = [f"{first},ann,Fish,0,0,100,50", f"{first},bob,,,,,"]
    rows += [f"{second},{person},Fish,0,0,100,50" for person in ("ann", "bob", "cid")]
    rows += [f"{second},dan,Sugar,0,0,50,50", "other.jpg,ann,,,,,"]
    boxes = _write(tmp_path_factory.mktemp("boxes") / "boxes.csv", rows)

    def write(folder):
        flags = f"--boxes={boxes}", f"--records_dir={records.path}", f"--output_dir={folder}"
        done = run_tool("make_soft_targets", *flags, "--box_size=50,100")
        assert done.returncode == 0, done.stderr
        for said in (f"2 maps to {folder};", "10 images without", "1 image of", "outside the mask"):
            assert said in done.stdout

    return once("shares", write)


@pytest.mark.slow
def test_the_tool_writes_shares_within_the_masks(records, shares):
    names = records.first_names([0, 1])[:2]
    assert sorted(os.listdir(shares)) == sorted([*(f"{n}.png" for n in names), "soft_targets.json"])
    height, width = soft_targets.map_size(CLOUDS)
    masks = np.concatenate([m for _, m in records.held_out_batches([0, 1], (32, 48), 4)])
    for name, mask, fish, sugar in zip(names, masks, (0.5, 0.75), (0, 0.25)):
        stacked = cv2.imread(f"{shares}/{name}.png", cv2.IMREAD_UNCHANGED)
        expected = mask * np.float32([fish, 0, 0, sugar])
        expected[:, 263:] *= [1, 1, 1, 0]
        expected = cv2.resize(expected, (width, height), interpolation=cv2.INTER_AREA)
        found = stacked.reshape(4, height, width).transpose(1, 2, 0) / 255
        np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.slow
def test_images_without_boxes_learn_from_their_masks(records, shares):
    soft = SoftTargets.open(shares, 1.0, CLOUDS)
    folds, size = [0, 1], (48, 72)
    names = records.batch_names(folds, 20, 0, 0, 0)
    hard, found = (
        np.concatenate(
            [
                batch[1]
                for batch in records.training_batches(
                    folds, size, 20, 1, augmentation="none", **more
                )
            ]
        )
        for more in ({}, {"soft_targets": soft})
    )
    for name, mask, target in zip(names, hard, found):
        same = np.array_equal(mask, target)
        assert same == (f"{name}.png" not in soft.names) or not mask.any()


@pytest.mark.slow
def test_presence_is_learned_as_the_share_of_people_who_saw_the_class(records, shares):
    soft = SoftTargets.open(shares, 1.0, CLOUDS)
    names = records.first_names([0, 1])[:2]
    everywhere = np.ones((2, 64, 96, 4), np.uint8)
    masks = np.stack([soft._read(name, mask) for name, mask in zip(names, everywhere)]) / 255
    truths = np.concatenate([m for _, m in records.held_out_batches([0, 1], (32, 48), 4)])[:2]
    share = truths.any((1, 2)) * np.float64([[0.5, 0, 0, 0], [0.75, 0, 0, 0.25]])
    share[1, 3] *= truths[1, :, :262, 3].any()
    assert share.any()
    logits = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    q = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(share * np.log(q) + (1 - share) * np.log(1 - q)).mean(1)
    np.testing.assert_allclose(presence_bce(masks, logits), expected, atol=0.01)


@pytest.mark.slow
def test_a_training_says_how_many_images_have_no_map(records, shares, tmp_path):
    recipe = Recipe(soft_targets=shares, epochs=1, encoder="tiny")
    lines = []
    make_feed(records, Run("", recipe, CLOUDS, 2, records.identity), report=lines.append)
    number = len(records.first_names([0, 1]))
    assert lines[0].startswith(f"soft_targets: {number - 2} of {number} images have no map in")
    soft_targets.write_info(str(tmp_path), CLOUDS, (88, 132), "nothing", partial=True)
    with pytest.raises(ValueError, match=f"{tmp_path} has no map of {number} images"):
        SoftTargets.open(str(tmp_path), 1.0, CLOUDS).check(records.first_names([0, 1]))


@pytest.mark.parametrize(
    "row, message",
    [
        ("a.jpg,ann,Cirrus,0,0,5,5", "line 3: a.jpg: label: got 'Cirrus', expected one of Fish"),
        ("a.jpg,ann,Fish,0,0,5,", "line 3: a.jpg: got 0, 0, 5, , expected numbers"),
        ("a.jpg,ann,,0,0,5,5", "line 3: a.jpg: label: got ''"),
        ("a.jpg,ann,Fish,5,0,5,5", "line 3: a.jpg: got 5, 0, 5, 5, expected x1 < x2"),
        ("a.jpg,ann,Fish,0,1400,5,1500", "expected .* an area within 1400x2100"),
        ("a.jpg,ann,Fish,nan,0,5,5", "line 3: a.jpg: got nan, 0, 5, 5, expected"),
        ("a.jpg,,Fish,0,0,5,5", "line 3: expected an image and a person"),
        ("b.jpg,bob,,,,,", "line 3: person bob saw nothing, but drew a box"),
    ],
)
def test_faulty_rows_are_named(tmp_path, row, message):
    path = _write(tmp_path / "boxes.csv", ["b.jpg,bob,Fish,0,0,5,5", row])
    with pytest.raises(ValueError, match=f"boxes.csv, {message}" if "line" in message else message):
        read_boxes(path, CLOUDS, SIZE)


def test_what_cannot_be_used_leaves_nothing(records, tmp_path):
    boxes = _write(tmp_path / "boxes.csv", ["b.jpg,bob,Fish,0,0,5,5"])
    flags = f"--boxes={boxes}", f"--records_dir={records.path}"
    for folder, message in (("S", "none of its images is in .*b.jpg"), ("", "is not empty")):
        done = run_tool("make_soft_targets", *flags, f"--output_dir={tmp_path / folder}")
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert re.search(message, done.stderr)
    assert os.listdir(tmp_path) == ["boxes.csv"]
    with pytest.raises(ValueError, match="no column 'person'"):
        read_boxes(_write(tmp_path / "c.csv", ["a"], ["image"]), CLOUDS, SIZE)
