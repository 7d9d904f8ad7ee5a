import functools
import re

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.encoders import resnet
from clouds_tf.models.metrics import Scores
from clouds_tf.models.unet import CropLike, ReflectPad, outline, unet, unet_arguments
from clouds_tf.prediction.fusing import fuse

WIDTH = 0.125


def _images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def _logits(model, images):
    return model(images, training=False)["logits"]


@functools.lru_cache(maxsize=None)
def _model(encoder):
    keras.utils.set_random_seed(0)
    return unet(width=WIDTH, encoder=encoder)


@pytest.fixture
def model():
    return _model("resnet34")


@pytest.fixture(params=["resnet34", "resnet34_preactivation"])
def either(request):
    return _model(request.param)


@pytest.fixture
def shallow(monkeypatch):
    """Models of ResNet-34 get one block a stage: all kinds of layers in a third of the time."""
    monkeypatch.setattr(resnet, "_STAGE_BLOCKS", (1, 1, 1, 1))


@pytest.fixture
def precision(request):
    keras.mixed_precision.set_global_policy(request.param)
    yield request.param
    keras.mixed_precision.set_global_policy("float32")


def _count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


@pytest.mark.slow
@pytest.mark.lanes
def test_parameters_are_those_of_segmentation_models_pytorch():
    assert _count(unet(num_classes=4).trainable_weights) == 24_436_804


@pytest.mark.slow
def test_parameters_are_those_of_segmentation_models():
    model = unet(num_classes=4, encoder="resnet34_preactivation")
    assert _count(model.weights) == 24_456_589
    assert _count(model.trainable_weights) == 24_439_239


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (17, 45), (32, 32), (33, 64), (96, 64)])
def test_any_size_gives_logits_of_the_same_size(either, size):
    logits = either(_images(2, *size, 3), training=False)["logits"]
    assert logits.dtype == tf.float32
    assert logits.shape == (2, *size, 4)
    assert np.isfinite(logits).all()


