import json

import h5py
import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_checkpoint, load_encoder_weights

pytestmark = pytest.mark.lanes

WIDTH = 0.25  # channels 16, 16, 32, 64, 128
# Number, blocks, channels in, channels out.
STAGES = [(1, 3, 16, 16), (2, 4, 16, 32), (3, 6, 32, 64), (4, 3, 64, 128)]


def _random(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def _torch_tensors():
    """An encoder of torchvision's names and shapes, with its classifier and counters."""
    shapes = {"conv1.weight": (16, 3, 7, 7), "fc.weight": (1000, 64), "fc.bias": (1000,)}

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    norm("bn1", 16)
    for stage, blocks, before, after in STAGES:
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (after, after if block else before, 3, 3)
            shapes[f"{name}.conv2.weight"] = (after, after, 3, 3)
            norm(f"{name}.bn1", after)
            norm(f"{name}.bn2", after)
        if stage > 1:
            shapes[f"layer{stage}.0.downsample.0.weight"] = (after, before, 1, 1)
            norm(f"layer{stage}.0.downsample.1", after)
    return _random(shapes)


def _write_safetensors(path, tensors, dtype="F32"):
    to_bytes = {"F32": np.float32, "F16": np.float16, "BF16": tf.bfloat16.as_numpy_dtype}[dtype]
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        start = len(data)
        data += tensor.astype(to_bytes).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, len(data)],
        }
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return str(path)


def _keras_tensors():
    """An encoder of the names and shapes of classification_models."""
    shapes = {"conv0/kernel": (7, 7, 3, 16)}

    def norm(name, channels, parts=("gamma", "beta", "moving_mean", "moving_variance")):
        shapes.update({f"{name}/{part}": (channels,) for part in parts})

    norm("bn_data", 3, ("beta", "moving_mean", "moving_variance"))
    norm("bn0", 16)
    for stage, blocks, before, after in STAGES:
        for block in range(1, blocks + 1):
            name, channels = f"stage{stage}_unit{block}", (before if block == 1 else after)
            norm(f"{name}_bn1", channels)
            shapes[f"{name}_conv1/kernel"] = (3, 3, channels, after)
            norm(f"{name}_bn2", after)
            shapes[f"{name}_conv2/kernel"] = (3, 3, after, after)
        shapes[f"stage{stage}_unit1_sc/kernel"] = (1, 1, before, after)
    norm("bn1", 128)
    return _random(shapes, seed=1)


def _write_h5(path, tensors, root=""):
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, variable = name.split("/")
            file[f"{root}{layer}/{layer}/{variable}:0"] = tensor
    return str(path)


@pytest.fixture(scope="module")
def model():
    return unet(width=WIDTH)


@pytest.fixture(scope="module")
def preactivation():
    return unet(width=WIDTH, encoder="resnet34_preactivation")


def _assert_torch(model, tensors):
    conv = model.get_layer("stage3_block1_projection_conv").kernel.numpy()
    expected = tensors["layer3.0.downsample.0.weight"]
    np.testing.assert_array_equal(conv, expected.transpose(2, 3, 1, 0))
    bn = model.get_layer("stage3_block6_bn2")
    for variable, part in (
        (bn.gamma, "weight"),
        (bn.beta, "bias"),
        (bn.moving_mean, "running_mean"),
        (bn.moving_variance, "running_var"),
    ):
        np.testing.assert_array_equal(variable, tensors[f"layer3.5.bn2.{part}"])


def test_names_of_torchvision_with_a_classifier(model, tmp_path):
    tensors = _torch_tensors()
    load_encoder_weights(model, _write_safetensors(tmp_path / "a.safetensors", tensors))
    _assert_torch(model, tensors)


def test_names_of_segmentation_models_pytorch_with_a_decoder(model, tmp_path):
    tensors = _torch_tensors()
    whole = {f"encoder.{k}": v for k, v in tensors.items() if not k.startswith("fc.")}
    whole["segmentation_head.0.bias"] = np.zeros(4, np.float32)
    load_encoder_weights(model, _write_safetensors(tmp_path / "a.safetensors", whole))
    _assert_torch(model, tensors)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_files(model, tmp_path, dtype):
    tensors = _torch_tensors()
    load_encoder_weights(model, _write_safetensors(tmp_path / "a.safetensors", tensors, dtype))
    kernel = model.get_layer("stem_conv").kernel
    np.testing.assert_allclose(kernel, tensors["conv1.weight"].transpose(2, 3, 1, 0), rtol=0.01)


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_names_of_classification_models(preactivation, tmp_path, root):
    tensors = _keras_tensors()
    whole = {**tensors, "fc1/kernel": np.zeros([64, 1000]), "fc1/bias": np.zeros(1000)}
    load_encoder_weights(preactivation, _write_h5(tmp_path / "a.h5", whole, root))
    for ours, theirs in (
        ("stem_image_bn", "bn_data"),
        ("stem_conv", "conv0"),
        ("stage4_block2_bn1", "stage4_unit2_bn1"),
        ("stage1_block1_projection_conv", "stage1_unit1_sc"),
        ("stage4_bn", "bn1"),
    ):
        for weight in preactivation.get_layer(ours).weights:
            variable = weight.name.split("/")[1].split(":")[0]
            np.testing.assert_array_equal(weight, tensors[f"{theirs}/{variable}"])


