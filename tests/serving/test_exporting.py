import dataclasses
import importlib.util
import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import IMAGE_SIZE

from clouds_tf import serving
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.keras import keras
from clouds_tf.models.metrics import probabilities
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights
from clouds_tf.prediction.postprocessing import Postprocessing, Rule, write_postprocessing
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.members import find_mismatches, read_members
from clouds_tf.training import workdir as workdirs

pytestmark = pytest.mark.slow

RULES = (Rule(0.4), Rule(0.45), Rule(0.5), Rule(0.55))
MODEL = {"num_classes": 4, "width": 0.125}


@pytest.fixture(scope="module")
def workdir(make_workdir):
    return make_workdir()


def _save(path, trained=None, **metadata):
    """Writes the weights of a model as those that are shipped, and gives the path."""
    fields = {"model": MODEL, "dataset": CLOUDS.to_json(), "image_size": list(IMAGE_SIZE)}
    fields.update(metadata)
    save_model_weights(trained or unet(**fields["model"]), str(path), fields)
    return str(path)


def test_an_export_says_what_it_did_and_leaves_the_precision_as_it_was(workdir, tmp_path):
    export_dir = str(tmp_path / "E")
    result = serving.export([workdir], export_dir, precision="bfloat16", check_images=2)
    assert keras.mixed_precision.global_policy().name == "float32"
    assert (result.path, result.num_models) == (os.path.join(export_dir, "1"), 1)
    assert result.difference.num_images == 2 and result.warnings == ()
    metadata = serving.read_metadata(result.path)
    run = workdirs.read_run(workdir)
    assert metadata.dataset == CLOUDS and metadata.image_sizes == (IMAGE_SIZE,)
    assert metadata.training[0]["records"] == run.records
    assert {"batching.txt", "models.config"} < set(os.listdir(export_dir))


def test_a_file_of_weights_gives_what_its_workdir_gives(workdir, tmp_path):
    # In float16 the weights are not quite those of the workdir.
    weights = _save(tmp_path / "w.safetensors", workdirs.load_model(workdir), training={"dice": 1})
    rules = str(tmp_path / "p.json")
    write_postprocessing(rules, Postprocessing(RULES, "flips", ("W",), "0123"), CLOUDS)
    result = serving.export(
        weights=[weights], export_dir=str(tmp_path / "E"), postprocessing=rules, check_images=1
    )
    assert result.test_time_augmentation == "flips" and result.warnings == ()
    metadata = serving.read_metadata(result.path)
    assert metadata.rules == RULES and metadata.test_time_augmentation == "flips"
    assert metadata.training == ({"dice": 1, "model": MODEL},)
    found = tf.saved_model.load(result.path).signatures["from_pixels"]
    images = np.random.default_rng(0).integers(0, 256, (1, 90, 135, 3), np.uint8)
    trained = [workdirs.load_model(workdir)]
    member = CloudModel(trained, [IMAGE_SIZE], CLOUDS, RULES, "flips")
    np.testing.assert_allclose(
        found(images=images)["probabilities"],
        member.serve_pixels(images)["probabilities"],
        atol=0.01,
    )


def test_encoders_and_sizes_may_differ_within_one_saved_model(make_workdir, tmp_path):
    has_keras_cv = importlib.util.find_spec("keras_cv") is not None
    encoder = "mobilenet_v3_small" if has_keras_cv else "mit_b0"
    sizes = [IMAGE_SIZE, (32, 64)]
    runs = [make_workdir(), make_workdir(image_size=sizes[1], encoder=encoder)]
    result = serving.export(runs, str(tmp_path / "E"), check_images=2)
    assert result.num_models == 2 and result.difference.probability < 1e-4
    metadata = serving.read_metadata(result.path)
    assert metadata.image_sizes == tuple(sizes)
    assert [run["encoder"] for run in metadata.training] == ["resnet34", encoder]

    images = np.random.default_rng(0).integers(0, 256, (2, 90, 135, 3), np.uint8)
    members = [
        probabilities(model(resize_image(images, size), training=False)["logits"], (350, 525))
        for model, size in zip(map(workdirs.load_model, runs), sizes)
    ]
    assert np.abs(members[0] - members[1]).max() > 0.1
    loaded = tf.saved_model.load(result.path)
    found = loaded.signatures["from_pixels"](images=images)["probabilities"]
    np.testing.assert_allclose(found, (members[0] + members[1]) / 2, atol=1e-4)


