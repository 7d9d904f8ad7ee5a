"""Whole models in one .safetensors file."""

import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from programs import REPOSITORY

from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.models import weights
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import (
    load_model,
    load_weights,
    read_model_weights,
    save_model_weights,
)
from clouds_tf.prediction.fusing import fuse

pytestmark = [pytest.mark.lanes, pytest.mark.usefixtures("shallow")]

ARGUMENTS = {"num_classes": 3, "width": 0.125}
METADATA = {"model": ARGUMENTS, "image_size": (64, 96), "classes": ["a", "b", "c"]}


def _trained(arguments, seed=0):
    """A model whose batch norm has seen data, with variances from 1e-6 to 1e6."""
    model = unet(**arguments)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "moving_variance" in weight.name:
            weight.assign(10 ** rng.uniform(-6, 6, weight.shape))
        elif "kernel" not in weight.name:
            weight.assign(rng.normal(1, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def model(shallow):
    return _trained(ARGUMENTS)


@pytest.fixture
def path(model, tmp_path):
    path = str(tmp_path / "model.safetensors")
    save_model_weights(model, path, METADATA)
    return path


def _rewritten(path, tensors=None, **metadata):
    """Changes a file as its library would, without care for the checksum."""
    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()["clouds_tf"])
    found = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(
        {**found, **(tensors or {})}, path, {"clouds_tf": json.dumps({**content, **metadata})}
    )


@pytest.mark.parametrize("encoder, head", [("resnet34", True), ("resnet34_preactivation", False)])
def test_a_model_comes_back(encoder, head, tmp_path):
    arguments = {**ARGUMENTS, "encoder": encoder, "classification_head": head}
    folder = "ram://weights" if head else str(tmp_path)
    saved, path = _trained(arguments), f"{folder}/model.safetensors"
    save_model_weights(saved, path, {"model": arguments})
    loaded, metadata = load_model(path)
    assert metadata == {"model": arguments}
    names = [weight.name for weight in loaded.weights]
    assert names == [weight.name for weight in saved.weights]
    assert len(names) == len(set(names))
    for left, right in zip(loaded.get_weights(), saved.get_weights()):
        if left.ndim > 1:  # 11 bits; below 2 ** -14 float16 has fewer
            np.testing.assert_allclose(left, right, rtol=2**-11, atol=2**-25)
        else:
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_fused_logits_of_a_loaded_model_are_close(tmp_path):
    # Variances near 1, as after training: then the error is that of kernels rounded to 11 bits.
    saved, path = unet(**ARGUMENTS), str(tmp_path / "model.safetensors")
    save_model_weights(saved, path, METADATA)
    images = np.random.default_rng(0).integers(0, 256, [2, 64, 96, 3], dtype=np.uint8)
    expected = saved(images, training=False)["logits"].numpy()
    found = fuse(load_model(path)[0])(images)["logits"].numpy()
    assert np.abs(found - expected).max() < 0.01 * np.abs(expected).max()


def test_the_metadata_and_the_tensors_are_read(path, model):
    metadata, tensors = read_model_weights(path)
    assert metadata == {**METADATA, "image_size": [64, 96]}
    assert {f"{name}:0" for name in tensors} == {weight.name for weight in model.weights}
    kinds = {(tensor.ndim > 1, tensor.dtype.name) for tensor in tensors.values()}
    assert kinds == {(True, "float16"), (False, "float32")}


@pytest.mark.slow
def test_a_file_takes_little_more_than_two_bytes_a_weight(tmp_path):
    model, path = unet(), str(tmp_path / "model.safetensors")
    save_model_weights(model, path, {"model": {}})
    assert 2 < os.path.getsize(path) / model.count_params() < 2.01


@pytest.mark.slow
def test_kernels_in_8_bits_halve_the_file_once_more(tmp_path):
    arguments, path = {"width": 0.5}, str(tmp_path / "model.safetensors")
    saved = unet(**arguments)
    save_model_weights(saved, path, {"model": arguments}, kernels="int8")
    assert 1 < os.path.getsize(path) / saved.count_params() < 1.05
    loaded, metadata = load_model(path)
    assert metadata == {"model": arguments}
    other = unet(**arguments)
    load_weights(other, path)
    for weight, left, right in zip(saved.weights, loaded.weights, other.weights):
        np.testing.assert_array_equal(left, right)
        error = np.abs(left.numpy() - weight.numpy())
        if len(weight.shape) == 4:
            step = np.abs(weight.numpy()).max((0, 1, 2)) / 127
            assert (error <= 0.501 * step).all(), weight.name
        else:
            assert not error.any()


def test_earlier_versions_refuse_kernels_in_8_bits_alone(path, model, tmp_path):
    small = str(tmp_path / "small.safetensors")
    save_model_weights(model, small, METADATA, kernels="int8")
    versions = []
    for name in (path, small):
        with safetensors.safe_open(name, framework="numpy") as file:
            versions.append(json.loads(file.metadata()["clouds_tf"])["version"])
    assert versions == [1, 2]  # earlier ones say: got format version 2, expected 1
    _rewritten(small, {"head_conv/bias": np.float32([7, 7, 7])})
    with pytest.raises(ValueError, match="does not match its checksum"):
        read_model_weights(small)


def test_weights_that_were_shipped_are_read_as_they_are():
    path = os.path.join(REPOSITORY, "models", "clouds_unet.safetensors")
    metadata, tensors = read_model_weights(path)
    assert metadata["model"]["encoder"] == "efficientnet_lite2"
    stored = safetensors.numpy.load_file(path)
    assert tensors.keys() == stored.keys()
    for name, values in stored.items():
        assert values.dtype == tensors[name].dtype
        np.testing.assert_array_equal(values, tensors[name])


def test_the_small_model_that_was_shipped_has_four_megabytes_and_no_head():
    path = os.path.join(REPOSITORY, "models", "clouds_unet_small.safetensors")
    assert os.path.getsize(path) <= 4_000_000
    metadata, tensors = read_model_weights(path)
    assert metadata["image_size"] == [160, 240]
    assert tensors["decoder1_conv2/kernel"].shape == (3, 3, 96, 96)
    assert "presence/kernel" not in tensors


def test_the_file_has_the_permissions_of_any_new_file(path, tmp_path):
    (tmp_path / "other").write_text("")
    assert os.stat(path).st_mode == os.stat(tmp_path / "other").st_mode


def test_other_libraries_read_the_tensors(path, model):
    kernel = safetensors.numpy.load_file(path)["head_conv/kernel"]
    expected = model.get_layer("head_conv").kernel.numpy()
    np.testing.assert_array_equal(kernel, expected.astype(np.float16))


def test_large_kernels_stay_float32(tmp_path):
    model, path = unet(**ARGUMENTS), str(tmp_path / "model.safetensors")
    kernel = model.get_layer("head_conv").kernel
    kernel.assign(kernel * 0 + 1e6)
    save_model_weights(model, path, METADATA)
    assert (read_model_weights(path)[1]["head_conv/kernel"] == 1e6).all()


@pytest.mark.parametrize("position", [0, 3, 100, 5_000, -5_000, -1])
def test_an_altered_byte_is_noticed(path, position):
    with open(path, "r+b") as file:
        file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ValueError, match="model.safetensors: .*(checksum|damaged|anew)"):
        read_model_weights(path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"tensors": {"head_conv/bias": np.float32([7, 7, 7])}}, "does not match its checksum"),
        ({"tensors": {"more": np.float32([7])}}, "does not match its checksum"),
        ({"classes": ["a", "c", "b"]}, "does not match its checksum"),
        ({"sha256": None}, "does not match its checksum"),
        ({"version": 2}, "does not match its checksum"),
        ({"version": 3}, "got format version 3, expected at most 2"),
    ],
)
def test_altered_content_is_named(path, changes, message):
    _rewritten(path, **changes)
    with pytest.raises(ValueError, match=message):
        read_model_weights(path)


