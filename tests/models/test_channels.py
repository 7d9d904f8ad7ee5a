"""U-Nets for images of other channels than RGB, from weights for RGB."""

import dataclasses

import numpy as np
import pytest
from shared_fixtures import LANE_ONE

from clouds_tf.dataset import CLOUDS
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.models.encoders.interface import fitted, write_safetensors
from clouds_tf.models.encoders.keras_cv_backbones import BACKBONES
from clouds_tf.models.unet import outline, unet
from clouds_tf.models.weights import (
    load_encoder_weights,
    load_model,
    load_weights,
    save_model_weights,
)

pytestmark = pytest.mark.lanes

WIDTH = 0.125


def _timm(kernel, channels):
    """timm.models._manipulate.adapt_input_conv, written down again for [h, w, 3, out]."""
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    repeats = -(-channels // 3)
    return np.tile(kernel, (1, 1, repeats, 1))[:, :, :channels] * (3 / channels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 16])
def test_kernels_are_adapted_as_in_timm(channels):
    kernel = np.random.default_rng(0).normal(size=(7, 7, 3, 8)).astype(np.float32)
    found = fitted(kernel, [7, 7, channels, 8], channels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _timm(kernel, channels), rtol=1e-6)
    for shape in ([7, 7, channels, 9], [5, 7, channels, 8]):  # does not fit: an error later
        assert channels == 3 or fitted(kernel, shape, channels) is kernel


def _randomize(model):
    rng = np.random.default_rng(0)
    for weight in model.weights:
        low = 0.5 if "gamma" in weight.name or "variance" in weight.name else -0.2
        weight.assign(rng.uniform(low, low + 0.4, weight.shape))


def _check_repeated_rgb(encoder):
    """An image whose channels are RGB twice is the RGB image to weights that were adapted."""
    of_rgb = unet(2, WIDTH, encoder)
    _randomize(of_rgb)
    of_six = unet(2, WIDTH, encoder, channels=6)
    for weight, source in zip(of_six.weights, of_rgb.weights):
        weight.assign(fitted(source.numpy(), weight.shape.as_list(), 6))
    image = np.random.default_rng(1).integers(0, 256, [1, 32, 64, 3], np.uint8)
    expected = of_rgb(image)["logits"]
    found = of_six(np.concatenate([image, image], axis=-1))["logits"]
    assert np.std(expected) > 0.001
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("encoder", ["tiny", "tiny_preactivation"])
def test_rgb_twice_is_rgb(encoder):
    _check_repeated_rgb(encoder)


@pytest.mark.nightly
@pytest.mark.parametrize("encoder", sorted({*ENCODERS} - {"tiny", "tiny_preactivation"}))
def test_rgb_twice_is_rgb_to_every_encoder(encoder):
    if encoder in BACKBONES and not LANE_ONE:
        pytest.skip("keras-cv works with TensorFlow 2.15")
    _check_repeated_rgb(encoder)


@pytest.mark.nightly
def test_grey_is_grey_rgb_to_weights_for_rgb(tmp_path):
    of_rgb = unet(2, WIDTH, "efficientnet_lite0")  # which scales all channels alike
    _randomize(of_rgb)
    path = str(tmp_path / "rgb.safetensors")
    about = {
        "dataset": None,
        "image_size": None,
        "metadata": {"model": {"num_classes": 2, "width": WIDTH, "encoder": "efficientnet_lite0"}},
    }
    save_model_weights(of_rgb, path, **about)
    of_grey = unet(2, WIDTH, "efficientnet_lite0", channels=1)
    load_weights(of_grey, path)
    grey = np.random.default_rng(1).integers(0, 256, [1, 32, 64, 1], np.uint8)
    expected = of_rgb(np.repeat(grey, 3, axis=-1))["logits"]
    # The kernels in the file are float16.
    np.testing.assert_allclose(
        of_grey(grey)["logits"], expected, atol=0.01 * np.abs(expected).max()
    )
    with pytest.raises(
        ValueError,
        match="channels: got 3, but the model has 1|channels: got 1, but the model has 3",
    ):
        save_model_weights(of_grey, path, **about)


def test_published_weights_are_adapted_and_others_refused(tmp_path):
    model = unet(2, WIDTH, "tiny", channels=5)
    encoder, tensors = ENCODERS["tiny"], {}
    for weight in model.weights:
        name = weight.name.split(":")[0]
        if name.startswith(("stem_", "stage")):
            shape = weight.shape.as_list()
            if name == "stem_conv/kernel":
                shape[2] = 3
            values = np.random.default_rng(len(tensors)).normal(size=shape).astype(np.float32)
            values = values.transpose(3, 2, 0, 1) if len(shape) == 4 else values
            tensors[encoder.published_name(name)] = np.ascontiguousarray(values)
    path = str(tmp_path / "encoder.safetensors")
    write_safetensors(path, tensors)
    load_encoder_weights(model, path)
    kernel = tensors["conv1.weight"].transpose(2, 3, 1, 0)
    found = model.get_layer("stem_conv").kernel
    np.testing.assert_allclose(found, _timm(kernel, 5), rtol=1e-6)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :2].copy()
    write_safetensors(path, tensors)
    with pytest.raises(ValueError, match=r"1 misshapen: conv1.weight is \[3, 3, 2, 16\]"):
        load_encoder_weights(model, path)


def test_a_file_of_weights_keeps_channels_and_exclusive_classes(tmp_path):
    dataset = dataclasses.replace(CLOUDS, channels=5, exclusive=True)
    model = unet(**dataset.model_arguments(), width=WIDTH, encoder="tiny")
    path = str(tmp_path / "model.safetensors")
    save_model_weights(model, path, dataset=dataset, image_size=(32, 64))
    loaded, metadata = load_model(path)
    assert loaded.input_shape[-1] == 5 and "background_logits" in loaded.output_shape
    assert metadata["model"] == {
        **{"num_classes": 4, "width": WIDTH, "encoder": "tiny", "classification_head": False},
        **{"channels": 5, "exclusive": True},
    }
    assert outline(loaded, (32, 64))[0][0].channels == 5


@pytest.mark.parametrize("channels", [0, 17])
def test_more_channels_than_sixteen_are_refused(channels):
    with pytest.raises(ValueError, match=f"channels: got {channels}, expected 1 to 16"):
        unet(channels=channels)
