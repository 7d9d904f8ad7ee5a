"""What a Trainer can do with a model: two heads, a frozen or slow encoder, XLA, any optimizer."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from program import SIZE, batches, network, trainer
from shared_fixtures import LANE_ONE

from clouds_tf.dataset import CLOUDS
from clouds_tf.keras import keras
from clouds_tf.models import losses
from clouds_tf.models.encoders import encoder_layers
from clouds_tf.models.losses import entropy
from clouds_tf.models.unet import unet
from clouds_tf.training import distribution
from clouds_tf.training.choices import OPTIMIZERS
from clouds_tf.training.optimizers import make_optimizer
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.steps import _PRESENCE_WEIGHT, training_step
from clouds_tf.training.trainer import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.lanes, pytest.mark.usefixtures("shallow")]

WIDTH = 0.0625
NO_STOP = tf.constant(0.0)

OF_ADDONS = {"lamb", "lookahead", "radam"}  # which lane two refuses, see test_addons.py


def _unet_trainer(precision="float32", **arguments):
    distribution.set_precision(precision)
    try:
        return Trainer(unet(width=WIDTH), Recipe(epochs=1, **arguments), 10, CLOUDS.class_names)
    finally:
        distribution.set_precision("float32")


def _step_eagerly(run, images, masks):
    """Without a graph: tracing the U-Net takes much longer than one step."""
    tf.config.run_functions_eagerly(True)
    try:
        return run.step(images, masks, NO_STOP)
    finally:
        tf.config.run_functions_eagerly(False)


def _snapshot(layers):
    return {weight.name: weight.numpy() for layer in layers for weight in layer.weights}


def test_two_heads_train_and_are_told_apart():
    run = trainer()
    before = run.model.get_layer("presence").get_weights()
    ((images, masks),) = batches([4])
    outputs = run.model(images, training=False)
    values = run.validate([(images, masks)])
    assert values["val_presence_loss"] == pytest.approx(
        np.mean(losses.presence_bce(masks, outputs["presence_logits"])), rel=1e-5
    )
    assert values["val_loss"] == pytest.approx(
        values["val_logits_loss"] + 0.1 * values["val_presence_loss"], rel=1e-5
    )
    assert _PRESENCE_WEIGHT == 0.1
    run.step(images, masks, NO_STOP)
    assert not np.allclose(before[0], run.model.get_layer("presence").get_weights()[0])


def test_it_learns():
    run = trainer(optimizer="adam", learning_rate=0.01)
    ((images, masks),) = batches([8])
    values = [float(run.step(images, masks, NO_STOP)[0]) for _ in range(20)]
    assert values[-1] < 0.8 * values[0]


def test_the_stop_of_a_worker_comes_back():
    run = trainer()
    ((images, masks),) = batches([2])
    assert float(run.step(images, masks, tf.constant(1.0))[1]) == 1
    assert float(run.step(images, masks, tf.constant(0.0))[1]) == 0


@pytest.mark.parametrize(
    "name, precision",
    [
        *((name, "float32") for name in sorted(OPTIMIZERS) if LANE_ONE or name not in OF_ADDONS),
        ("adam", "float16"),
        *((name, "float16") for name in ("radam",) if LANE_ONE),
    ],
)
def test_every_optimizer_learns_and_goes_on_from_a_checkpoint(name, precision, tmp_path, request):
    ((images, masks),) = batches([4])

    def make():
        distribution.set_precision(precision)
        try:
            return trainer(optimizer=name, learning_rate=0.01, encoder_learning_rate_factor=0.5)
        finally:
            distribution.set_precision("float32")

    # Eagerly takes less than two traces; the scale of a loss is one more thing that graphs hold.
    tf.config.run_functions_eagerly(name == "radam" or precision == "float32")
    request.addfinalizer(lambda: tf.config.run_functions_eagerly(False))
    run = make()
    values = [float(run.step(images, masks, NO_STOP)[0]) for _ in range(5)]
    assert values[-1] < values[0]
    path = tf.train.Checkpoint(run=run).write(str(tmp_path / "c"))
    again = make()
    tf.train.Checkpoint(run=again).read(path).assert_consumed()
    expected = [float(run.step(images, masks, NO_STOP)[0]) for _ in range(3)]
    found = [float(again.step(images, masks, NO_STOP)[0]) for _ in range(3)]
    assert found == pytest.approx(expected, rel=1e-3 if precision == "float16" else 1e-5)


@pytest.mark.parametrize("encoder", ["resnet34", "resnet34_preactivation"])
def test_a_frozen_encoder_and_its_batch_norm_stay(encoder):
    model = unet(width=WIDTH, encoder=encoder)
    recipe = Recipe(epochs=1, loss="bce", freeze_encoder=True)
    run = Trainer(model, recipe, 10, CLOUDS.class_names)
    before = _snapshot(model.layers)
    _step_eagerly(run, *next(iter(batches([2]))))
    frozen = _snapshot(encoder_layers(model))
    for name, value in _snapshot(model.layers).items():
        same = np.array_equal(value, before[name])
        assert same == (name in frozen), name


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_factor_of_zero_leaves_all_but_the_statistics(precision):
    run = _unet_trainer(precision, encoder_learning_rate_factor=0)
    model = run.model
    before = _snapshot(model.layers)
    for images, masks in batches([2] * 4):  # float16 takes some to find a scale of the loss
        _step_eagerly(run, images, masks)
    trained = {weight.name for weight in model.trainable_weights}
    slow = trained & set(_snapshot(encoder_layers(model)))
    assert slow
    for name, value in _snapshot(model.layers).items():
        if name in slow:
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert not np.array_equal(
        before["head_conv/kernel:0"], model.get_layer("head_conv").kernel.numpy()
    )


def test_gradients_are_clipped_to_a_length():
    ((images, masks),) = batches([4])
    changes = []
    for clip_norm in (None, 0.01):
        run = trainer(learning_rate=1.0, clip_norm=clip_norm, ema=None)
        before = [weight.numpy() for weight in run.model.trainable_weights]
        run.step(images, masks, NO_STOP)
        after = [weight.numpy() for weight in run.model.trainable_weights]
        changes.append(np.concatenate([(a - b).ravel() for a, b in zip(after, before)]))
    momentum = 1.9  # of Nesterov's first step
    assert np.linalg.norm(changes[1]) == pytest.approx(0.01 * momentum, rel=1e-3)
    np.testing.assert_allclose(
        changes[1] / np.linalg.norm(changes[1]), changes[0] / np.linalg.norm(changes[0]), atol=1e-4
    )


def test_gradients_are_clipped_when_they_are_summed():
    strategy = distribution.strategy("mirrored", 2)
    image = tf.random.stateless_uniform([2, 8, 8, 3], [1, 2])
    mask = tf.ones([2, 8, 8, 4])
    with strategy.scope():
        layer = keras.layers.Conv2D(4, 1)
        inputs = keras.Input([8, 8, 3])
        model = keras.Model(inputs, {"logits": layer(inputs)})
        optimizer = make_optimizer("sgd", 1.0, model.trainable_variables)
        step = training_step(model, optimizer, entropy.bce, None, clip_norm=0.01)
    images, masks, stop = (
        strategy.experimental_distribute_values_from_function(lambda _, x=x: x)
        for x in (image, mask, NO_STOP)
    )
    before = [weight.numpy() for weight in layer.weights]
    step(images, masks, stop)
    changes = [weight.numpy() - old for weight, old in zip(layer.weights, before)]
    length = np.sqrt(sum((change**2).sum() for change in changes))
    assert length == pytest.approx(0.01 * 1.9, rel=1e-3)  # momentum of Nesterov's first step


def test_the_average_is_what_is_validated():
    run = trainer(ema=0.5)
    ((images, masks),) = batches([4])
    run.step(images, masks, NO_STOP)
    plain = run.validate([(images, masks)])["val_loss"]
    with run.average_applied():
        averaged = run.validate([(images, masks)])["val_loss"]
    assert averaged != plain == run.validate([(images, masks)])["val_loss"]


def test_the_learning_rate_falls_on_a_plateau():
    run = trainer(schedule="plateau", learning_rate=0.4)
    run.begin_epoch([0.5, 0.4, 0.4, 0.4])
    assert run.learning_rate() == pytest.approx(0.2)


def test_xla_takes_the_same_step():
    # The network is small, because XLA takes half a minute to compile the U-Net's gradient, which
    # tests/models/test_unet.py compiles.
    data = list(batches([4, 4, 4]))
    plain, compiled = (
        [float(run.step(images, masks, NO_STOP)[0]) for images, masks in data]
        for run in (trainer(), trainer(xla=True))
    )
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_xla_under_several_replicas_is_an_error():
    with distribution.strategy("mirrored", 2).scope():
        with pytest.raises(ValueError, match="xla: .*expected one"):
            Trainer(network(), Recipe(xla=True), 10, CLOUDS.class_names)


def test_masks_and_images_of_the_program_are_of_its_size():
    ((images, masks),) = batches([2])
    assert images.shape == [2, *SIZE, 3] and masks.shape == [2, *SIZE, 4]


def test_one_run_after_another_does_not_make_tensorflow_warn_of_retracing(caplog):
    """As with --fold=all, where each fold has a trainer of its own."""
    data = batches([2])
    (images, _), *_ = data
    with caplog.at_level("WARNING", logger="tensorflow"):
        for _ in range(5):
            run = trainer()
            run.step = run.validation_step = mock.Mock()  # their traces take long
            run.trace(data, data)
            run.predict(images)
    assert not [record.message for record in caplog.records if "retracing" in record.message]
