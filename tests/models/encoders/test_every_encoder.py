"""Encoders from training to saving, at tiny sizes; and those of keras-cv beside keras-cv.

Building a backbone of keras-cv takes seconds, so a few go the whole way, and all others of ENCODERS
take a step; those that differ from a smaller one of their family in numbers alone are built and
counted every day, and take that step nightly.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf
from shared_fixtures import LANE_ONE

from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.encoders import ENCODERS, encoder_layers
from clouds_tf.models.encoders.keras_cv_backbones import BACKBONES
from clouds_tf.models.losses import entropy
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.models.unet import outline, unet
from clouds_tf.models.weights import load_encoder_weights, load_model, save_model_weights
from clouds_tf.prediction.fusing import fuse
from clouds_tf.training import distribution

pytestmark = [pytest.mark.slow, pytest.mark.lanes]

needs_keras_cv = pytest.mark.skipif(not LANE_ONE, reason="keras-cv works with TensorFlow 2.15")
WIDTH = 0.25
# Their layers are those of the others too, and of the two of ResNet-34, which have tests of theirs.
WHOLE_WAY = ("csp_darknet_s", "mobilenet_v3_small", "resnet50_v2")
LARGER = {"efficientnetv2_b2", "efficientnetv2_s", "mobilenet_v3_large"}
# All others, but for one that takes its step beside keras-cv and those of tiny.py.
ONE_STEP = {*ENCODERS} - {*WHOLE_WAY, "efficientnetv2_b0", "tiny", "tiny_preactivation"}

# Parameters as keras-cv lists them, but for MobileNetV3: as in keras.applications, because
# keras-cv's list (933,502 and 2,994,518) is older than its rounding of the channels of squeeze and
# excitation.
PUBLISHED_PARAMETERS = {
    "csp_darknet_s": 4_223_488,
    "densenet121": 7_037_504,
    "efficientnetv2_b0": 5_919_312,
    "efficientnetv2_b2": 8_769_374,
    "efficientnetv2_s": 20_331_360,
    "mobilenet_v3_large": 2_996_352,
    "mobilenet_v3_small": 939_120,
    "resnet50_v2": 23_564_800,
}
# What the U-Net does without: the convolution and batch norm right before a classifier.
CLASSIFIERS = {"efficientnetv2_b0": 192 * 1280 + 4 * 1280, "mobilenet_v3_small": 96 * 576 + 4 * 576}


@pytest.fixture(autouse=True)
def _skip_in_lane_two(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    if name in BACKBONES and not LANE_ONE:
        pytest.skip("keras-cv works with TensorFlow 2.15")


@functools.lru_cache(maxsize=None)
def _model(name):
    """A model of two classes, none of whose weights is trivial; no test changes them."""
    keras.utils.set_random_seed(0)
    model = unet(**_arguments(name))
    _randomize(model.weights)
    return model


def _arguments(name):
    head = name == "resnet50_v2"
    return {"num_classes": 2, "width": WIDTH, "encoder": name, "classification_head": head}


def _images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, [*shape, 3], dtype=np.uint8)


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def _randomize(weights, seed=0):
    """Weights with which nothing is trivial, and maps stay around 1."""
    rng = np.random.default_rng(seed)
    for weight in weights:
        shape = weight.shape.as_list()
        if len(shape) > 1:
            depthwise = "depthwise" in weight.name
            fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
            weight.assign(rng.normal(0, fan_in**-0.5, shape))
        elif "gamma" in weight.name or "variance" in weight.name:
            weight.assign(rng.uniform(0.5, 1.5, shape))
        else:
            weight.assign(rng.normal(0, 0.2, shape))


def _check_frozen(model):
    """A step changes the decoder; a frozen encoder and its statistics stay as they are."""
    images = _images(2, 32, 64)
    encoder = encoder_layers(model)
    for layer in encoder:
        layer.trainable = False
    before = [layer.get_weights() for layer in encoder]
    head = model.get_layer("decoder1_bn1").moving_mean.numpy()
    model(images, training=True)
    for layer, weights in zip(encoder, before):
        for found, expected in zip(layer.get_weights(), weights):
            np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(model.get_layer("decoder1_bn1").moving_mean, head)
    for layer in encoder:
        layer.trainable = True


def _check_gradients(model):
    images = _images(2, 32, 64)
    masks = np.repeat(images[..., :1] > 127, model.output_shape["logits"][-1], axis=-1)
    with tf.GradientTape() as tape:
        outputs = model(images, training=True)
        loss = tf.reduce_mean(entropy.bce(masks, outputs["logits"]))
        if "presence_logits" in outputs:
            loss += tf.reduce_mean(losses.presence_bce(masks, outputs["presence_logits"]))
    gradients = tape.gradient(loss, model.trainable_weights)
    for weight, gradient in zip(model.trainable_weights, gradients):
        assert gradient is not None and np.isfinite(gradient).all(), weight.name


def _check_parts(model):
    """Normalization and the names and sizes of the stages are those that others rely on."""
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert all(isinstance(norm, BatchNorm) for norm in norms)  # over all replicas
    rest = {layer.name.split("_")[0] for layer in model.layers} - {"decoder1"}
    rest -= {layer.name.split("_")[0] for layer in encoder_layers(model)}
    others = {"image", "pad", "head", "logits", "presence"}
    assert rest <= others | {f"decoder{step}" for step in range(1, 6)}
    names = [weight.name for weight in model.weights]
    assert len(set(names)) == len(names)
    down, up = outline(model, (64, 96))
    assert [stage.height for stage in down] == [64, 32, 16, 8, 4, 2]
    assert [stage.height for stage in up] == [4, 8, 16, 32, 64, 64]


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=[pytest.mark.nightly] * (x in LARGER)) for x in sorted(ONE_STEP)],
)
def test_a_step(name):
    # At its full width, a backbone can be counted too.
    is_counted = name in {*BACKBONES} - LARGER
    model = unet(2, 1.0 if is_counted else WIDTH, name)
    if is_counted:
        encoder = [weight for layer in encoder_layers(model) for weight in layer.weights]
        assert _count(encoder) == PUBLISHED_PARAMETERS[name]
    _check_gradients(model)
    _check_parts(model)


@pytest.mark.parametrize("name", WHOLE_WAY)
def test_the_whole_way(name, tmp_path):
    model = _model(name)
    weights = model.get_weights()
    _check_frozen(model)
    _check_gradients(model)
    _check_parts(model)
    model.set_weights(weights)

    images = _images(2, 45, 70)
    expected = model(images, training=False)
    assert expected["logits"].shape == (2, 45, 70, 2)
    scale = np.abs(expected["logits"]).max()
    assert 1e-3 < scale < 1e4
    found = fuse(model)(images)
    assert sorted(found) == sorted(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, atol=2e-4 * np.abs(values).max())

    if name == "resnet50_v2":
        return  # its layers are among those of the others
    path = str(tmp_path / "model.keras")
    model.save(path)
    logits = keras.models.load_model(path)(images, training=False)["logits"]
    np.testing.assert_array_equal(logits, expected["logits"])
    if name == "mobilenet_v3_small":
        return  # its weights are read in a test below
    path = str(tmp_path / "model.safetensors")
    save_model_weights(model, path, {"model": _arguments(name)})
    again, _ = load_model(path)
    assert [weight.name for weight in again.weights] == [weight.name for weight in model.weights]
    logits = again(images, training=False)["logits"]
    np.testing.assert_allclose(logits, expected["logits"], atol=0.05 * scale)


def test_every_backbone_is_counted():
    assert sorted(BACKBONES) == sorted(PUBLISHED_PARAMETERS)
    assert LARGER <= ONE_STEP


# The others are counted where they take a step.
@pytest.mark.parametrize("name", ["csp_darknet_s", "resnet50_v2", *sorted(LARGER)])
def test_parameters_are_the_published_ones(name):
    assert BACKBONES[name].build(1.0, 3).count_params() == PUBLISHED_PARAMETERS[name]


@pytest.mark.parametrize(
    "name, ending", [("efficientnetv2_b0", ".h5"), ("mobilenet_v3_small", ".weights.h5")]
)
def test_features_and_weights_are_those_of_keras_cv(name, ending, tmp_path):
    backbone = BACKBONES[name].build(1.0, 3)
    assert backbone.count_params() == PUBLISHED_PARAMETERS[name]
    _randomize(backbone.weights)
    path = str(tmp_path / f"backbone{ending}")
    backbone.save_weights(path)
    model = unet(encoder=name)
    load_encoder_weights(model, path)
    encoder = [weight for layer in encoder_layers(model) for weight in layer.weights]
    assert _count(encoder) == PUBLISHED_PARAMETERS[name] - CLASSIFIERS[name]

    skips = [model.get_layer(f"decoder{step}_conv1").input for step in (4, 3, 2, 1)]
    ours = [skip for _, skip in skips] + [skips[-1][0]]
    images = _images(2, 64, 96)
    theirs = keras.Model(backbone.input, BACKBONES[name].features(backbone))
    for found, expected in zip(
        keras.Model(model.input, ours)(images, training=False),
        theirs(np.float32(images), training=False),
    ):
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    for level in (1, 2, 3, 4):  # keras-cv's own choice of features
        layer = backbone.get_layer(backbone.pyramid_level_inputs[f"P{level}"])
        assert layer.output is theirs.outputs[level - 1]
    if name not in WHOLE_WAY:
        _check_parts(model)
        _check_gradients(model)


@needs_keras_cv
def test_weights_of_another_backbone_are_refused(tmp_path):
    model, path = _model("mobilenet_v3_small"), str(tmp_path / "other.h5")
    model.save_weights(path)
    with pytest.raises(ValueError, match="other.h5: does not fit") as error:
        load_encoder_weights(model, path)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="none.h5"):
        load_encoder_weights(model, str(tmp_path / "none.h5"))
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"<!doctype html>")
    with pytest.raises(ValueError, match="broken.keras: does not fit"):
        load_encoder_weights(model, str(broken))
    with pytest.raises(ValueError, match="takes weights from a file that ends in .h5 or .keras"):
        load_encoder_weights(model, str(tmp_path / "resnet.safetensors"))


@pytest.mark.parametrize(
    "name, precision",
    [
        ("mobilenet_v3_small", "bfloat16"),
        pytest.param("mobilenet_v3_small", "float16", marks=pytest.mark.nightly),
    ],
)
def test_half_precision_is_close_to_float32(name, precision):
    exact = _model(name)
    with distribution.precision(precision):
        mixed = unet(**_arguments(name))
    mixed.set_weights(exact.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {tf.float32}
    assert encoder_layers(mixed)[-1].compute_dtype == precision
    images = _images(1, 64, 96)
    found, expected = (model(images, training=False)["logits"] for model in (mixed, exact))
    assert found.dtype == tf.float32
    assert np.abs(found - expected).mean() < 0.2 * np.abs(expected).mean()


@pytest.mark.skipif(LANE_ONE, reason="keras-cv works with TensorFlow 2.15")
def test_lane_two_says_which_encoders_it_has():
    message = "needs TensorFlow 2.15.*efficientnet_lite2 work with both"
    with pytest.raises(ValueError, match=message):
        unet(encoder="densenet121")
