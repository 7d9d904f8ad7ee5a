"""`train` and `train_folds` as a notebook calls them, without a program."""

import json
import re
import shutil

import numpy as np
import pytest
from programs import TOOLS, run_program

from clouds_tf import locks
from clouds_tf.data.records import Records
from clouds_tf.keras import keras
from clouds_tf.models import weights
from clouds_tf.models.unet import unet
from clouds_tf.training import (
    Execution,
    Recipe,
    distribution,
    folds_table,
    runs,
    train,
    train_folds,
)
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.checks import check_memory, check_start
from clouds_tf.training.workdir import Run

pytestmark = [pytest.mark.slow, pytest.mark.lanes, pytest.mark.usefixtures("shallow")]

SIZES = {"width": 0.0625, "image_size": (32, 48), "batch_size": 4}
RECIPE = Recipe(epochs=1, optimizer="sgd", precision="bfloat16", **SIZES)


@pytest.fixture(scope="module")
def result(shallow, records_dir, tmp_path_factory):
    lines, steps, started = [], [], []
    workdir = str(tmp_path_factory.mktemp("train") / "W")
    found = train(
        records_dir,
        workdir,
        RECIPE,
        fold=1,
        on_start=started.append,
        progress=lambda done, total: steps.append((done, total)),
        report=lines.append,
    )
    assert started == [workdir]
    assert steps == [(1, 2), (2, 2)]
    assert lines[0].startswith("training from epoch 1 of 1, 2 steps each, on 1 CPU; ")
    assert lines[1].startswith("epoch   1/1  loss ")
    return found


def test_a_result_tells_what_was_achieved(result, records_dir):
    assert result.best_epoch == 1 and len(result.history) == 1
    assert result.best_score == result.history[0]["val_dice"]
    masks = [
        mask.numpy() for _, mask in Records.open(records_dir).held_out_batches([1], (32, 48), 4)
    ]
    present = np.concatenate(masks).any(axis=(1, 2))
    assert result.blank_score == pytest.approx(1 - present.mean(), abs=1e-6)
    assert re.fullmatch(
        r"Trained 1 epoch; best held-out Dice 0\.\d{4} in epoch 1 \(chosen on the same held-out "
        r"images; all blank: 0\.\d{4}\); workdir .*/W",
        str(result),
    )
    assert "history" not in repr(result) and "best_score=0." in repr(result)
    assert keras.mixed_precision.global_policy().name == "float32"


def test_settings_json_has_all_of_the_run(result, records_dir):
    run = workdirs.Run.open(result.workdir)
    assert run == result.run and run.recipe == RECIPE and run.fold == 1
    assert run.records == Records.open(records_dir).identity
    with open(f"{result.workdir}/settings.json") as file:
        assert json.load(file)["dataset"] == run.dataset.to_json()
    logits = result.load_model()(np.zeros([1, 32, 48, 3]))["logits"]
    assert logits.shape == [1, 32, 48, 4]


def test_a_finished_run_gives_its_result_again(result, records_dir):
    assert train(records_dir, result.workdir, RECIPE, fold=1) == result


def test_another_process_in_the_workdir_is_refused(result, records_dir):
    with locks.reserved(result.workdir):
        with pytest.raises(ValueError, match="/W: another process is working in this folder"):
            train(records_dir, result.workdir, RECIPE, fold=1)


def test_a_model_that_saw_the_held_out_images_is_no_start(result, records_dir, tmp_path):
    run = workdirs.Run.open(result.workdir)

    def check(fold, **settings):
        recipe = Recipe(width=0.0625, **settings)
        check_start(Run(str(tmp_path), recipe, run.dataset, fold, run.records))

    path = str(tmp_path / "w.safetensors")
    model = unet(width=0.0625)
    metadata = {"model": {"num_classes": 4, "width": 0.0625}, "training": [run.to_json()]}
    weights.save_model_weights(model, path, metadata)
    for start in (
        {"init_checkpoint": result.checkpoint},
        {"init_checkpoint": f"{result.checkpoint}/ckpt-1"},
        {"init_weights": path},
    ):
        check(1, **start)
        check(0, allow_seen_images=True, **start)
        with pytest.raises(ValueError, match="fold 1 held out, so it saw the images of fold 0"):
            check(0, **start)
    with pytest.raises(FileNotFoundError, match="init_weights: .*: no such file"):
        check(0, init_weights=str(tmp_path / "none.safetensors"))


