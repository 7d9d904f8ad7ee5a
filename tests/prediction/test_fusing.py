import functools

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models.encoders import resnet
from clouds_tf.models.losses import entropy
from clouds_tf.models.metrics import Scores
from clouds_tf.models.unet import unet
from clouds_tf.models.upsampling import UpsampleConv
from clouds_tf.prediction.fusing import fuse

layers = keras.layers


def _randomized(model, seed=0):
    """Batch norm that is not trivial, and maps that neither grow nor vanish."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization) and layer.scale:
            for weight, (low, high) in zip(
                (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance),
                ((0.5, 1.5), (-0.2, 0.2), (-0.2, 0.2), (0.5, 1.5)),
            ):
                weight.assign(rng.uniform(low, high, weight.shape))
    for layer in model.layers:
        if isinstance(layer, (layers.Conv2D, UpsampleConv)):
            fan_in = np.prod(layer.kernel.shape[:-1])
            layer.kernel.assign(rng.normal(0, (1.4 / fan_in) ** 0.5, layer.kernel.shape))
    return model


def _images(*shape):
    return np.random.default_rng(1).integers(0, 256, [*shape, 3], dtype=np.uint8)


def _assert_close(found, expected):
    """Logits up to 10 within 1e-4; these are a little larger."""
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def _norms(model):
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


ENCODERS = ["resnet34", "resnet34_preactivation"]
STAGE_BLOCKS = (2, 1, 1, 1)


@pytest.fixture(scope="module", autouse=True)
def shallow():
    """Models of ResNet-34 get five blocks: all kinds of layers in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "_STAGE_BLOCKS", STAGE_BLOCKS)
        yield


@functools.lru_cache
def _unet(encoder):
    """A model, its fused copy, and its weights before that."""
    model = _randomized(unet(width=0.125, encoder=encoder, classification_head=True))
    before = model.get_weights()
    return model, fuse(model), before


@pytest.mark.lanes
@pytest.mark.parametrize("encoder", ENCODERS)
def test_logits_are_equal(encoder):
    model, fused, _ = _unet(encoder)
    names = [layer.name for layer in fused.layers if isinstance(layer, UpsampleConv)]
    assert names == [f"decoder{step}_conv1" for step in (1, 2, 3, 4, 5)]
    assert all(fused.get_layer(name).fused for name in names)
    for size in ((64, 96), (45, 96)):
        found = fused(_images(2, *size))
        expected = model(_images(2, *size), training=False)
        assert np.abs(expected["logits"]).max() > 0.1
        for name in ("logits", "presence_logits"):
            _assert_close(found[name], expected[name])


def test_all_batch_norm_goes_from_the_postactivation_network():
    assert not _norms(_unet("resnet34")[1])


def test_batch_norm_without_a_convolution_before_it_stays():
    expected = ["stem_image_bn", "stage4_bn"]
    for stage, blocks in enumerate(STAGE_BLOCKS, start=1):
        expected += [f"stage{stage}_block{block}_bn1" for block in range(1, blocks + 1)]
    assert sorted(_norms(_unet("resnet34_preactivation")[1])) == sorted(expected)


@pytest.mark.lanes
def test_by_hand():
    image = keras.Input([1, 1, 1])
    x = layers.Conv2D(1, 1, use_bias=True, name="conv")(image)
    model = keras.Model(image, layers.BatchNormalization(epsilon=1, name="bn")(x))
    model.get_layer("conv").set_weights([np.full([1, 1, 1, 1], 3.0), np.array([2.0])])
    model.get_layer("bn").set_weights([np.array([v]) for v in (10.0, 7.0, 5.0, 24.0)])
    # 10 (3 x + 2 - 5) / sqrt(24 + 1) + 7 = 6 x + 1
    kernel, bias = fuse(model).get_layer("conv").get_weights()
    assert kernel.item() == pytest.approx(6) and bias.item() == pytest.approx(1)


@pytest.mark.lanes
def test_a_depthwise_convolution_by_hand():
    image = keras.Input([1, 1, 2])
    x = layers.DepthwiseConv2D(1, depth_multiplier=2, use_bias=False, name="conv")(image)
    model = keras.Model(image, layers.BatchNormalization(epsilon=0, name="bn")(x))
    model.get_layer("conv").set_weights([np.reshape([1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2])])
    gamma, beta, mean, variance = [1, 2, 3, 4], [0] * 4, [5] * 4, [4] * 4
    model.get_layer("bn").set_weights([np.float32(v) for v in (gamma, beta, mean, variance)])
    fused = fuse(model)
    assert not _norms(fused)
    # gamma (k x - 5) / 2 with x = 10 for the first two outputs and 100 for the others.
    found = fused(np.reshape([10.0, 100.0], [1, 1, 1, 2])).numpy().ravel()
    np.testing.assert_allclose(found, [2.5, 15, 442.5, 790])


@pytest.mark.slow
def test_a_convolution_with_an_activation_keeps_its_batch_norm():
    image = keras.Input([4, 4, 1])
    x = layers.Conv2D(2, 1, activation="relu", name="conv")(image)
    fused = fuse(keras.Model(image, layers.BatchNormalization(name="bn")(x)))
    assert _norms(fused) == ["bn"]


def test_a_fused_model_can_be_fused_again():
    fused = _unet("resnet34")[1]
    expected = fused(_images(1, 32, 64))["logits"]
    np.testing.assert_array_equal(fuse(fused)(_images(1, 32, 64))["logits"], expected)


def test_a_convolution_that_others_read_too_is_left_alone():
    image = keras.Input([4, 4, 1])
    x = layers.Conv2D(2, 1, name="conv")(image)
    both = layers.Add()([x, layers.BatchNormalization(name="bn")(x)])
    model = keras.Model(image, both)
    model.get_layer("bn").moving_mean.assign([1.0, 2.0])
    fused = fuse(model)
    assert _norms(fused) == ["bn"]
    example = np.random.default_rng(0).normal(size=[1, 4, 4, 1])
    np.testing.assert_allclose(fused(example), model(example, training=False), atol=1e-6)


def test_the_model_itself_does_not_change():
    model, *_, before = _unet("resnet34")
    for left, right in zip(model.get_weights(), before):
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_bfloat16_scores_as_float32_does_once_it_is_trained():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, [8, 4, 6, 3]).repeat(8, axis=1).repeat(8, axis=2)
    images = np.uint8(np.clip(blocks + rng.normal(0, 10, blocks.shape), 0, 255))
    masks = np.uint8(np.concatenate([images, images[..., :1]], axis=3) > 128)
    model = unet(width=0.0625, encoder="tiny")
    optimizer = keras.optimizers.Adam(3e-3)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(entropy.bce(masks, model(images, training=True)["logits"]))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))

    for _ in range(50):
        step()

    def dice(precision):
        keras.mixed_precision.set_global_policy(precision)
        try:
            again = unet(width=0.0625, encoder="tiny")
            again.set_weights(model.get_weights())
            exported = fuse(again)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        scores = Scores(CLOUDS.class_names)
        scores.update_state(masks, exported(images)["logits"])
        return float(scores.result()["dice"])

    exact = dice("float32")
    assert exact > 0.8
    assert dice("mixed_bfloat16") == pytest.approx(exact, abs=0.001)
