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


def test_the_state_of_another_version_is_refused_with_advice(tmp_path):
    older = trainer()
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=older.model, state=older), str(tmp_path / "A/checkpoints/last"), 1
    ).save()  # without the version of the order, as it was
    newer = trainer()
    newer.order.assign_add(1)
    Checkpoints(str(tmp_path / "B"), newer.model, newer).save_last()
    for folder in (tmp_path / "A", tmp_path / "B"):
        run = trainer()
        with pytest.raises(ValueError, match=f"another version.*--init_checkpoint={folder}"):
            Checkpoints(str(folder), run.model, run).restore_last([])


def test_a_first_save_that_was_killed_is_no_reason_to_stop(tmp_path):
    run = trainer()
    Checkpoints(str(tmp_path), run.model, run).restore_last([{"val_dice": 0.1}])
    shutil.rmtree(tmp_path)
    Checkpoints(str(tmp_path), run.model, run).restore_last([])
