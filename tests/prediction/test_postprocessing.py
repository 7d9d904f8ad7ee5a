import dataclasses
import json

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import real_data

from clouds_tf import rle
from clouds_tf.data import annotations
from clouds_tf.data.preprocessing import decode_image
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction import postprocessing
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.postprocessing import Postprocessing, Rule, plain_rules, postprocess

RULES = (
    Rule(0.2, 0.2, 0),
    Rule(0.5, 0.7, 10, 0.5),
    Rule(0.5, 0.5, 60, 0.0, min_component_area=6, fill="holes"),
    Rule(0.8, 0.9, 1, 0.3, min_component_area=2, fill="boxes", remove_gap=True),
)


def _components(mask):
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return labels, stats


def _by_opencv(probabilities, presence, images, rules):
    """The same with OpenCV and numpy, a mask at a time."""
    masks = np.zeros(probabilities.shape, np.uint8)
    for b, c in np.ndindex(len(probabilities), len(rules)):
        rule, p = rules[c], probabilities[b, :, :, c]
        if (p > np.float32(rule.top_threshold)).sum() < rule.min_area:
            continue
        if presence[b, c] < np.float32(rule.min_presence):
            continue
        mask = np.uint8(p > np.float32(rule.threshold))
        labels, stats = _components(mask)
        for label, area in enumerate(stats[:, cv2.CC_STAT_AREA]):
            if area < rule.min_component_area:
                mask[labels == label] = 0
        if rule.fill == "holes":
            outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
        elif rule.fill == "boxes":
            for x, y, width, height, _ in _components(mask)[1][1:]:
                mask[y : y + height, x : x + width] = 1
        if rule.remove_gap:
            black = images[b].max(axis=2) <= 2
            y, x = (
                ((np.arange(target) + 0.5) * source / target).astype(int)
                for target, source in zip(p.shape, black.shape)
            )
            mask[black[np.ix_(y, x)]] = 0
        masks[b, :, :, c] = mask
    return masks


def _random_input(num_images=6, size=(20, 31), image_size=(13, 17)):
    rng = np.random.default_rng(0)
    probabilities = rng.random((num_images, *size, 4), np.float32)
    probabilities[num_images // 2 :] *= 0.6
    presence = rng.random((num_images, 4), np.float32)
    images = rng.integers(0, 5, (num_images, *image_size, 3), np.uint8)
    return probabilities, presence, images


def test_equals_opencv_and_numpy_everywhere():
    inputs = _random_input()
    expected = _by_opencv(*inputs, RULES)
    assert (expected.any(axis=(1, 2)).mean(axis=0) > 0).all()
    masks = postprocess(*map(tf.constant, inputs), RULES, 2)
    assert masks.dtype == tf.uint8
    function = tf.function(lambda *x: postprocess(*x, RULES, 2))
    dataset = tf.data.Dataset.from_tensors(inputs).map(function)
    for result in (masks, function(*inputs), next(iter(dataset))):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"top_threshold": 0.7, "min_area": 5000},
        {"min_component_area": 2000},
        {"fill": "holes"},
        {"fill": "boxes"},
        {"fill": "boxes", "remove_gap": True},
        {"min_component_area": 500, "fill": "holes", "remove_gap": True},
    ],
    ids=str,
)
def test_equals_opencv_and_numpy_on_real_masks(fields):
    folder = real_data("clouds_small")
    table = annotations.read_rows(str(folder / "train.csv"), CLOUDS).head(16)
    truth = rle.decode(table["rle"].tolist(), (1400, 2100), (350, 525)).numpy()
    truth = truth.reshape(4, 4, 350, 525).transpose(0, 2, 3, 1)
    # Real outlines, ragged as those of a network are.
    noise = np.random.default_rng(0).random(truth.shape, np.float32)
    coarse = [cv2.resize(n, (105, 70)) for n in noise]
    noise = np.stack([cv2.resize(n, (525, 350), interpolation=cv2.INTER_CUBIC) for n in coarse])
    probabilities = np.float32(np.clip(0.5 * truth + 0.6 * noise, 0, 1))
    images = [
        decode_image(tf.io.read_file(str(folder / "train_images" / name)), (192, 288)).numpy()
        for name in table["filename"].unique()
    ]
    inputs = probabilities, probabilities.max(axis=(1, 2)), np.stack(images)
    rules = (Rule(**fields), dataclasses.replace(Rule(threshold=0.3), **fields)) * 2
    expected = _by_opencv(*inputs, rules)
    assert expected.any()
    np.testing.assert_array_equal(postprocess(*inputs, rules, 2), expected)


def test_no_image_gives_no_mask():
    inputs = [tf.constant(x[:0]) for x in _random_input()]
    assert postprocess(*inputs, RULES, 2).shape == (0, 20, 31, 4)


def test_a_mask_of_just_the_least_area_stays():
    probabilities = np.zeros((1, 4, 4, 4), np.float32)
    probabilities[0, 0, :3] = 0.8
    presence, images = np.ones((1, 4), np.float32), np.zeros((1, 4, 4, 3), np.uint8)
    for min_area, area in ((3, 3), (4, 0)):
        masks = postprocess(probabilities, presence, images, (Rule(min_area=min_area),) * 4)
        assert masks.numpy().sum() == 4 * area