@pytest.mark.parametrize("size", [0, 7, 1_000, -1])
def test_a_truncated_file_is_named(path, size):
    os.truncate(path, size if size >= 0 else os.path.getsize(path) + size)
    with pytest.raises(ValueError, match="model.safetensors: damaged"):
        read_model_weights(path)


def test_files_of_others_are_named(tmp_path):
    path = str(tmp_path / "other.safetensors")
    safetensors.numpy.save_file({"conv1.weight": np.zeros([2, 2])}, path, {"format": "pt"})
    with pytest.raises(ValueError, match="other.safetensors: has tensors, but is not a model"):
        read_model_weights(path)
    for damaged in ("[]", "{", "{}"):
        safetensors.numpy.save_file({"x": np.zeros(2)}, path, {"clouds_tf": damaged})
        with pytest.raises(ValueError, match="other.safetensors: damaged metadata"):
            read_model_weights(path)
    with pytest.raises(FileNotFoundError):
        read_model_weights(str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("arguments", [{"depth": 5}, None, "resnet34", {"encoder": "vgg"}])
def test_arguments_that_unet_does_not_know_are_named(model, tmp_path, arguments, monkeypatch):
    path = str(tmp_path / "model.safetensors")
    for name in ("_check_arguments", "_check_description"):
        monkeypatch.setattr(weights, name, lambda *_: None)
    save_model_weights(model, path, {"model": arguments})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="model.safetensors: (model: got|encoder: got 'vgg')"):
        load_model(path)


