import json
import os
import shutil

import cv2
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.data import soft_targets
from clouds_tf.data.records import Records
from clouds_tf.data.soft_targets import SoftTargets
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.training import Recipe, train

SIZE, MAP_SIZE = (48, 72), (16, 24)


@pytest.fixture(scope="module")
def records(records_dir):
    return Records.open(records_dir)


@pytest.fixture(scope="module")
def maps(records, once):
    """A folder of random maps of all images."""

    def write(folder):
        os.mkdir(folder)
        names = records.first_names([0, 1, 2])
        values = np.random.default_rng(0).random((len(names), *MAP_SIZE, 4), np.float32)
        soft_targets.write_maps(folder, names, values, MAP_SIZE)
        soft_targets.write_info(folder, CLOUDS, MAP_SIZE, "a test")

    return once("soft_targets", write)


def _targets(records, maps=None, weight=0.5, **settings):
    """Images and targets of an epoch of fold 0 and 1, in its order."""
    soft = SoftTargets.open(maps, weight, records.dataset) if maps else None
    batches = records.training_batches([0, 1], SIZE, 3, 1, soft_targets=soft, **settings)
    return [np.concatenate(parts) for parts in zip(*batches)]


@pytest.mark.slow
def test_maps_are_mixed_into_the_masks(records, maps):
    images, masks = _targets(records, augmentation="none")
    names = records.batch_names([0, 1], len(masks), 0, 0, 0)
    for weight in (0.0, 0.25, 1.0):
        found_images, found = _targets(records, maps, weight, augmentation="none")
        np.testing.assert_array_equal(found_images, images)
        assert found.dtype == np.float32
        for name, mask, target in zip(names, masks, found):
            stacked = cv2.imread(f"{maps}/{name}.png", cv2.IMREAD_UNCHANGED)
            soft = stacked.reshape(4, *MAP_SIZE).transpose(1, 2, 0)
            soft = cv2.resize(soft.astype(np.float32) / 255, SIZE[::-1])
            expected = (1 - weight) * mask + weight * soft
            np.testing.assert_allclose(target, expected, atol=0.51 / 255)


@pytest.mark.slow
def test_they_move_with_the_image(records, maps):
    how = {"augmentation": "strong", "mix": "cutmix"}
    images, masks = _targets(records, **how)
    found_images, found = _targets(records, maps, 0.4, **how)
    np.testing.assert_array_equal(found_images, images)
    # The masks have 0.6 of the targets: so there is no doubt where they are.
    np.testing.assert_array_equal(found >= 0.6, masks)
    kept = _targets(records, maps, 0.4, cache="memory", **how)[1]
    np.testing.assert_array_equal(kept, found)


def test_what_is_wrong_is_named(records, maps, tmp_path):
    copy = shutil.copytree(maps, tmp_path / "maps")
    with pytest.raises(ValueError, match="cache: got disk"):
        _targets(records, maps, cache="disk", cache_dir=str(tmp_path / "c"))
    other = Dataset(("a", "b", "c", "d"), (8, 8), (8, 8))
    with pytest.raises(ValueError, match=r"soft_targets.json: class_names: got \['Fish', .*'a'"):
        SoftTargets.open(maps, 0.5, other)
    name = records.batch_names([0, 1], 1, 0, 0, 0)[0]
    wrong = tf.io.encode_png(np.zeros((64, 20, 1), np.uint8)).numpy()
    (copy / f"{name}.png").write_bytes(wrong)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"{name}.png: expected 64 rows and 24"
    ):
        _targets(records, str(copy))
    (copy / f"{name}.png").unlink()
    for info, message in (
        (None, "has no map of 1 image to train on: " + name),
        ({"version": 2}, "soft_targets.json: version: got 2, expected 1"),
        ({"size": 3}, "soft_targets.json: damaged"),
    ):
        if info:
            content = json.loads((copy / "soft_targets.json").read_text())
            (copy / "soft_targets.json").write_text(json.dumps({**content, **info}))
        recipe = Recipe(soft_targets=str(copy), epochs=1, encoder="tiny")
        with pytest.raises(ValueError, match=message):
            train(records.path, str(tmp_path / "W"), recipe, fold=2)
    with pytest.raises(FileNotFoundError, match="no/soft_targets.json: no such file"):
        SoftTargets.open(str(tmp_path / "no"), 0.5, CLOUDS)
    assert not (tmp_path / "W").exists()


@pytest.mark.slow
def test_a_student_learns_from_them_and_resumes(records, maps, tmp_path):
    settings = {"width": 0.125, "encoder": "tiny", "image_size": (32, 48), "batch_size": 4}
    loss = "bce+semimetric_dice"
    recipe = Recipe(epochs=1, soft_targets=maps, soft_weight=1.0, loss=loss, **settings)
    result = train(records.path, str(tmp_path / "W"), recipe, report=str)
    assert result.run.recipe.soft_weight == 1 and np.isfinite(result.history[0]["loss"])
    # Cross entropy with random targets is no less than their entropy, 1/2; masks have far less.
    assert result.history[0]["loss"] > 0.5
    with pytest.raises(ValueError, match="soft_weight=1.0, got soft_weight=0.5"):
        changed = Recipe(epochs=2, soft_targets=maps, loss=loss, **settings)
        train(records.path, str(tmp_path / "W"), changed, report=str)