def test_a_model_of_three_classes_is_checked_on_drawn_images(tmp_path):
    steel = Dataset(("a", "b", "c"), (32, 200), (32, 200), rle_order="rows")
    weights = _save(
        tmp_path / "w.safetensors",
        unet(num_classes=3, width=0.125),
        model={"num_classes": 3, "width": 0.125},
        dataset=steel.to_json(),
    )
    result = serving.export(weights=[weights], export_dir=str(tmp_path / "E"), check_images=1)
    assert serving.read_metadata(result.path).dataset == steel


def test_wrong_arguments_are_named_and_nothing_is_left(workdir, make_workdir, tmp_path):
    weights = _save(tmp_path / "w.safetensors")
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ({}, "expected either workdirs of training runs or files of weights"),
        ({"workdirs": [workdir], "weights": [weights]}, "expected either workdirs"),
        ({"workdirs": [workdir, workdir + "/"]}, f"{workdir}: given 2 times, expected once"),
        ({"workdirs": [workdir], "check_images": 0}, "check_images: got 0"),
        ({"workdirs": [workdir], "precision": "int8"}, "precision: got 'int8'"),
        ({"weights": [weights], "records_dir": "R"}, "records_dir: .* does not say which fold"),
        ({"workdirs": [workdir], "export_dir": str(tmp_path / "file")}, "file.*cannot be written"),
    ):
        with pytest.raises(ValueError, match=message):
            serving.export(**{"export_dir": str(tmp_path / "E"), **arguments})
    assert not (tmp_path / "E" / "1").exists()
    with pytest.raises(FileNotFoundError, match="none"):
        serving.export([str(tmp_path / "none")], str(tmp_path / "E"))


def test_an_altered_file_of_weights_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    _save(path)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="does not match its checksum"):
        read_members([], [str(path)])


@pytest.mark.parametrize("name", ["dataset", "image_size"])
def test_weights_without_what_an_export_needs_are_refused(tmp_path, name):
    fields = {"model": MODEL, "dataset": CLOUDS.to_json(), "image_size": list(IMAGE_SIZE)}
    del fields[name]
    save_model_weights(unet(**MODEL), str(tmp_path / "w.safetensors"), fields)
    with pytest.raises(ValueError, match=f"its metadata lack '{name}'"):
        read_members([], [str(tmp_path / "w.safetensors")])


def test_models_of_other_data_sets_are_not_averaged(tmp_path):
    one = _save(tmp_path / "1.safetensors")
    other = dataclasses.replace(CLOUDS, submission_size=(35, 52))
    two = _save(tmp_path / "2.safetensors", dataset=other.to_json())
    with pytest.raises(ValueError, match="2.safetensors: trained on another data set than .*1.saf"):
        read_members([], [one, two])


def test_rules_that_were_tuned_for_something_else_are_named(workdir):
    members = read_members([workdir], [])
    records = members[0].training["records"]
    fitting = Postprocessing(RULES, "none", (workdir,), records)
    assert find_mismatches(members, fitting, "none") == []
    found = find_mismatches(members, Postprocessing(RULES, "flips", ("R/W7",), "0123"), "none")
    assert [text.split(" ")[4:] for text in found] == [
        ["with", "--test_time_augmentation=flips,", "got", "none"],
        ["with", "W7,", "got", os.path.basename(workdir)],
        f"on records with the fingerprint 0123, but {workdir} was trained on {records}".split(" "),
    ]