def test_every_weight_of_the_encoder_is_set_and_none_of_the_decoder(model, tmp_path):
    for weight in model.weights:
        weight.assign(tf.fill(weight.shape, -7.0))
    load_encoder_weights(model, _write_safetensors(tmp_path / "a.safetensors", _torch_tensors()))
    for weight in model.weights:
        inside = weight.name.startswith(("stem_", "stage"))
        assert ((weight.numpy() == -7) != inside).all(), weight.name


def test_an_error_lists_what_is_missing_unexpected_and_misshapen(model, tmp_path):
    tensors = _torch_tensors()
    del tensors["layer1.2.bn2.bias"]
    tensors["layer1.3.conv1.weight"] = np.zeros([16, 16, 3, 3], np.float32)
    tensors["conv1.weight"] = np.zeros([16, 1, 7, 7], np.float32)
    path = _write_safetensors(tmp_path / "a.safetensors", tensors)
    before = model.get_weights()
    with pytest.raises(ValueError) as error:
        load_encoder_weights(model, path)
    assert str(error.value) == (
        f"{path}: does not fit the model; 1 missing: layer1.2.bn2.bias; "
        "1 unexpected: layer1.3.conv1.weight; "
        "1 misshapen: conv1.weight is [7, 7, 1, 16], expected [7, 7, 3, 16]"
    )
    for left, right in zip(model.get_weights(), before):
        np.testing.assert_array_equal(left, right)


def test_weights_of_the_other_encoder_are_errors(model, preactivation, tmp_path):
    torch = _write_safetensors(tmp_path / "a.safetensors", _torch_tensors())
    keras = _write_h5(tmp_path / "a.h5", _keras_tensors())
    with pytest.raises(ValueError, match="unet_resnet34_preactivation takes .* ends in .h5"):
        load_encoder_weights(preactivation, torch)
    with pytest.raises(ValueError, match="unet_resnet34 takes .* ends in .safetensors"):
        load_encoder_weights(model, keras)


def test_wrong_files_are_errors(model, preactivation, tmp_path):
    whole = _write_safetensors(tmp_path / "a.safetensors", _torch_tensors())
    wrong = {
        "cut.safetensors": open(whole, "rb").read()[:-10],
        "text.safetensors": b"<!doctype html><html>",
        "empty.safetensors": b"",
        "list.safetensors": (2).to_bytes(8, "little") + b"[]",
        "text.h5": b"<!doctype html><html>",
        "a.pth": b"PK",
    }
    for name, content in wrong.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            load_encoder_weights(preactivation if name.endswith(".h5") else model, str(path))
    for name, fitting in (("none.safetensors", model), ("none.h5", preactivation)):
        with pytest.raises(FileNotFoundError):
            load_encoder_weights(fitting, str(tmp_path / name))


def _save(model, folder):
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(folder), 1)
    return manager.save()


@pytest.mark.slow
def test_own_checkpoint_by_folder_and_by_prefix(model, tmp_path):
    prefix = _save(model, tmp_path)
    other = unet(width=WIDTH)
    for path in (prefix, str(tmp_path)):
        for weight in other.weights:
            weight.assign(tf.fill(weight.shape, -7.0))
        load_checkpoint(other, path)
        for left, right in zip(other.get_weights(), model.get_weights()):
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_own_checkpoint_of_another_model_is_an_error(model, preactivation, tmp_path):
    _save(model, tmp_path)
    with pytest.raises(ValueError, match="missing: .*stem_image_bn/beta.*unexpected: "):
        load_checkpoint(preactivation, str(tmp_path))
    with pytest.raises(ValueError, match=r"misshapen: .*expected \[1, 1, 16, 16\]"):
        load_checkpoint(unet(width=0.0625), str(tmp_path))
    with pytest.raises(ValueError, match="1 missing: presence/kernel|2 missing: presence/bias"):
        load_checkpoint(unet(width=WIDTH, classification_head=True), str(tmp_path))


def test_no_checkpoint_is_an_error(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoints/best"):
        load_checkpoint(model, str(tmp_path))
