"""Fits a model to batches, in a workdir from which the same command goes on."""

import math
import os
import sys
import time

import tensorflow as tf

from clouds_tf import figures
from clouds_tf.models import losses
from clouds_tf.models.metrics import Scores
from clouds_tf.models.resnet import encoder_layers
from clouds_tf.training import layerwise
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.optimizers import Nadam

SCORE = "val_dice"  # decides which epoch is the best
PRESENCE_WEIGHT = 0.1  # of the classification head's loss, as in the competition's first place


def compile_model(
    model,
    loss="bce_dice",
    learning_rate=2e-4,
    freeze_encoder=False,
    encoder_learning_rate_factor=1.0,
    xla=False,
):
    """Gives a model the baseline's optimizer (Nadam), a loss by name and the competition's scores.

    Args:
        model: of `unet`. Its classification head, if it has one, gets a cross entropy of its own.
        loss: of the logits, as `losses.parse` reads it.
        learning_rate: of Nadam.
        freeze_encoder: whether the encoder stays as it is; its batch norm then uses its moving
            statistics, and leaves them alone.
        encoder_learning_rate_factor: of the encoder's learning rate to that of the rest.
        xla: whether XLA compiles the training and the evaluation step.

    Raises:
        ValueError: an unknown loss; XLA under several replicas, whose sums TensorFlow does not
            compile.
    """
    if xla and tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError("xla: TensorFlow compiles the step of one device only, got several")
    optimizer = Nadam(learning_rate)
    encoder = encoder_layers(model)
    for layer in encoder:
        layer.trainable = not freeze_encoder
    if encoder_learning_rate_factor != 1:
        weights = [weight for layer in encoder for weight in layer.trainable_weights]
        layerwise.scale_learning_rate(optimizer, weights, encoder_learning_rate_factor)
    two_heads = isinstance(model.output, dict)
    model.compile(
        optimizer=optimizer,
        loss=(
            {"logits": losses.parse(loss), "presence": losses.presence_bce}
            if two_heads
            else losses.parse(loss)
        ),
        loss_weights={"logits": 1.0, "presence": PRESENCE_WEIGHT} if two_heads else None,
        metrics={"logits": Scores()} if two_heads else [Scores()],
        jit_compile=xla,
    )


def _truth_for_outputs(batches, model):
    """Keras wants a truth for every output; that of presence follows from the mask."""
    if not isinstance(model.output, dict):
        return batches
    return batches.map(lambda image, mask: (image, {name: mask for name in model.output}))


class _Workdir(tf.keras.callbacks.Callback):
    """Writes history, curves and checkpoints after every epoch, and finds where to go on."""

    def __init__(self, workdir, model):
        super().__init__()
        self.workdir = workdir
        self.epoch = tf.Variable(0, dtype=tf.int64)  # the number of epochs that have ended
        self.best_score = tf.Variable(-math.inf)
        model.optimizer.build(model.trainable_variables)  # so that its slots can be restored
        self.best, self.last = workdirs.checkpoint_managers(
            workdir,
            model,
            optimizer=model.optimizer,
            epoch=self.epoch,
            best_score=self.best_score,
        )
        self.last.restore_or_initialize()
        self.history = workdirs.read_history(workdir)[: int(self.epoch)]

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                f"loss is {logs['loss']} in epoch {epoch + 1}; the checkpoint of epoch {epoch} is "
                f"kept in {self.workdir}: try a lower --learning_rate"
            )
        seconds = time.monotonic() - self.started
        self.history.append({"epoch": epoch + 1, "seconds": round(seconds, 1), **logs})
        workdirs.write_history(self.workdir, self.history)
        if figures.AVAILABLE:
            figures.save(figures.curves(self.history), os.path.join(self.workdir, "curves.png"))
        if logs[SCORE] > self.best_score:
            self.best_score.assign(logs[SCORE])
            self.best.save()
        # Last of all: whatever is killed before this line is done again.
        self.epoch.assign(epoch + 1)
        self.last.save()


def fit(model, training, validation, workdir, epochs, steps_per_epoch):
    """Fits a compiled model, going on after the last epoch that ended in this workdir.

    Args:
        model: a compiled tf.keras.Model, built under the strategy.
        training: a function from the first epoch to show to a tf.data.Dataset of batches that goes
            through all epochs from there.
        validation: a tf.data.Dataset of the held-out batches.
        workdir: where history.csv, curves.png, checkpoints/ and tensorboard/ go.
        epochs: the number of epochs of the whole run.
        steps_per_epoch: batches in an epoch.

    Returns:
        The history: a list of dicts, one per epoch, with loss, dice, val_dice and so on.

    Raises:
        ValueError: the loss is not finite; the last checkpoint is of the epoch before.
    """
    state = _Workdir(workdir, model)
    initial_epoch = int(state.epoch)
    if initial_epoch < epochs:
        model.fit(
            _truth_for_outputs(training(initial_epoch), model),
            validation_data=_truth_for_outputs(validation, model),
            initial_epoch=initial_epoch,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                state,
                tf.keras.callbacks.TensorBoard(
                    os.path.join(workdir, "tensorboard"), write_graph=False
                ),
            ],
        )
    return state.history