@pytest.mark.parametrize(
    "arguments, heads, message",
    [
        ({"num_classes": 4, "width": 0.125}, True, r"2 misshapen: head_conv/kernel is \[3, 3"),
        ({"num_classes": 3, "width": 0.25}, False, "misshapen"),
        ({**ARGUMENTS, "encoder": "resnet34_preactivation"}, True, "1 missing|[0-9]+ missing"),
        ({**ARGUMENTS, "classification_head": True}, True, "2 missing: presence/bias"),
    ],
)
def test_a_model_that_does_not_fit_is_named_and_unchanged(path, arguments, heads, message):
    other = unet(**arguments)
    before = other.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        load_weights(other, path, heads)
    assert str(error.value).endswith("the file has a unet(num_classes=3, width=0.125)")
    for left, right in zip(other.get_weights(), before):
        np.testing.assert_array_equal(left, right)


def test_without_the_heads_other_classes_are_fine(path, model):
    other = unet(num_classes=5, width=0.125, classification_head=True)
    before = {weight.name: weight.numpy() for weight in other.weights}
    load_weights(other, path, heads=False)
    expected = {weight.name: weight.numpy() for weight in model.weights}
    for weight in other.weights:
        head = weight.name.startswith(("head_conv", "presence"))
        np.testing.assert_allclose(
            weight, (before if head else expected)[weight.name], rtol=2**-11, atol=2**-25
        )


@pytest.mark.parametrize(
    "metadata, message",
    [
        ({}, "dataset, image_size: got None and None, expected Records.dataset"),
        ({"model": {"depth": 5}}, "metadata: model: got {'depth': 5}"),
        ({"model": {"num_classes": 4}}, "num_classes: got 4, but the model has 3"),
        ({"model": {"num_classes": 3, "encoder": "resnet34_preactivation"}}, "encoder: got unet_"),
        (
            {"model": {"num_classes": 3, "classification_head": True}},
            "classification_head: got True",
        ),
    ],
)
def test_metadata_that_contradicts_the_model_is_refused(model, tmp_path, metadata, message):
    with pytest.raises(ValueError, match=message):
        save_model_weights(model, str(tmp_path / "model.safetensors"), metadata)
    assert not os.listdir(tmp_path)


def test_what_cannot_be_used_is_not_written(tmp_path):
    model = unet(**ARGUMENTS)
    with pytest.raises(ValueError, match="model.h5: expected a path that ends in .safetensors"):
        save_model_weights(model, str(tmp_path / "model.h5"), METADATA)
    model.get_layer("head_conv").bias.assign([0, np.nan, 0])
    with pytest.raises(ValueError, match="head_conv/bias: got values that are not finite"):
        save_model_weights(model, str(tmp_path / "model.safetensors"), METADATA)
    assert not os.listdir(tmp_path)


def test_a_model_of_unet_describes_itself(model, tmp_path):
    path, facts = str(tmp_path / "model.safetensors"), {"fold": 2}
    save_model_weights(model, path, facts, dataset=CLOUDS, image_size=(64, 96))
    metadata, _ = read_model_weights(path)
    assert metadata["model"] == {**ARGUMENTS, "encoder": "resnet34", "classification_head": False}
    assert Dataset.from_json(metadata["dataset"]) == CLOUDS
    assert metadata["image_size"] == [64, 96] and metadata["fold"] == 2
    for given, fault in (
        ({"dataset": CLOUDS}, "dataset, image_size: got .* and None, expected Records.dataset"),
        ({"dataset": CLOUDS, "image_size": 64}, "image_size: got 64"),
    ):
        with pytest.raises(ValueError, match=fault):
            save_model_weights(model, path, **given)
    with pytest.raises(ValueError, match="model: got .* what clouds_tf.models.unet.unet returned"):
        save_model_weights(fuse(model), path, dataset=CLOUDS, image_size=(64, 96))
