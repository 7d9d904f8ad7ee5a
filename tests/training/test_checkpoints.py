import math
import shutil

import numpy as np
import pytest
import tensorflow as tf
from program import network, trainer

from clouds_tf.keras import keras
from clouds_tf.training.checkpoints import Checkpoints, restore_best

pytestmark = pytest.mark.lanes


def _files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("ckpt-*")}


def test_no_file_of_a_checkpoint_is_written_twice(tmp_path):
    folder = tmp_path / "checkpoints" / "best"
    names = []
    for _ in range(3):  # each resumes, as it were
        Checkpoints(str(tmp_path), network()).save_best()
        assert not set(names) & set(_files(folder))
        names += _files(folder)
    assert sorted({name.split(".")[0] for name in names}) == ["ckpt-1", "ckpt-2", "ckpt-3"]


def test_an_unfinished_checkpoint_keeps_its_number_and_the_best_stays(tmp_path):
    model = network()
    Checkpoints(str(tmp_path), model).save_best()
    folder = tmp_path / "checkpoints" / "best"
    (folder / "ckpt-2.data-00000-of-00001").write_bytes(b"half")
    expected = [weight.numpy() for weight in model.weights]
    model.set_weights([value + 1 for value in expected])
    restore_best(model, str(tmp_path))
    for found, right in zip(model.weights, expected):
        np.testing.assert_array_equal(found, right)
    Checkpoints(str(tmp_path), model).save_best()
    assert tf.train.latest_checkpoint(str(folder)).endswith("ckpt-3")


def test_an_epoch_that_is_done_again_replaces_its_checkpoint(tmp_path):
    model = network()
    for epochs in ((1, 2, 3), (3, 4)):
        checkpoints = Checkpoints(str(tmp_path), model, num_epochs=2)
        for epoch in epochs:
            checkpoints.save_epoch(epoch)
    assert checkpoints.last_epochs() == [3, 4]
    for path in checkpoints.epoch_paths([3, 4]):
        tf.train.Checkpoint(model=model).restore(path).assert_existing_objects_matched()


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("size", [0, 20])
def test_a_damaged_checkpoint_is_named(tmp_path, ending, size):
    run = trainer()
    checkpoints = Checkpoints(str(tmp_path), run.model, run)
    checkpoints.save_best()
    checkpoints.save_last()
    for folder in ("best", "last"):
        path = tmp_path / "checkpoints" / folder / f"ckpt-1{ending}"
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="checkpoints/best/ckpt-1: damaged checkpoint"):
        restore_best(run.model, str(tmp_path))
    with pytest.raises(ValueError, match="checkpoints/last/ckpt-1: damaged checkpoint"):
        checkpoints.restore_last([])


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    Checkpoints(str(tmp_path), keras.Sequential([keras.layers.Dense(1)])).save_best()
    with pytest.raises(ValueError, match="ckpt-1: not a checkpoint of the model in settings.json"):
        restore_best(network(), str(tmp_path))


def test_the_best_score_of_a_checkpoint_of_before_it_was_float64_is_read(tmp_path):
    older = trainer()
    older.best_score = tf.Variable(0.1, trainable=False)  # float32, as it was
    older.epoch.assign(2)
    Checkpoints(str(tmp_path), older.model, older).save_last()
    for scores, expected in (([0.05, 0.1], 0.1), ([0.05, 0.2], float(np.float32(0.1)))):
        run = trainer()
        assert run.best_score.numpy() == -math.inf
        checkpoints = Checkpoints(str(tmp_path), run.model, run)
        checkpoints.restore_last([{"val_dice": score} for score in scores])
        assert run.best_score.dtype == tf.float64 and run.best_score.numpy() == expected
        assert run.epoch.numpy() == 2
    checkpoints.save_last()  # as float64 from now on
    again = trainer()
    Checkpoints(str(tmp_path), again.model, again).restore_last([])
    assert again.best_score.numpy() == expected


def test_a_first_save_that_was_killed_is_no_reason_to_stop(tmp_path):
    run = trainer()
    Checkpoints(str(tmp_path), run.model, run).restore_last([{"val_dice": 0.1}])
    shutil.rmtree(tmp_path)
    Checkpoints(str(tmp_path), run.model, run).restore_last([])
