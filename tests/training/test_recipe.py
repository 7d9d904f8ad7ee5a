import dataclasses
import json

import pytest

from clouds_tf.training import Execution, Recipe

pytestmark = pytest.mark.lanes


def test_defaults_are_valid_and_printed_without_them():
    assert repr(Recipe()) == "Recipe()" and repr(Execution()) == "Execution()"
    changed = Recipe(epochs=3, image_size=[64, 96], learning_rate=1)
    assert repr(changed) == "Recipe(epochs=3, image_size=(64, 96), learning_rate=1.0)"
    assert eval(repr(changed)) == changed


@pytest.mark.parametrize(
    "setting, value, expected",
    [
        ("epochs", 0, "at least 1"),
        ("epochs", 1.5, "a whole number"),
        ("epochs", True, "a whole number"),
        ("warmup_epochs", float("inf"), "a finite number"),
        ("learning_rate", float("nan"), "a finite number"),
        ("learning_rate", "0.1", "a finite number"),
        ("ema", 1.5, "0 to 1"),
        ("clip_norm", -1, "at least 0"),
        ("width", 0, "0.05 to 8.0"),
        ("image_size", (0, 5), ".height, width. in pixels"),
        ("image_size", 320, ".height, width. in pixels"),
        ("optimizer", "adagrad", "one of adam, "),
        ("optimizer", "addons:SWA", "one of .* addons:NAME with one of AdaBelief, LAMB"),
        ("monitor", "iou", "one of dice, loss, tuned_dice"),
        ("encoder", "resnet50", "one of .*resnet34"),
        ("augmentation", "foo", "one of baseline, "),
        ("precision", "float64", "one of float32, bfloat16, float16"),
        ("xla", 1, "True or False"),
        ("encoder_weights", 5, "text"),
    ],
)
def test_impossible_settings_are_refused(setting, value, expected):
    with pytest.raises(ValueError, match=f"^{setting}: got .*, expected {expected}"):
        Recipe(**{setting: value})


def test_a_wrong_loss_is_refused():
    with pytest.raises(ValueError, match="loss: got 'hinge' in .*, expected a sum of bce"):
        Recipe(loss="bce+hinge")


def test_two_models_to_start_from_are_refused():
    with pytest.raises(ValueError, match="init_weights: got init_checkpoint as well"):
        Recipe(init_weights="a.safetensors", init_checkpoint="W/checkpoints/best")


def test_an_unknown_way_of_execution_is_refused():
    with pytest.raises(ValueError, match="distribute: got 'horovod', expected one of none, "):
        Execution(distribute="horovod")
    for folder in (None, "gs://bucket"):
        with pytest.raises(ValueError, match="^cache_dir: got .*, expected a folder on this machi"):
            Execution(cache="disk", cache_dir=folder)


def test_a_recipe_comes_back_from_json():
    recipe = Recipe(epochs=7, image_size=(64, 96), clip_norm=5, ema=0.99, loss="bce")
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    assert Recipe.from_json({"epochs": 7, "later": 1}) == Recipe(epochs=7)


@pytest.mark.parametrize("cls", [Recipe, Execution])
def test_every_setting_has_its_help(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata["help"].endswith((".", "...")), field.name
        assert field.metadata["help"][0].isupper(), field.name