def test_a_run_that_started_from_weights_that_saw_them_is_no_start(result, tmp_path):
    run = workdirs.Run.open(result.workdir)
    first = str(tmp_path / "first.safetensors")
    metadata = {"model": {"num_classes": 4, "width": 0.0625}, "training": [run.to_json()]}
    weights.save_model_weights(unet(width=0.0625), first, metadata)
    recipe = Recipe(width=0.0625, init_weights=first)
    second = Run(str(tmp_path / "W"), recipe, run.dataset, 0, "other records")
    workdirs.start(second)
    recipe = Recipe(width=0.0625, init_checkpoint=str(tmp_path / "W" / "checkpoints" / "best"))
    check_start(Run(str(tmp_path), recipe, run.dataset, 1, run.records))
    with pytest.raises(ValueError, match="fold 1 held out, so it saw the images of fold 0"):
        check_start(Run(str(tmp_path), recipe, run.dataset, 0, run.records))


def test_a_file_of_weights_is_where_a_run_starts(result, records_dir, tmp_path):
    path = str(tmp_path / "w.safetensors")
    model = unet(width=0.0625)
    weights.save_model_weights(model, path, {"model": {"num_classes": 4, "width": 0.0625}})
    recipe = Recipe(width=0.0625, init_weights=path)
    run = Run(str(tmp_path), recipe, result.run.dataset, 0, result.run.records)
    trainer = runs.make_trainer(Records.open(records_dir), run, distribution.strategy())
    for found, expected in zip(trainer.model.weights, model.weights):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_tensorflow_warns_once_of_float16_on_a_cpu(records_dir, tmp_path):
    weights = tmp_path / "w.safetensors"
    weights.write_text("x")
    where = f"--records_dir={records_dir}", f"--workdir={tmp_path / 'W'}"
    arguments = "--precision=float16", f"--init_weights={weights}"
    found = run_program(f"{TOOLS}/train.py", *where, *arguments)
    assert found.returncode == 1 and f"{weights}: " in found.stderr, found.stderr
    assert found.stderr.count("Mixed precision compatibility check") == 1, found.stderr


@pytest.fixture
def with_an_empty_fold(records_dir, tmp_path):
    folder = tmp_path / "R"
    shutil.copytree(records_dir, folder)
    info = json.loads((folder / "dataset_info.json").read_text())
    info["num_folds"] += 1
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return str(folder)


def test_a_fold_without_images_is_refused_before_any_training(with_an_empty_fold, tmp_path):
    message = "fold: got 3, but .*/R has no images in fold 3"
    with pytest.raises(ValueError, match=message):
        train(with_an_empty_fold, str(tmp_path / "W"), RECIPE, fold=3)
    with pytest.raises(ValueError, match=message):
        train_folds(with_an_empty_fold, str(tmp_path / "W"), RECIPE)
    assert not (tmp_path / "W").exists()


def test_the_folds_and_their_mean_stand_beside_all_blank(result):
    lines = folds_table([result, result]).splitlines()
    assert lines[0].split() == "fold val_dice all blank gain".split()
    score, blank = result.best_score, result.blank_score
    numbers = [f"{score:.4f}", f"{blank:.4f}", f"{score - blank:+.4f}"]
    assert [line.split() for line in lines[1:]] == [
        ["1", *numbers],
        ["1", *numbers],
        ["mean", *numbers],
    ]


def test_images_larger_than_the_memory_are_refused():
    check_memory(Recipe())
    with pytest.raises(ValueError, match=r"images of 90000x90000 needs at least \d+ GB of memory"):
        check_memory(Recipe(image_size=(90000, 90000)))


def test_what_is_not_of_the_recipe_may_differ(records_dir, result):
    again = train(records_dir, result.workdir, RECIPE, 1, Execution(cache="memory"))
    assert again == result
