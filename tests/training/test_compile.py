"""What `compile_model` can do with a model: two heads, a frozen or slow encoder, XLA, replicas."""

import numpy as np
import pytest
import tensorflow as tf

from clouds_tf.models import losses
from clouds_tf.models.resnet import batch_norm, encoder_layers
from clouds_tf.models.unet import ENCODERS, segmentation, unet
from clouds_tf.training import distribution, workdir
from clouds_tf.training.fit import PRESENCE_WEIGHT, compile_model, fit

SIZE = (32, 48)
WIDTH = 0.0625


def _batches(num=4, batch_size=2):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [num, *SIZE, 3], dtype=np.uint8)
    masks = np.repeat(images[..., :1] > 128, 4, axis=3).astype(np.uint8)
    masks[0] = 0
    return tf.data.Dataset.from_tensor_slices((images, masks)).batch(batch_size)


def _fit(model, folder, epochs=1, batches=None):
    model.run_eagerly = True  # quicker than tracing, for a few steps
    batches = _batches() if batches is None else batches
    steps = int(batches.cardinality())
    return fit(model, lambda epoch: batches.repeat(), batches, str(folder), epochs, steps)


def _snapshot(layers):
    return {weight.name: weight.numpy() for layer in layers for weight in layer.weights}


def test_two_heads_train_and_are_told_apart(tmp_path):
    tf.keras.utils.set_random_seed(0)
    model = unet(width=WIDTH, classification_head=True)
    compile_model(model)
    before = model.get_layer("presence").get_weights()
    (row,) = _fit(model, tmp_path)
    assert {"logits_loss", "presence_loss", "dice", "val_dice", "val_dice_Sugar"} <= set(row)
    assert row["loss"] == pytest.approx(row["logits_loss"] + 0.1 * row["presence_loss"], rel=1e-4)
    assert PRESENCE_WEIGHT == 0.1
    assert not np.allclose(before[0], model.get_layer("presence").get_weights()[0])


def test_loss_of_presence_is_that_of_the_masks(tmp_path):
    tf.keras.utils.set_random_seed(0)
    model = unet(width=WIDTH, classification_head=True)
    compile_model(model)
    (row,) = _fit(model, tmp_path)
    values = [
        losses.presence_bce(mask, model(image, training=False)["presence"])
        for image, mask in _batches()
    ]
    assert row["val_presence_loss"] == pytest.approx(np.concatenate(values).mean(), rel=1e-3)


def test_the_model_with_two_heads_is_loaded_again(tmp_path):
    settings = {"model": {"width": WIDTH, "classification_head": True}}
    workdir.start(str(tmp_path), settings)
    model = unet(**settings["model"])
    compile_model(model)
    _fit(model, tmp_path)
    loaded = workdir.load_model(str(tmp_path))
    images = next(iter(_batches()))[0]
    np.testing.assert_allclose(
        segmentation(loaded)(images), segmentation(model)(images, training=False), atol=1e-5
    )


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_frozen_encoder_and_its_batch_norm_stay(tmp_path, encoder):
    model = unet(width=WIDTH, encoder=encoder)
    compile_model(model, freeze_encoder=True)
    before = _snapshot(model.layers)
    _fit(model, tmp_path)
    frozen = _snapshot(encoder_layers(model))
    for name, value in _snapshot(model.layers).items():
        same = np.array_equal(value, before[name])
        assert same == (name in frozen), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_factor_of_zero_leaves_all_but_the_statistics(tmp_path, precision):
    distribution.set_precision(precision)
    try:
        model = unet(width=WIDTH)
    finally:
        distribution.set_precision("float32")
    compile_model(model, encoder_learning_rate_factor=0)
    before = _snapshot(model.layers)
    _fit(model, tmp_path, epochs=2)
    trained = {weight.name for weight in model.trainable_weights}
    slow = trained & set(_snapshot(encoder_layers(model)))
    for name, value in _snapshot(model.layers).items():
        if name in slow:
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not np.array_equal(
        before["head_conv/kernel:0"], model.get_layer("head_conv").kernel.numpy()
    )


def test_xla_takes_the_same_step():
    # Tiny, because XLA takes half a minute to compile the U-Net's; its gradient: see test_unet.
    images = np.random.default_rng(0).integers(0, 256, [2, *SIZE, 3], dtype=np.uint8)
    masks = (images[..., :1] > 128).astype(np.uint8)
    values = []
    for xla in (False, True):
        tf.keras.utils.set_random_seed(0)
        image = tf.keras.Input([*SIZE, 3])
        hidden = tf.keras.layers.Conv2D(4, 3, activation="relu", padding="same")(image)
        model = tf.keras.Model(image, tf.keras.layers.Conv2D(4, 1, name="logits")(hidden))
        compile_model(model, xla=xla)
        mask = np.repeat(masks, 4, axis=3)
        values.append([model.train_on_batch(images, mask, return_dict=True) for _ in range(3)])
        assert model.jit_compile == xla
    for plain, compiled in zip(*values):
        assert {k: float(v) for k, v in compiled.items()} == pytest.approx(
            {k: float(v) for k, v in plain.items()}, rel=1e-3, abs=1e-4
        )


def test_xla_under_several_replicas_is_an_error():
    with distribution.strategy("mirrored", 2).scope():
        model = unet(width=WIDTH)
        with pytest.raises(ValueError, match="xla: .*one device"):
            compile_model(model, xla=True)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("num", [3, 1])  # images: two and one, or one and none
def test_batch_norm_is_over_all_replicas(precision, num):
    # The outputs and moving statistics are those of one device that saw the whole batch.
    images = np.random.default_rng(0).normal(5, 1, [num, 64, 64, 2]).astype(np.float32)
    images[:2] *= 2  # so that the replicas differ

    def run(strategy):
        distribution.set_precision(precision)
        try:
            with strategy.scope():
                image = tf.keras.Input([64, 64, 2])
                model = tf.keras.Model(image, batch_norm(image, "bn", momentum=0.5))
        finally:
            distribution.set_precision("float32")

        @tf.function
        def step(part):
            return strategy.run(lambda x: model(x, training=True), (part,))

        batches = tf.data.Dataset.from_tensor_slices(images).batch(3)
        outputs = [step(part) for part in strategy.experimental_distribute_dataset(batches)]
        outputs = tf.concat(strategy.experimental_local_results(outputs[0]), axis=0)
        return [tf.cast(outputs, tf.float32), *(w.numpy() for w in model.weights)]

    one, two = run(distribution.strategy()), run(distribution.strategy("mirrored", 2))
    assert all(np.isfinite(values).all() for values in two)
    # A replica without images leaves its statistics, and so halves the change of the mean.
    for left, right in zip(one, two[: 1 if num == 1 else None]):
        np.testing.assert_allclose(left, right, rtol=0.01, atol=0.03)
