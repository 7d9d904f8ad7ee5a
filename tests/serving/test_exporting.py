import dataclasses
import functools
import os

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import IMAGE_SIZE
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from clouds_tf import files, serving
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.keras import keras
from clouds_tf.models.metrics import probabilities
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import Postprocessing, Rule, write_postprocessing
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.members import find_mismatches, read_members, tuned_weights
from clouds_tf.training import workdir as workdirs

RULES = (Rule(0.4), Rule(0.45), Rule(0.5), Rule(0.55))
MODEL = {"num_classes": 4, "width": 0.125, "encoder": "tiny"}
SIZES = [IMAGE_SIZE, (32, 64)]


@pytest.fixture(scope="module")
def workdir(make_workdir):
    return make_workdir()


@functools.lru_cache
def _untrained():
    return unet(**MODEL)


def _save(path, trained=None, without=None, **metadata):
    """Writes the weights of a model as those that are shipped, and gives the path."""
    fields = {"model": MODEL, "dataset": CLOUDS.to_json(), "image_size": list(IMAGE_SIZE)}
    fields.update(metadata)
    fields.pop(without, None)
    save_model_weights(trained or _untrained(), str(path), fields)
    return str(path)


@pytest.fixture(scope="module")
def runs(workdir, make_workdir):
    """Workdirs of two encoders and sizes."""
    return [workdir, make_workdir(image_size=SIZES[1], encoder="tiny_preactivation")]


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    """The result of an export of these, where the first one counts thrice, at three sizes."""
    folder = str(tmp_path_factory.mktemp("export") / "E")
    how = {"test_time_augmentation": "scales", "member_weights": (3, 1)}
    return serving.export(runs, folder, check_images=2, **how)


@pytest.mark.slow
def test_an_export_says_what_it_did_and_leaves_the_precision_as_it_was(workdir):
    """Here in a folder that is remote."""
    export_dir = "ram://exported/E"
    result = serving.export([workdir], export_dir, precision="bfloat16", check_images=2)
    assert keras.mixed_precision.global_policy().name == "float32"
    assert (result.path, result.num_models) == (os.path.join(export_dir, "1"), 1)
    assert result.difference.num_images == 2 and result.warnings == ()
    metadata = serving.read_metadata(result.path)
    run = workdirs.Run.open(workdir)
    assert metadata.dataset == CLOUDS and metadata.image_sizes == (IMAGE_SIZE,)
    assert metadata.training[0]["records"] == run.records
    assert files.list_names(export_dir) == ["1", "1.sha256", "batching.txt", "models.config"]
    assert "serving_default" in Predictor.open(result.path).functions


@pytest.mark.slow
def test_a_file_of_weights_of_three_classes_gives_what_its_model_gives(tmp_path):
    steel = Dataset(("a", "b", "c"), (32, 200), (32, 200), rle_order="rows")
    fields = {**MODEL, "num_classes": 3}
    keras.utils.set_random_seed(0)
    model, images = unet(**fields), np.random.default_rng(0).integers(0, 256, (1, 90, 135, 3))
    # In float16 the weights are not quite those of the model.
    weights = _save(
        tmp_path / "w.safetensors",
        model,
        model=fields,
        dataset=steel.to_json(),
        training={"dice": 1},
    )
    rules = str(tmp_path / "p.json")
    write_postprocessing(rules, Postprocessing(RULES[:3], "flips", ("W",), "0123"), steel)
    result = serving.export(
        weights=[weights], export_dir=str(tmp_path / "E"), postprocessing=rules, check_images=1
    )
    assert result.test_time_augmentation == "flips" and result.warnings == ()
    metadata = serving.read_metadata(result.path)
    assert metadata.rules == RULES[:3] and metadata.test_time_augmentation == "flips"
    assert metadata.training == ({"dice": 1, "model": fields},) and metadata.dataset == steel
    loaded = tf.saved_model.load(result.path)
    found = loaded.signatures["from_pixels"](images=tf.constant(images, tf.uint8))
    member = CloudModel([model], Metadata(steel, (IMAGE_SIZE,), RULES[:3], "flips"))
    expected = member.serve_pixels(tf.constant(images, tf.uint8))["probabilities"]
    np.testing.assert_allclose(found["probabilities"], expected, atol=0.01)


