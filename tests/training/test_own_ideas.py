"""A user's loss, optimizer, schedule, encoder, augmentation, mix and metric in a run."""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys

import mine
import numpy as np
import pytest
import tensorflow as tf
from programs import REPOSITORY, run_tool
from shared_fixtures import IMAGE_SIZE

from clouds_tf.data.augmentations import find_augmentation
from clouds_tf.data.mixing import cutmix, find_mix
from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_model
from clouds_tf.training import Recipe, train
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.optimizers import Nadam, make_optimizer
from clouds_tf.training.schedules import Schedule
from clouds_tf.training.trainer import Trainer
from clouds_tf.training.workdir import Run

SETTINGS = {
    "loss": "0.5*bce+0.5*mine:squared(power=3)",
    "optimizer": mine.small_steps,
    "learning_rate": 0.01,
    "schedule": mine.falling,
    "encoder": mine.small,
    "augmentation": functools.partial(mine.darker, most=0.25),
    "mix": mine.halves,
    "metrics": [mine.squared],
    "monitor": mine.recall,
}
RECIPE = Recipe(epochs=1, batch_size=4, image_size=IMAGE_SIZE, width=0.125, **SETTINGS)


@pytest.fixture(scope="module")
def own_run(records_dir, tmp_path_factory):
    """A workdir after an epoch in which everything is the user's."""
    folder = str(tmp_path_factory.mktemp("own") / "W")
    train(records_dir, folder, RECIPE, progress=False, report=lambda line: None)
    return folder


def test_callables_become_their_names():
    assert RECIPE.loss == SETTINGS["loss"] and RECIPE.encoder == "mine:small"
    assert RECIPE.augmentation == "mine:darker(most=0.25)"
    assert RECIPE.metrics == ("mine:squared",) and RECIPE.monitor == "mine:recall"
    assert Recipe.from_json(json.loads(json.dumps(RECIPE.to_json()))) == RECIPE
    assert eval(repr(RECIPE)) == RECIPE
    assert RECIPE.own_names()["mine:squared"] == "metrics" and len(RECIPE.code()) == 7
    assert Recipe(loss=losses.parse("bce+dice")).loss == "bce+dice"
    assert Recipe(loss=losses.LOSSES["focal"]).loss == "focal"


@pytest.mark.parametrize("setting", ["loss", "optimizer", "schedule", "encoder", "mix", "monitor"])
def test_a_function_without_a_name_is_refused(setting):
    with pytest.raises(ValueError, match=f"^{setting}: other processes cannot import .*<lambda>"):
        Recipe(**{setting: lambda *args: None})


def test_metrics_have_columns_of_their_own():
    for metrics in (["dice"], ["a:iou"], ["a:f", "b:f"]):
        with pytest.raises(ValueError, match="^metrics: got "):
            Recipe(metrics=metrics)


def test_an_optimizer_of_keras_is_described():
    recipe = Recipe(optimizer=keras.optimizers.Adam(0.002, beta_1=0.8))
    assert recipe.optimizer == "clouds_tf.keras:keras.optimizers.Adam(beta_1=0.8)"
    assert recipe.learning_rate == 0.002 and dataclasses.replace(recipe, epochs=2).epochs == 2
    optimizer = make_optimizer(recipe.optimizer, 0.1, [tf.Variable([1.0])])
    assert type(optimizer) is keras.optimizers.Adam and optimizer.beta_1 == 0.8
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    nadam = Recipe(optimizer=keras.optimizers.Nadam()).optimizer
    assert type(make_optimizer(nadam, 0.1, [tf.Variable([1.0])])) is Nadam


@pytest.mark.parametrize(
    "optimizer, settings, fault",
    [
        (keras.optimizers.Adam(0.002), {"learning_rate": 0.5}, "learning_rate: got 0.5, .* 0.002"),
        (keras.optimizers.Adam(use_ema=True), {}, "optimizer: .* ema of its own"),
        (
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 5)),
            {},
            "optimizer: .* schedule of its own",
        ),
        (
            keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam()),
            {},
            "optimizer: .* precision of its own",
        ),
        (3, {}, "optimizer: got 3"),
    ],
)
def test_an_optimizer_that_a_recipe_contradicts_is_refused(optimizer, settings, fault):
    with pytest.raises(ValueError, match=f"^{fault}"):
        Recipe(optimizer=optimizer, **settings)


def test_a_loss_equals_its_formula():
    mask, logits = tf.cast(tf.random.uniform([3, 6, 8, 2]) < 0.5, tf.uint8), tf.zeros([3, 6, 8, 2])
    found = losses.parse("2*mine:squared(power=3)+bce")(mask, logits)
    np.testing.assert_allclose(found, [2 * 0.5**3 + np.log(2)] * 3, rtol=1e-6)
    assert losses.parse("mine:squared") == losses.parse("1*mine:squared")
    for spec, fault in (
        ("mine:per_pixel", r"returned the shape \(3, 6, 8, 2\), expected \[B\]"),
        ("mine:squared(size=2)", "does not take its arguments: .*'size'"),
        ("mine:squared(power=x)", "got mine:squared.power=x., expected NAME=NUMBER"),
        ("mine:nothing", "mine.py has no nothing"),
    ):
        with pytest.raises(ValueError, match=f"^loss: .*{fault}"):
            losses.parse(spec)(mask, logits)


def test_a_schedule_equals_its_formula():
    schedule = Schedule("mine:falling", 0.5, num_steps=10)
    assert float(schedule(4)) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="^schedule: .* expected one number"):
        Schedule("mine:falling", 0.5, num_steps=10)(tf.constant([1, 2]))


