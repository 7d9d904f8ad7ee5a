import dataclasses
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from programs import run_tool

from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_model
from clouds_tf.training import Recipe
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.checkpoints import Checkpoints
from clouds_tf.training.workdir import Run

pytestmark = pytest.mark.lanes

RECIPE = Recipe(width=0.125, image_size=(32, 48), epochs=2)
# As it was written before there were recipes.
OLDER_SETTINGS = {
    "model": {"num_classes": 4, "width": 0.125, "encoder": "resnet34", "classification_head": True},
    "records": "a90a28fa6f3e332e",
    "image_size": [192, 288],
    "fold": 1,
    "epochs": 14,
    "loss": "0.75*bce+0.25*batch_dice",
    "warmup_epochs": 0.0,
    "clip_norm": 5.0,
    "encoder_weights": None,
    "xla": False,
}


def _run(folder, recipe=RECIPE, **data):
    return Run(str(folder), recipe, **{"dataset": CLOUDS, "fold": 0, "records": "abc", **data})


def test_the_same_settings_come_back_and_other_epochs_are_allowed(tmp_path):
    run = _run(tmp_path / "new" / "run")
    workdirs.start(run)
    workdirs.start(run)
    longer = dataclasses.replace(run, recipe=dataclasses.replace(RECIPE, epochs=5))
    workdirs.start(longer)
    assert workdirs.Run.open(run.path) == longer
    workdirs.write_history(run.path, [{"epoch": i, "val_dice": 0.1} for i in (1, 2)])
    workdirs.start(run)  # closed early: both epochs are finished
    workdirs.write_history(run.path, [{"epoch": i, "val_dice": 0.1} for i in (1, 2, 3)])
    with pytest.raises(ValueError, match="with epochs=2, got epochs=1; use at least 3 epochs"):
        workdirs.start(dataclasses.replace(run, recipe=dataclasses.replace(RECIPE, epochs=1)))


def test_the_data_set_comes_back(tmp_path):
    steel = Dataset(("a", "b", "c"), (256, 1600), (128, 800), ("image", "class"), rle_order="rows")
    workdirs.start(_run(tmp_path, dataset=steel))
    assert workdirs.Run.open(str(tmp_path)).dataset == steel


def test_other_settings_are_refused_by_name_and_the_old_ones_stay(tmp_path):
    run = _run(tmp_path)
    workdirs.start(run)
    other = dataclasses.replace(RECIPE, image_size=(64, 96))
    with pytest.raises(ValueError, match=r"image_size=\[32, 48\], got image_size=\[64, 96\]"):
        workdirs.start(_run(tmp_path, other))
    with pytest.raises(ValueError, match="holds a run with fold=0, got fold=1; use the same set"):
        workdirs.start(_run(tmp_path, fold=1))
    assert workdirs.Run.open(str(tmp_path)) == run