@pytest.mark.slow
def test_encoders_and_sizes_may_differ_within_one_saved_model(runs, exported):
    assert exported.num_models == 2 and exported.difference.probability < 1e-4
    metadata = serving.read_metadata(exported.path)
    sizes = [IMAGE_SIZE, (32, 64), (64, 96), SIZES[1]]  # the last one's smaller and larger are it
    assert metadata.image_sizes == tuple(sizes)
    assert metadata.member_weights == (1, 1, 1, 1)
    encoders = [workdirs.Run.open(run).recipe.encoder for run in runs]
    assert len(set(encoders)) == 2
    assert [run["encoder"] for run in metadata.training] == encoders

    images = np.random.default_rng(0).integers(0, 256, (2, 90, 135, 3), np.uint8)
    models = [workdirs.Run.open(run).load_model() for run in runs]
    members = [
        probabilities(model(resize_image(images, size), training=False)["logits"], (350, 525))
        for model, size in zip([models[0]] * 3 + models[1:], sizes)
    ]
    assert np.abs(members[0] - members[3]).max() > 0.1
    loaded = tf.saved_model.load(exported.path)
    predict = loaded.signatures["from_pixels"]
    found = predict(images=images)["probabilities"]
    np.testing.assert_allclose(found, np.mean(members, axis=0), atol=1e-4)
    assert len(predict.variables) < sum(len(model.weights) for model in models)  # each once, fused


@pytest.mark.slow
def test_a_stock_server_has_all_its_operations(exported):
    with open(os.path.join(exported.path, "saved_model.pb"), "rb") as file:
        graph = SavedModel.FromString(file.read()).meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    functions = {function.signature.name for function in graph.library.function}
    used = {node.op for node in nodes} - functions
    assert {"DecodeJpeg", "DecodePng", "Conv2D"} <= used
    # raw_ops lists the operations that TensorFlow itself was built with, and no others.
    assert not {op for op in used if not hasattr(tf.raw_ops, op) or "PyFunc" in op}


def test_wrong_arguments_are_named_and_nothing_is_left(workdir, tmp_path):
    weights = _save(tmp_path / "w.safetensors")
    (tmp_path / "file").write_text("")
    for arguments, message in (
        ({}, "expected either workdirs of training runs or files of weights"),
        ({"workdirs": [workdir], "weights": [weights]}, "expected either workdirs"),
        ({"workdirs": [workdir, workdir + "/"]}, f"{workdir}: given 2 times, expected once"),
        ({"workdirs": [workdir], "check_images": 0}, "check_images: got 0"),
        ({"workdirs": [workdir], "precision": "int8"}, "precision: got 'int8'"),
        ({"weights": [weights], "records_dir": "R"}, "records_dir: .* does not name the fold"),
        ({"workdirs": [workdir], "export_dir": str(tmp_path / "file")}, "file.*cannot be written"),
    ):
        with pytest.raises(ValueError, match=message):
            serving.export(**{"export_dir": str(tmp_path / "E"), "check_images": 1, **arguments})
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
    path = _save(tmp_path / "w.safetensors", without=name)
    with pytest.raises(ValueError, match=f"w.safetensors: .*'{name}'"):
        read_members([], [path])


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
    weighed = Postprocessing(RULES, "none", (workdir,), records, member_weights=(3,))
    assert find_mismatches(members, weighed, "none", tuned_weights(members, weighed)) == []
    other = Postprocessing(RULES, "none", ("R/W7", "W8"), None, member_weights=(3, 1))
    names, weights = find_mismatches(members, other, "none", tuned_weights(members, other))
    assert "with W7, W8, got" in names and "member weights 3,1, got equal ones" in weights
    assert tuned_weights(members, weighed) == (3,)
    unknown = dataclasses.replace(members[0], path="R/W9")  # equal ones, rather than none for it
    assert tuned_weights([*members, unknown], weighed) == ()
    assert [text.split(" ")[4:] for text in found] == [
        ["with", "--test_time_augmentation=flips,", "got", "none"],
        ["with", "W7,", "got", os.path.basename(workdir)],
        f"on records with the fingerprint 0123, but {workdir} was trained on {records}".split(" "),
    ]
