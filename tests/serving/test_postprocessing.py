import json

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.serving import postprocessing
from clouds_tf.serving.postprocessing import PLAIN, postprocess

THRESHOLDS, MIN_AREAS = [0.2, 0.5, 0.5, 0.9], [0, 10, 60, 1]


def _by_hand(probabilities, thresholds, min_areas):
    """The same with numpy, a mask at a time."""
    masks = np.zeros(probabilities.shape, np.uint8)
    for b, _, _, c in np.ndindex(probabilities.shape[0], 1, 1, probabilities.shape[3]):
        mask = probabilities[b, :, :, c] > np.float32(thresholds[c])
        if mask.sum() >= min_areas[c]:
            masks[b, :, :, c] = mask
    return masks


def test_equals_the_same_done_by_hand_everywhere():
    probabilities = np.random.default_rng(0).random((6, 10, 11, 4), np.float32)
    probabilities[3:] *= 0.6
    expected = _by_hand(probabilities, THRESHOLDS, MIN_AREAS)
    assert expected.any(axis=(1, 2)).mean() not in (0, 1)
    masks = postprocess(tf.constant(probabilities), THRESHOLDS, MIN_AREAS)
    assert masks.dtype == tf.uint8
    function = tf.function(lambda x: postprocess(x, THRESHOLDS, MIN_AREAS))
    dataset = tf.data.Dataset.from_tensors(probabilities).map(function)
    for result in (masks, function(probabilities), next(iter(dataset))):
        np.testing.assert_array_equal(result, expected)


def test_a_mask_of_just_the_least_area_stays():
    probabilities = np.zeros((1, 4, 4, 4), np.float32)
    probabilities[0, 0, :3] = 0.8
    assert postprocess(probabilities, [0.5] * 4, [3] * 4).numpy().sum() == 12
    assert postprocess(probabilities, [0.5] * 4, [4] * 4).numpy().sum() == 0


def test_plain_is_a_cut_at_one_half():
    probabilities = np.random.default_rng(1).random((2, 5, 6, 4), np.float32)
    np.testing.assert_array_equal(postprocess(probabilities, **PLAIN), probabilities > 0.5)


def test_settings_come_back(tmp_path):
    path = str(tmp_path / "p.json")
    postprocessing.write_settings(path, THRESHOLDS, MIN_AREAS, folds=[0, 1], scores={"plain": 0.5})
    settings = postprocessing.read_settings(path)
    assert settings == {"thresholds": THRESHOLDS, "min_areas": MIN_AREAS}
    with open(path) as file:
        content = json.load(file)
    assert content["classes"]["Gravel"] == {"threshold": 0.5, "min_area": 60}
    assert content["size"] == [350, 525] and content["folds"] == [0, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema_version": 0}, r"schema_version: got 0, expected [1-9]"),
        ({"size": [1400, 2100]}, r"size: got \[1400, 2100\], expected \[350, 525\]"),
        ({"classes": {"Cirrus": {}}}, r"classes: got \['Cirrus'\], expected \['Fish'"),
        ({"classes": 3}, "not a postprocessing.json"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, message):
    path = tmp_path / "p.json"
    postprocessing.write_settings(str(path), THRESHOLDS, MIN_AREAS)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=f"p.json: {message}"):
        postprocessing.read_settings(str(path))


def test_what_is_not_json_is_refused(tmp_path):
    (tmp_path / "p.json").write_text("threshold: 0.5")
    with pytest.raises(ValueError, match="p.json: not a postprocessing.json"):
        postprocessing.read_settings(str(tmp_path / "p.json"))
    with pytest.raises(FileNotFoundError, match="q.json: no such file"):
        postprocessing.read_settings(str(tmp_path / "q.json"))