def test_settings_of_before_there_were_recipes_are_read(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps(OLDER_SETTINGS))
    run = workdirs.Run.open(str(tmp_path))
    assert run.recipe == Recipe(
        width=0.125,
        classification_head=True,
        image_size=(192, 288),
        epochs=14,
        loss="0.75*bce+0.25*batch_dice",
        clip_norm=5.0,
    )
    assert (run.fold, run.records, run.dataset) == (1, "a90a28fa6f3e332e", CLOUDS)
    workdirs.start(run)  # resumes it


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "damaged, not valid JSON"),
        (json.dumps(OLDER_SETTINGS)[:50], "damaged, not valid JSON"),
        ("[1]", "not the settings of a training run"),
        ('{"learning_rate": 0.1}', "lacks 'fold', so it is not of a training run"),
        ('{"fold": 0, "records": "a", "epochs": -3}', "not .* run: epochs: got -3, expected at"),
        ('{"fold": 0, "records": "a", "model": 3}', "not the settings of a training run"),
        ('{"fold": null, "records": "a"}', "not the settings of a training run"),
    ],
)
def test_damaged_or_foreign_settings_are_named(tmp_path, text, message):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/settings.json: {message}"):
        workdirs.Run.open(str(tmp_path))


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ValueError, match="has files, but no run"):
        workdirs.start(_run(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_best_model_comes_back(tmp_path):
    recipe = dataclasses.replace(RECIPE, encoder="tiny")
    workdirs.start(_run(tmp_path, recipe))
    with pytest.raises(FileNotFoundError, match="checkpoints/best: no checkpoint yet"):
        workdirs.Run.open(str(tmp_path)).load_model()
    model = unet(**recipe.model_arguments())
    Checkpoints(str(tmp_path), model).save_best()
    images = tf.random.stateless_uniform([1, 32, 48, 3], [1, 2], 0, 255)
    expected = model(images)["logits"]
    loaded = workdirs.Run.open(str(tmp_path)).load_model()
    np.testing.assert_array_equal(loaded(images)["logits"], expected)


def test_no_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="settings.json: no such file"):
        workdirs.Run.open(str(tmp_path)).load_model()


def test_history_comes_back(tmp_path):
    assert workdirs.read_history(str(tmp_path)) == []
    rows = [{"epoch": 1, "loss": 0.1234567, "val_dice": 0.1}]
    rows.append({"epoch": 2, "loss": 1e-9, "val_dice": 1 / 3, "val_blank_dice": 0.4})
    workdirs.write_history(str(tmp_path), rows)
    assert workdirs.read_history(str(tmp_path)) == rows
    lines = (tmp_path / "history.csv").read_text().splitlines()
    assert lines[:2] == ["epoch,loss,val_dice,val_blank_dice", "1,0.1234567,0.1,"]


@pytest.mark.parametrize(
    "text, line",
    [
        ("epoch,val_dice\n1,0.5\n2,", 3),
        ("epoch,val_dice\n1,0.5\n2,abc\n", 3),
        ("epoch,val_dice\n1,0.5,7\n", 2),
        ("epoch,val_dice\n2,0.5\n", 2),
        ("PK\x03\x04\nabc\n", 2),
    ],
)
def test_a_damaged_history_is_named_with_its_line(tmp_path, text, line):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ValueError, match=f"history.csv, line {line}: damaged, expected the number"):
        workdirs.read_history(str(tmp_path))


@pytest.mark.slow
def test_other_records_are_refused(make_workdir, records_dir, tmp_path):
    run = workdirs.Run.open(make_workdir())
    run.check_records(Records.open(records_dir))
    others = Records(str(tmp_path), Records.open(records_dir).info, "another")
    with pytest.raises(
        ValueError, match=f"trained on records .* but {tmp_path} has another, so it"
    ):
        run.check_records(others)


@pytest.mark.slow
def test_packed_weights_describe_themselves(make_workdir, tmp_path):
    folder = make_workdir(fold=1)
    path = str(tmp_path / "model.safetensors")
    workdirs.pack_weights(folder, path)
    model, metadata = load_model(path)
    run = workdirs.Run.open(folder)
    assert Dataset.from_json(metadata["dataset"]) == CLOUDS
    assert metadata["image_size"] == list(run.recipe.image_size)
    assert (metadata["fold"], metadata["records"]) == (1, run.records)
    images = tf.random.stateless_uniform([1, 32, 48, 3], [1, 2], 0, 255)
    expected = workdirs.Run.open(folder).load_model()
    for weight in expected.weights:
        if len(weight.shape) > 1:  # kernels travel in float16
            weight.assign(weight.numpy().astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(model(images)["logits"], expected(images)["logits"])
    with pytest.raises(ValueError, match="expected a path that ends in .safetensors"):
        workdirs.pack_weights(folder, str(tmp_path / "model.h5"))


@pytest.mark.slow
def test_pack_weights_takes_kernels_in_8_bits(make_workdir, tmp_path):
    folder, sizes = make_workdir(), {}
    for kernels in ("float16", "int8"):
        path = tmp_path / f"{kernels}.safetensors"
        flags = f"--workdir={folder}", f"--output={path}", f"--kernels={kernels}"
        assert run_tool("pack_weights", *flags).returncode == 0
        sizes[kernels] = path.stat().st_size
        expected = workdirs.Run.open(folder).load_model()
        loaded, _ = load_model(str(path))
        for left, right in zip(loaded.get_weights(), expected.get_weights()):
            np.testing.assert_allclose(left, right, atol=0.01 * np.abs(right).max())
    assert sizes["int8"] < sizes["float16"]
    with pytest.raises(ValueError, match="kernels: got int4, expected one of float16, int8"):
        workdirs.pack_weights(folder, str(tmp_path / "model.safetensors"), "int4")
    assert sorted(os.listdir(tmp_path)) == ["float16.safetensors", "int8.safetensors"]
