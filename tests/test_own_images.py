"""Images of five channels and exclusive classes: what is left out for them, and what is refused.

test_end_to_end.py goes the whole way with such a data set.
"""

import dataclasses

import numpy as np
import pytest

from clouds_tf import evaluation
from clouds_tf.data import sample_data, shards
from clouds_tf.data.annotations import read_csv
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.exploration.statistics import measure
from clouds_tf.exploration.summary import summarize
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights
from clouds_tf.prediction import Metadata, Predictor
from clouds_tf.scenes.network import Network
from clouds_tf.training import Recipe, train

pytestmark = pytest.mark.slow

SIZE = (32, 48)
LAND = Dataset(
    class_names=("water", "field", "town"),
    mask_size=SIZE,
    submission_size=SIZE,
    label_columns=("ImageId", "ClassId"),
    degrees=(1.0, 1.5),
    channels=5,
    exclusive=True,
)
RECIPE = Recipe(
    epochs=1,
    image_size=SIZE,
    batch_size=5,
    width=0.125,
    encoder="tiny",
    loss="cce+dice",
    learning_rate=1e-3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder and its records."""
    path = str(tmp_path_factory.mktemp("land"))
    sample_data.write_sample_data(f"{path}/D", num_train=10, num_test=2, dataset=LAND)
    how = {"num_shards": 2, "num_folds": 2, "num_workers": 1}
    shards.write_records(f"{path}/D", f"{path}/R", LAND, **how)
    return path


def test_exploration_leaves_out_what_only_rgb_has(folder):
    table = read_csv(f"{folder}/D/train.csv", LAND)
    found = measure(table, f"{folder}/D/train_images", LAND)
    assert not found.problems and not {"glint", "blueness"} & set(found.rows)
    path = f"{folder}/D/train_images/{table['filename'][0]}"
    assert found.rows["brightness"][0] == pytest.approx(np.load(path).mean(), abs=3)
    summary = summarize(found, LAND.class_names)
    assert sorted(summary["images"]) == ["brightness", "contrast", "gap"]


def test_settings_that_need_other_images_or_classes_are_refused_before_any_work(folder, tmp_path):
    workdir = tmp_path / "W"
    for changes, reason in (
        ({"augmentation": "robust"}, "augmentation: robust is for RGB, the images have 5 channels"),
        ({"class_weights": (1, 1, 1)}, "class_weights: got the loss cce"),
    ):
        settings = {**RECIPE.to_json(), **changes}
        with pytest.raises(ValueError, match=reason):
            train(f"{folder}/R", str(workdir), Recipe.from_json(settings), report=str)
        assert not workdir.exists()


def test_categorical_cross_entropy_and_weights_of_other_data_sets_are_refused(
    records_dir, tmp_path
):
    recipe = Recipe(image_size=SIZE, encoder="tiny", loss="cce+dice")
    with pytest.raises(ValueError, match="loss: cce is for exclusive classes"):
        train(records_dir, str(tmp_path / "W"), recipe, report=str)
    dataset = dataclasses.replace(CLOUDS, exclusive=True)
    path = str(tmp_path / "w.safetensors")
    model = unet(**dataset.model_arguments(), encoder="tiny", width=0.125)
    save_model_weights(model, path, dataset=dataset, image_size=SIZE)
    with pytest.raises(ValueError, match="w.safetensors: for a data set with exclusive=True, the"):
        evaluation.evaluate(records_dir, weights=[path], output=str(tmp_path / "p.json"))


def test_scenes_are_rgb():
    predictor = Predictor("E/1", Metadata(LAND, (SIZE,)), "identity", dict, dict)
    with pytest.raises(ValueError, match="E/1: takes images of 5 channels, and scenes are read as"):
        Network(predictor)
