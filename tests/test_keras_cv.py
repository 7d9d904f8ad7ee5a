"""The door to keras-cv opens only when somebody asks."""

import pytest
import tensorflow as tf
from programs import run_program

from clouds_tf import lane_one

PROGRAM = """
import sys

from clouds_tf import climatology, data, evaluation, exploration, scenes, serving
from clouds_tf.data.augmentations import AUGMENTATIONS, check_augmentation, find_augmentation
from clouds_tf.models.unet import unet
from clouds_tf.training import Recipe
from clouds_tf.training.optimizers import make_optimizer

Recipe(augmentation="keras_cv:grid_mask", encoder="resnet50_v2", optimizer="addons:Yogi")
for name in AUGMENTATIONS:
    find_augmentation(name)
for encoder in (
    "resnet34", "resnet34_preactivation", "efficientnet_lite0", "efficientnet_lite2"
):
    model = unet(width=0.05, encoder=encoder)
for name in ("adam", "adamw", "nadam", "sgd"):
    make_optimizer(name, 1e-3, model.trainable_variables)
assert not {"keras_cv", "tensorflow_addons"} & set(sys.modules)
"""


@pytest.mark.slow
def test_nothing_imports_keras_cv_or_addons_unasked():
    found = run_program("-c", PROGRAM)
    assert found.returncode == 0, found.stderr


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(tf, "__version__", "2.15.1")
    monkeypatch.setattr(lane_one.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="^a layer needs the package keras-cv; run pip install"):
        lane_one.import_keras_cv("a layer", "others")


def test_another_tensorflow_is_refused(monkeypatch):
    monkeypatch.setattr(tf, "__version__", "2.21.0")
    with pytest.raises(ValueError, match="^a layer needs TensorFlow 2.15 .* 2.21.0; others work"):
        lane_one.import_keras_cv("a layer", "others")
