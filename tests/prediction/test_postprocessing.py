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
    plain_rules,
    postprocess,
)

pytestmark = pytest.mark.lanes

RULES = (
    Rule(0.2),
    Rule(0.01, 0.6, 0.55),
    Rule(0.5, 0.4, 0.7),
    Rule(0.3, 0.9),
)


def _by_hand(probabilities, rules, filled):
    """The same, a mask at a time."""
    masks = np.zeros(probabilities.shape, bool)
    for b, c in np.ndindex(len(probabilities), len(rules)):
        rule, p = rules[c], probabilities[b, :, :, c]
        number = max(1, round(round(0.005 * p.size) * filled[b]))
        mean = np.sort(p, axis=None)[-number:].mean(dtype=np.float64)
        if mean >= rule.min_top_mean:
            limit = max(rule.threshold, round(rule.relative_threshold * mean, 2))
            masks[b, :, :, c] = p > np.float32(limit)
    return masks


def _random_input(num_images=6, size=(40, 61)):
    rng = np.random.default_rng(0)
    probabilities = rng.random((num_images, *size, 4), np.float32)
    probabilities *= np.linspace(0.4, 1, num_images, dtype=np.float32)[:, None, None, None]
    # Numbers on a threshold fall on one side in every library.
    probabilities[-1, 0, :99, 0] = np.arange(1, 62)[:99] / 100
    return probabilities


@pytest.mark.parametrize("filled", [np.ones(6), np.linspace(0, 1, 6)], ids=["whole", "in part"])
def test_masks_are_those_by_hand_everywhere(filled):
    probabilities, filled = _random_input(), filled.astype(np.float32)
    expected = _by_hand(probabilities, RULES, filled)
    shares = expected.any(axis=(1, 2)).mean(axis=0)
    assert shares[[0, 3]].tolist() == [1, 1] and (0 < shares[1:3]).all() and (shares[1:3] < 1).all()
    function = tf.function(lambda x, y: postprocess(x, RULES, filled=y))
    dataset = tf.data.Dataset.from_tensors((probabilities, filled)).map(function)
    eager = postprocess(probabilities, RULES, filled=filled)
    for result in (eager, function(probabilities, filled), next(iter(dataset))):
        assert result.dtype == tf.bool
        np.testing.assert_array_equal(result, expected)


def test_a_whole_image_is_the_default():
    probabilities = _random_input()
    found = [postprocess(probabilities, RULES, **x) for x in ({}, {"filled": np.ones(6, "f")})]
    np.testing.assert_array_equal(*found)


def test_no_image_gives_no_mask():
    assert postprocess(tf.zeros([0, 20, 31, 4]), RULES).shape == (0, 20, 31, 4)


def test_a_class_on_the_limit_is_present():
    probabilities = np.zeros((1, 20, 20, 4), np.float32)
    probabilities[0, 0, :2] = [[0.75], [0.25]]  # the two most probable of 400 pixels
    for least, area in ((0.5, 1), (0.51, 0)):
        masks = postprocess(probabilities, (Rule(0.4, 0, least),) * 4)
        assert masks.numpy().sum() == 4 * area


def test_plain_is_a_cut_at_one_half():
    probabilities = _random_input()
    np.testing.assert_array_equal(postprocess(probabilities, plain_rules(4)), probabilities > 0.5)


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
        "relative_threshold": 0.4,
        "min_top_mean": 0.7,
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


def test_a_file_of_version_3_is_read_where_it_cuts_only(tmp_path):
    """As it was written before calibration, workdirs included."""
    rule = {"threshold": 0.45, "top_threshold": 0.45, "min_area": 0, "min_presence": 0.0}
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
        (Rule(0.45),) * 4, "none", ("W",), report={"metric": "competition Dice"}
    )
    rule["min_area"] = 9000
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="p.json: Fish: min_area: got 9000, .*run evaluate"):
        postprocessing.read_postprocessing(str(tmp_path / "p.json"), CLOUDS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": 0}, r"version: got 0, expected 3 to 5; run evaluate"),
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
        ("min_top_mean", "high", "min_top_mean: got 'high', expected a number in"),
        ("relative_threshold", -1, "relative_threshold: got -1, expected a number in"),
        ("min_presence", 0.5, "min_presence: got 0.5, which is no longer supported"),
        ("min_component_area", 500, "min_component_area: got 500, which is no longer supported"),
        ("fill", "boxes", "fill: got 'boxes', which is no longer supported"),
        ("remove_gap", True, "remove_gap: got True, which is no longer supported"),
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
    with pytest.raises(ValueError, match="rules: got 2, expected one for each of 4 classes"):
        postprocess(_random_input(), RULES[:2])