def test_plain_is_a_cut_at_one_half():
    probabilities, presence, images = _random_input()
    masks = postprocess(probabilities, presence, images, plain_rules(4))
    np.testing.assert_array_equal(masks, probabilities > 0.5)


WHOLE = Postprocessing(
    RULES,
    test_time_augmentation="flips",
    workdirs=("W0", "W1"),
    records="0123abcd",
    calibration=Calibration((Curve((0, 0.25, 1), (0, 0.5, 0.75), "platt"),) * 4),
    report={"scores": {"plain": 0.5}},
)


def test_contents_come_back(tmp_path):
    path = str(tmp_path / "p.json")
    postprocessing.write_postprocessing(path, WHOLE, CLOUDS)
    assert postprocessing.read_postprocessing(path, CLOUDS) == WHOLE
    assert postprocessing.read_rules(path, CLOUDS) == RULES
    with open(path) as file:
        content = json.load(file)
    assert content["classes"]["Gravel"] == {
        "threshold": 0.5,
        "top_threshold": 0.5,
        "min_area": 60,
        "min_presence": 0.0,
        "min_component_area": 6,
        "fill": "holes",
        "remove_gap": False,
    }
    assert content["size"] == [350, 525] and content["scores"] == {"plain": 0.5}
    assert content["calibration"]["Fish"] == {
        "method": "platt",
        "knots": [[0, 0], [0.25, 0.5], [1, 0.75]],
    }


def test_classes_and_size_are_those_of_the_data_set(tmp_path):
    path = str(tmp_path / "p.json")
    steel = Dataset(("scratch",), (256, 1600), (64, 400))
    written = Postprocessing((Rule(0.3),))
    postprocessing.write_postprocessing(path, written, steel)
    assert postprocessing.read_postprocessing(path, steel) == written
    with pytest.raises(ValueError, match=r"p.json: size: got \[64, 400\], expected \[350, 525\]"):
        postprocessing.read_rules(path, CLOUDS)


def test_a_file_of_version_3_is_read(tmp_path):
    """As it was written before calibration, workdirs included."""
    rule = {"threshold": 0.45, "top_threshold": 0.45, "min_area": 9000, "min_presence": 0.0}
    rule |= {"min_component_area": 0, "fill": "nothing", "remove_gap": False}
    content = {
        "version": 3,
        "size": [350, 525],
        "classes": dict.fromkeys(CLOUDS.class_names, rule),
        "metric": "competition Dice",
        "workdirs": ["W"],
        "test_time_augmentation": "none",
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert postprocessing.read_postprocessing(str(tmp_path / "p.json"), CLOUDS) == Postprocessing(
        (Rule(0.45, 0.45, 9000),) * 4, "none", ("W",), report={"metric": "competition Dice"}
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 0}, r"version: got 0, expected 3 or 4; run evaluate"),
        ({"size": [1400, 2100]}, r"size: got \[1400, 2100\], expected \[350, 525\]"),
        ({"classes": {"Cirrus": {}}}, r"classes: got \['Cirrus'\], expected \['Fish'"),
        ({"classes": 3}, "not a postprocessing.json"),
        ({"calibration": {"Fish": {}}}, r"calibration: got the classes \['Fish'\], expected"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, message):
    path = tmp_path / "p.json"
    postprocessing.write_postprocessing(str(path), WHOLE, CLOUDS)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=f"p.json: {message}"):
        postprocessing.read_rules(str(path), CLOUDS)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("threshold", 50, r"threshold: got 50, expected a number in \[0, 1\]"),
        ("min_presence", "high", "min_presence: got 'high', expected a number in"),
        ("min_area", -1, "min_area: got -1, expected a number of pixels"),
        ("min_component_area", 0.5, "min_component_area: got 0.5, expected a number of pixels"),
        ("fill", "hull", "fill: got 'hull', expected one of "),
        ("remove_gap", 1, "remove_gap: got 1, expected a boolean"),
        ("colour", 1, "got .*'colour'.*, expected "),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, name, value, message):
    path = tmp_path / "p.json"
    postprocessing.write_postprocessing(str(path), WHOLE, CLOUDS)
    content = json.loads(path.read_text())
    content["classes"]["Flower"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"p.json: Flower: {message}"):
        postprocessing.read_rules(str(path), CLOUDS)


def test_what_is_not_json_is_refused(tmp_path):
    (tmp_path / "p.json").write_text("threshold: 0.5")
    with pytest.raises(ValueError, match="p.json: not a postprocessing.json"):
        postprocessing.read_rules(str(tmp_path / "p.json"), CLOUDS)
    with pytest.raises(FileNotFoundError, match="q.json: no such file"):
        postprocessing.read_rules(str(tmp_path / "q.json"), CLOUDS)


def test_rules_that_cannot_be_applied_are_refused():
    inputs = _random_input()
    with pytest.raises(ValueError, match="rules: got 2, expected one for each of 4 classes"):
        postprocess(*inputs, RULES[:2])
    with pytest.raises(ValueError, match="gap_brightness is None"):
        postprocess(*inputs, RULES)