def test_size_of_the_input_is_open(model):
    assert model.input_shape == (None, None, None, 3)
    assert model.output_shape == {"logits": (None, None, None, 4)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_the_number_type_of_images_does_not_matter(either, dtype):
    images = _images(1, 32, 64, 3)
    np.testing.assert_array_equal(_logits(either, images), _logits(either, images.astype(dtype)))


def test_scaling_is_part_of_the_model(model):
    # 124, 116, 104 is the mean of ImageNet in 0..255, and 58, 57, 57 its standard deviation.
    scaled = keras.Model(model.input, model.get_layer("stem_conv").input)
    size = 32
    mean = np.full([1, size, size, 3], (123.675, 116.28, 103.53), np.float32)
    std = np.float32([58.395, 57.12, 57.375])
    inside = slice(3, 3 + size)  # of the zeros that the first convolution needs
    got = np.stack([scaled(mean + n * std)[0, inside, inside] for n in (0, 1, -1)])
    np.testing.assert_allclose(got, np.ones_like(got) * [[[[0]]], [[[1]]], [[[-1]]]], atol=1e-5)


def test_padding_continues_the_image_so_that_its_logits_barely_see_an_edge(model):
    # A 45 wide image is padded to 64: the same pixels as numpy's reflection, given whole.
    image = _images(1, 40, 45, 3)
    whole = np.pad(image, [(0, 0), (0, 24), (0, 19), (0, 0)], mode="reflect")
    np.testing.assert_allclose(_logits(model, image), _logits(model, whole)[:, :40, :45], atol=1e-5)


@pytest.mark.parametrize("size", [(31, 17), (33, 64), (45, 90), (18, 2)])
def test_reflect_pad_is_that_of_numpy(size):
    image = _images(2, *size, 3)
    rest = [(0, -length % 32) for length in size]
    expected = np.pad(image, [(0, 0), *rest, (0, 0)], mode="reflect")
    np.testing.assert_array_equal(ReflectPad()(image), expected)


def test_reflect_pad_repeats_a_single_pixel():
    padded = ReflectPad()(np.full([1, 1, 1, 3], 7, np.uint8))
    np.testing.assert_array_equal(padded, np.full([1, 32, 32, 3], 7))


def test_crop_is_the_top_left():
    x = np.arange(2 * 4 * 4 * 1).reshape(2, 4, 4, 1)
    cropped = CropLike()([x, np.zeros([2, 3, 1, 3])])
    np.testing.assert_array_equal(cropped, x[:, :3, :1])


@pytest.mark.slow
def test_xla_compiles_the_gradient(shallow):
    model = unet(width=0.0625)
    images, mask = _images(2, 32, 64, 3), _images(2, 32, 64, 4) % 2

    def gradients():
        with tf.GradientTape() as tape:
            logits = model(images, training=False)["logits"]
            entropy = tf.nn.sigmoid_cross_entropy_with_logits(mask.astype(np.float32), logits)
            loss = tf.reduce_mean(entropy)
        return tape.gradient(loss, model.get_layer("stem_conv").kernel)

    compiled, plain = tf.function(gradients, jit_compile=True)(), gradients()
    np.testing.assert_allclose(compiled, plain, atol=1e-5 + 1e-4 * np.abs(plain).max())


@pytest.mark.slow
@pytest.mark.lanes
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"], indirect=True)
def test_precision_leaves_weights_and_logits_in_float32(either, precision):
    mixed = unet(width=WIDTH, encoder=either.name[len("unet_") :])
    mixed.set_weights(either.get_weights())
    assert {weight.dtype for weight in mixed.weights} == {tf.float32}
    assert mixed.get_layer("stage2_block1_conv1").compute_dtype == precision.split("_")[1]
    assert mixed.get_layer("head_conv").compute_dtype == "float32"  # its result is not rounded
    images = _images(1, 64, 64, 3)
    logits, exact = _logits(mixed, images), _logits(either, images)
    assert logits.dtype == tf.float32
    # 37 layers of 8 bits of mantissa, and batch norm that has not been trained to hold them down.
    assert np.abs(logits - exact).mean() < 0.2 * np.abs(exact).mean()


@pytest.mark.parametrize("precision", ["mixed_float16"], indirect=True)
def test_float16_does_not_overflow_where_it_cannot_count_the_pixels(precision, shallow):
    # 256 x 288 are 73,728; the greatest float16 is 65,504. CPUs are slow in it.
    model = unet(width=0.0625)
    images = _images(1, 256, 288, 3) // 255 * 255
    assert np.isfinite(model(images, training=True)["logits"]).all()


def test_images_of_a_batch_do_not_see_each_other(either):
    images = _images(3, 32, 32, 3)
    alone = np.concatenate([_logits(either, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(_logits(either, images), alone, atol=1e-4)


@pytest.mark.slow
def test_classification_head_gives_presence_beside_the_same_logits(model):
    both = unet(width=WIDTH, classification_head=True)
    weights = {weight.name: weight for weight in model.weights}
    for weight in both.weights:
        if not weight.name.startswith("presence"):
            weight.assign(weights[weight.name])
    images = _images(2, 40, 45, 3)
    outputs = both(images)
    assert sorted(outputs) == ["logits", "presence_logits"]
    presence_logits = outputs["presence_logits"]
    assert presence_logits.shape == (2, 4) and presence_logits.dtype == tf.float32
    np.testing.assert_array_equal(outputs["logits"], _logits(model, images))


def test_presence_is_linear_in_the_mean_of_the_deepest_features(shallow):
    model = unet(width=WIDTH, classification_head=True)
    names = ("stage4_block1_relu2", "presence")
    images = _images(2, 64, 96, 3)
    deepest, presence = keras.Model(model.input, [model.get_layer(n).output for n in names])(images)
    kernel, bias = model.get_layer("presence").get_weights()
    expected = deepest.numpy().mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(presence, expected, rtol=1e-4, atol=1e-5)


def test_classes_and_width_are_arguments(shallow):
    model = unet(num_classes=2, width=0.0625)
    assert model.output_shape["logits"][-1] == 2
    assert model.get_layer("stage4_block1_conv2").filters == 32
    assert model.get_layer("decoder5_conv2").filters == 16  # the fewest


@pytest.mark.slow
def test_the_decoder_has_a_width_of_its_own():
    model = unet(width=0.25, decoder_width=0.5)
    assert model.get_layer("stage4_block1_conv2").filters == 128
    assert model.get_layer("decoder1_conv2").filters == 32
    assert unet_arguments(model)["decoder_width"] == 0.5
    assert "decoder_width" not in unet_arguments(unet(width=0.0625))  # for earlier readers
    with pytest.raises(ValueError, match="decoder_width: got 9"):
        unet(decoder_width=9)


def test_outline_is_that_of_the_papers(either):
    # ResNet's table 1 and the decoder's channels, here an eighth of them, and never less than 16.
    down, up = outline(either, (64, 96))
    names = ["image", "stem", "stage1", "stage2", "stage3", "stage4"]
    assert [stage.name for stage in down] == names
    assert [stage.convolutions for stage in down] == [0, 1, 6, 8, 12, 6]
    assert [stage.height for stage in down] == [64, 32, 16, 8, 4, 2]
    assert [stage.channels for stage in down] == [3, 16, 16, 16, 32, 64]
    assert [stage.name for stage in up] == [f"decoder{n}" for n in range(1, 6)] + ["head"]
    assert [stage.convolutions for stage in up] == [2, 2, 2, 2, 2, 1]
    assert [stage.width for stage in up] == [6, 12, 24, 48, 96, 96]
    assert [stage.channels for stage in up] == [32, 16, 16, 16, 16, 4]


def test_the_summary_reads_like_the_paper(model):
    lines = []
    model.summary(print_fn=lines.append, line_length=140)
    skips = re.findall(r"(\w+) \(UpsampleConv\).*\s+'(\w+)\[0\]\[0\]'\]", "\n".join(lines))
    assert skips == [
        ("decoder1_conv1", "stage3_block6_relu2"),
        ("decoder2_conv1", "stage2_block4_relu2"),
        ("decoder3_conv1", "stage1_block3_relu2"),
        ("decoder4_conv1", "stem_relu"),
    ]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"encoder": "resnet50"}, "encoder: got 'resnet50', expected one of .*resnet34"),
        ({"width": 0}, "width: got 0, expected more than 0"),
        ({"num_classes": 0}, "num_classes: got 0, expected 1 to 32"),
        ({"num_classes": 33}, "num_classes: got 33, expected 1 to 32"),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        unet(**arguments)


@pytest.mark.lanes
@pytest.mark.slow
@pytest.mark.parametrize(
    "save_format, encoder, head, compiled",
    [
        ("keras", "resnet34", True, True),
        ("keras", "resnet34_preactivation", False, False),
        ("h5", "resnet34", False, True),
        ("tf", "resnet34", True, True),
    ],
)
def test_a_saved_model_comes_back_the_same(shallow, save_format, encoder, head, compiled, tmp_path):
    model = unet(3, width=0.0625, encoder=encoder, classification_head=head)
    if compiled:
        scores = Scores(class_names="abc")
        model.compile("adam", {"logits": losses.parse("bce_dice")}, {"logits": scores})
    for fused in (model,) if save_format != "h5" and compiled else (model, fuse(model)):
        path = str(tmp_path / ("model" + {"keras": ".keras", "h5": ".h5", "tf": ""}[save_format]))
        fused.save(path, save_format=save_format)
        loaded = keras.models.load_model(path)
        images = _images(2, 33, 64, 3)
        found, expected = loaded(images, training=False), fused(images, training=False)
        assert sorted(found) == sorted(expected)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)
        if compiled and fused is model:
            masks = {"logits": _images(2, 33, 64, 3) % 2}
            tf.config.run_functions_eagerly(True)  # a trace takes longer than a step
            try:
                for each in (loaded, model):
                    each.train_on_batch(images, masks)
            finally:
                tf.config.run_functions_eagerly(False)
            np.testing.assert_allclose(
                loaded(images)["logits"], model(images)["logits"], rtol=1e-3, atol=1e-3
            )
