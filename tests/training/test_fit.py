import functools

import numpy as np
import pytest
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf.data import input_pipeline
from clouds_tf.models.unet import unet
from clouds_tf.training import distribution
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.fit import compile_model, fit

FOLDS, HELD_OUT = [1, 2], [0]
BATCH_SIZE = 3


def _run(records_dir, workdir, epochs, learning_rate=1e-3):
    """A run as tools/train makes it."""
    distribution.set_seed(0)
    model = unet(width=0.125)
    compile_model(model, learning_rate=learning_rate)
    history = fit(
        model,
        functools.partial(
            input_pipeline.training_batches, records_dir, FOLDS, IMAGE_SIZE, BATCH_SIZE, epochs, 0
        ),
        input_pipeline.validation_batches(records_dir, HELD_OUT, IMAGE_SIZE, BATCH_SIZE),
        str(workdir),
        epochs,
        input_pipeline.steps_per_epoch(records_dir, FOLDS, BATCH_SIZE),
    )
    return model, history


@pytest.fixture(scope="module")
def undisturbed(records_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return _run(records_dir, folder, epochs=3), folder


def test_the_loss_falls_and_everything_is_written(undisturbed):
    (_, history), folder = undisturbed
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"val_loss", "val_dice", "val_dice_Fish", "val_dice_Sugar"} <= set(history[0])
    names = {path.name for path in folder.iterdir()}
    assert {"history.csv", "curves.png", "checkpoints", "tensorboard"} <= names
    assert len(workdirs.read_history(str(folder))) == 3


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(undisturbed, records_dir, tmp_path):
    (model, history), _ = undisturbed
    _, first = _run(records_dir, tmp_path, epochs=2)
    assert len(first) == 2
    resumed_model, resumed = _run(records_dir, tmp_path, epochs=3)
    assert [row["epoch"] for row in resumed] == [1, 2, 3]
    for one, other in zip(model.weights, resumed_model.weights):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4, err_msg=one.name)
    assert resumed[2]["val_loss"] == pytest.approx(history[2]["val_loss"], rel=1e-3)


def test_a_finished_run_is_left_alone(undisturbed, records_dir):
    (model, history), folder = undisturbed
    before = (folder / "history.csv").read_text()
    again, rows = _run(records_dir, folder, epochs=3)
    assert len(rows) == 3 and (folder / "history.csv").read_text() == before
    for one, other in zip(model.weights, again.weights):
        np.testing.assert_array_equal(one, other)


def test_the_best_epoch_is_the_one_that_is_loaded(undisturbed, records_dir):
    (_, history), folder = undisturbed
    (folder / "settings.json").write_text('{"model": {"width": 0.125}}')
    model = workdirs.load_model(str(folder))
    compile_model(model)
    validation = input_pipeline.validation_batches(records_dir, HELD_OUT, IMAGE_SIZE, BATCH_SIZE)
    score = model.evaluate(validation, verbose=0, return_dict=True)["dice"]
    assert score == pytest.approx(max(row["val_dice"] for row in history), abs=1e-5)


def test_a_loss_that_is_not_finite_stops_with_a_clear_error(records_dir, tmp_path):
    with pytest.raises(ValueError, match="loss is nan in epoch .*learning_rate"):
        _run(records_dir, tmp_path, epochs=2, learning_rate=float("nan"))


def test_the_metric_is_of_masks_at_the_submission_size(records_dir):
    validation = input_pipeline.validation_batches(records_dir, HELD_OUT, IMAGE_SIZE, BATCH_SIZE)
    assert validation.element_spec[1].shape == tf.TensorShape([None, 350, 525, 4])
