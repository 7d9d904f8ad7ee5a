import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction import postprocessing
from clouds_tf.prediction.calibration import Calibration, Curve
from clouds_tf.prediction.postprocessing import (
    Postprocessing,
    Rule,
    counts_as_present,
    find_present,
    plain_rules,
    postprocess,
)

pytestmark = pytest.mark.lanes

RULES = (
    Rule(0.2, 0.2, 0),
    Rule(0.5, 0.7, 10, 0.5),
    Rule(0.5, 0.5, 60),
    Rule(0.8, 0.9, 1, 0.3),
)


def _by_hand(probabilities, presence, rules):
    """The same, a mask at a time."""
    masks = np.zeros(probabilities.shape, bool)
    for b, c in np.ndindex(len(probabilities), len(rules)):
        rule, p = rules[c], probabilities[b, :, :, c]
        large = (p > np.float32(rule.top_threshold)).sum() >= rule.min_area
        if large and presence[b, c] >= np.float32(rule.min_presence):
            masks[b, :, :, c] = p > np.float32(rule.threshold)
    return masks


def _random_input(num_images=6, size=(20, 31)):
    rng = np.random.default_rng(0)
    probabilities = rng.random((num_images, *size, 4), np.float32)
    probabilities[num_images // 2 :] *= 0.6
    # Numbers on a threshold fall on one side in every library.
    probabilities[0, 0, :4] = [[rule.threshold] * 4 for rule in RULES]
    presence = rng.random((num_images, 4), np.float32)
    presence[0] = [rule.min_presence for rule in RULES]
    return probabilities, presence


def test_masks_are_the_same_by_hand_in_numpy_and_in_tensorflow():
    inputs = _random_input()
    expected = _by_hand(*inputs, RULES)
    assert (expected.any(axis=(1, 2)).mean(axis=0) > 0).all()
    function = tf.function(lambda *x: postprocess(*x, RULES))
    dataset = tf.data.Dataset.from_tensors(inputs).map(function)
    tensors = postprocess(*map(tf.constant, inputs), RULES)
    for result in (postprocess(*inputs, RULES), tensors, function(*inputs), next(iter(dataset))):
        assert result.dtype in (bool, tf.bool)
        np.testing.assert_array_equal(result, expected)


def test_areas_on_the_limit_count_as_present_in_every_library():
    areas, presence = np.array([2, 3, 4, 3]), np.float32([0.7, 0.7, 0.7, 0.69])
    for convert in (np.asarray, tf.constant):
        found = counts_as_present(convert(areas), convert(presence), 3, 0.7)
        np.testing.assert_array_equal(found, [False, True, True, False])


def test_minimum_areas_shrink_with_what_there_is_of_an_image():
    probabilities, presence = _random_input()
    rules, filled = [Rule(0.5, 0.5, 150)] * 4, np.linspace(0, 1, len(presence))
    expected = [
        find_present(
            probabilities[i : i + 1],
            presence[i : i + 1],
            [dataclasses.replace(rule, min_area=round(share * rule.min_area)) for rule in rules],
        )[0]
        for i, share in enumerate(filled)
    ]
    found = find_present(probabilities, presence, rules, filled)
    np.testing.assert_array_equal(found, expected)
    assert (found != find_present(probabilities, presence, rules)).any()


def test_no_image_gives_no_mask():
    inputs = [tf.constant(x[:0]) for x in _random_input()]
    assert postprocess(*inputs, RULES).shape == (0, 20, 31, 4)


def test_a_mask_of_just_the_least_area_stays():
    probabilities = np.zeros((1, 4, 4, 4), np.float32)
    probabilities[0, 0, :3] = 0.8
    presence = np.ones((1, 4), np.float32)
    for min_area, area in ((3, 3), (4, 0)):
        masks = postprocess(probabilities, presence, (Rule(min_area=min_area),) * 4)
        assert masks.sum() == 4 * area


def test_plain_is_a_cut_at_one_half():
    probabilities, presence = _random_input()
    masks = postprocess(probabilities, presence, plain_rules(4))
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
    with open(path) as file:
        content = json.load(file)
    assert content["classes"]["Gravel"] == {
        "threshold": 0.5,
        "top_threshold": 0.5,
        "min_area": 60,
        "min_presence": 0.0,
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
        postprocessing.read_postprocessing(path, CLOUDS)


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
        postprocessing.read_postprocessing(str(path), CLOUDS)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("threshold", 50, r"threshold: got 50, expected a number in \[0, 1\]"),
        ("min_presence", "high", "min_presence: got 'high', expected a number in"),
        ("min_area", -1, "min_area: got -1, expected a number of pixels"),
        ("min_component_area", 500, "min_component_area: got 500, which is not applied any more"),
        ("fill", "boxes", "fill: got 'boxes', which is not applied any more"),
        ("remove_gap", True, "remove_gap: got True, which is not applied any more"),
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
        postprocessing.read_postprocessing(str(path), CLOUDS)


def test_what_is_not_json_is_refused(tmp_path):
    (tmp_path / "p.json").write_text("threshold: 0.5")
    with pytest.raises(ValueError, match="p.json: not a postprocessing.json"):
        postprocessing.read_postprocessing(str(tmp_path / "p.json"), CLOUDS)
    with pytest.raises(FileNotFoundError, match="q.json: no such file"):
        postprocessing.read_postprocessing(str(tmp_path / "q.json"), CLOUDS)


def test_rules_that_cannot_be_applied_are_refused():
    inputs = _random_input()
    with pytest.raises(ValueError, match="rules: got 2, expected one for each of 4 classes"):
        postprocess(*inputs, RULES[:2])