def _example():
    image = tf.random.stateless_uniform([6, 8, 3], [1, 2], 0, 256, tf.int32)
    return {"image": tf.cast(image, tf.uint8), "mask": tf.ones([6, 8, 4], tf.uint8)}


def test_an_augmentation_follows_from_its_seed():
    augment, example = tf.function(find_augmentation("mine:darker")), _example()
    once, again = (augment(example, tf.constant([3, 4])) for _ in range(2))
    np.testing.assert_array_equal(once["image"], again["image"])
    expected = mine.darker(example, tf.constant([3, 4]))["image"]
    np.testing.assert_array_equal(once["image"], expected)
    assert (once["image"].numpy() < example["image"].numpy()).any()


@pytest.mark.parametrize(
    "name, fault",
    [("unseeded", "draws with RandomUniform, which a"), ("as_floats", "returned .*float32")],
)
def test_an_augmentation_that_a_run_could_not_repeat_is_refused(name, fault):
    with pytest.raises(ValueError, match=f"^augmentation: mine:{name} {fault}"):
        find_augmentation(f"mine:{name}")(_example(), [1, 2])


def test_a_mix_is_called_with_the_parts_of_a_batch():
    images = tf.cast(tf.reshape(tf.range(16), [2, 2, 4, 1]), tf.uint8)
    mixed, _ = find_mix("mine:halves")(images, images, [1, 2], [0, 1], 2)
    np.testing.assert_array_equal(mixed[1, 0, :, 0], [0, 1, 10, 11])
    assert find_mix("cutmix") is cutmix


@pytest.mark.parametrize(
    "name, fault",
    [
        ("unnamed", "a layer is called 'conv2d.*expected a unique name"),
        ("fine", "a map of a 64x96 image is 64x96, expected 32x48, for stride 2"),
        ("falling", "does not take its arguments"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(name, fault):
    with pytest.raises(ValueError, match=f"^encoder: .*{fault}"):
        unet(encoder=f"mine:{name}")


def test_batch_norm_of_one_device_is_refused_on_several():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = unet(1, 0.125, encoder=mine.one_device)
        with pytest.raises(ValueError, match="^encoder: mine2_norm normalizes .* one device"):
            Trainer(model, Recipe(encoder=mine.one_device), 2, ["a"])


@pytest.mark.slow
def test_a_run_of_own_functions_is_resumed_exactly(own_run, records_dir, tmp_path):
    history = Run.open(own_run).history
    assert history[0]["val_recall"] > 0 and history[0]["val_squared"] > 0
    text = json.loads((pathlib.Path(own_run) / "settings.json").read_text())
    assert text["monitor"] == "mine:recall" and len(text["code"]["mine:small"]) == 12
    again = str(tmp_path / "W")
    shutil.copytree(own_run, again)
    longer = dataclasses.replace(RECIPE, epochs=2, schedule="constant")
    with pytest.raises(ValueError, match="holds a run with schedule=mine:falling"):
        train(records_dir, again, longer)
    result = train(records_dir, again, RECIPE, progress=False, report=lambda line: None)
    assert result.best_score == history[0]["val_recall"] and "recall" in str(result)


def test_a_changed_function_is_refused(own_run, records_dir, tmp_path):
    workdir = shutil.copytree(own_run, str(tmp_path / "W"))
    path = pathlib.Path(workdir) / "settings.json"
    settings = json.loads(path.read_text())
    settings["code"]["mine:squared"] = "0123456789ab"
    path.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="^workdir: .* mine:squared had other source code"):
        train(records_dir, workdir, RECIPE)


def test_a_score_that_is_not_finite_ends_a_run():
    with pytest.raises(ValueError, match="monitor: mine:undefined is nan"):
        Recipe(monitor="mine:undefined").score({"val_undefined": float("nan")})


@pytest.mark.slow
def test_others_find_the_encoder_in_their_folder_or_say_what_is_missing(
    own_run, tmp_path, monkeypatch
):
    weights, folder = str(tmp_path / "own.safetensors"), REPOSITORY / "tests" / "training"
    workdirs.pack_weights(own_run, weights)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    monkeypatch.delitem(sys.modules, "mine")
    monkeypatch.chdir(tmp_path)
    assert Run.open(own_run).recipe.loss == RECIPE.loss  # which needs no function
    lost = run_tool("export", f"--weights={weights}", f"--export_dir={tmp_path / 'E'}")
    assert lost.returncode == 1 and lost.stderr.count("\n") == 1 and not (tmp_path / "E").exists()
    assert "encoder: mine:small: no module 'mine'; run the command in the folder" in lost.stderr
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    monkeypatch.chdir(folder)
    image = np.zeros([1, *IMAGE_SIZE, 3], np.uint8)
    one, other = Run.open(own_run).load_model()(image), load_model(weights)[0](image)
    np.testing.assert_allclose(one["logits"], other["logits"], atol=0.02)  # stored in float16


@pytest.mark.slow
def test_evaluate_takes_a_run_with_an_encoder_of_the_user(own_run, records_dir, tmp_path):
    output = tmp_path / "postprocessing.json"
    flags = f"--records_dir={records_dir}", f"--workdirs={own_run}", f"--output={output}"
    result = run_tool("evaluate", *flags)
    assert result.returncode == 0 and output.exists(), result.stderr


def test_flags_take_names(records_dir, tmp_path):
    result = run_tool(
        "train", f"--records_dir={records_dir}", f"--workdir={tmp_path / 'W'}", "--loss=nowhere:f"
    )
    assert result.returncode == 1 and not (tmp_path / "W").exists()
    assert "loss: nowhere:f: no module 'nowhere'; run the command in the folder" in result.stderr
