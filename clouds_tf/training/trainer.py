"""All that a run changes, in one object that a checkpoint holds."""

import contextlib
import math

import tensorflow as tf

from clouds_tf.models.encoders import encoder_layers
from clouds_tf.models.metrics import Scores
from clouds_tf.schema import CLASS_NAMES
from clouds_tf.training.averaging import MovingAverage
from clouds_tf.training.layerwise import scale_learning_rate
from clouds_tf.training.optimizers import make_optimizer
from clouds_tf.training.schedules import Schedule, plateau_factor
from clouds_tf.training.steps import Meter, prediction_step, training_step, validation_step


class Trainer(tf.Module):
    """A model, its optimizer, its averages and how far it has come.

    Make it under the strategy of the model.

    Args:
        model: of `unet`.
        loss: a function (masks, logits) -> float32 [B], such as those of clouds_tf.models.losses.
        num_steps: steps of the whole run.
        optimizer: a key of optimizers.OPTIMIZERS.
        learning_rate: the highest.
        schedule: a key of schedules.SCHEDULES.
        warmup_steps: the steps over which the learning rate grows from 0.
        weight_decay: of adamw.
        clip_norm: the largest length of all gradients together; None does not clip.
        ema: the decay of a moving average of the weights, which is then what is validated and kept;
            None keeps none.
        freeze_encoder: whether the encoder stays as it is; its batch norm then uses its moving
            statistics, and leaves them alone.
        encoder_learning_rate_factor: of the encoder's learning rate to that of the rest.
        xla: whether XLA compiles the training step.

    Attributes:
        step, validation_step, predict: the functions of clouds_tf.training.steps.
        epoch: int64 tf.Variable, the number of epochs that have ended.
        epoch_step: int64 tf.Variable, the number of steps of the epoch that has not ended.
        best_score: float32 tf.Variable, of the weights that were kept.

    Raises:
        ValueError: XLA under several replicas, whose sums TensorFlow does not compile.
    """

    def __init__(
        self,
        model,
        loss,
        num_steps,
        optimizer="nadam",
        learning_rate=2e-4,
        schedule="constant",
        warmup_steps=0,
        weight_decay=0.01,
        clip_norm=None,
        ema=None,
        freeze_encoder=False,
        encoder_learning_rate_factor=1.0,
        xla=False,
    ):
        super().__init__()
        self.strategy = tf.distribute.get_strategy()
        if xla and self.strategy.num_replicas_in_sync > 1:
            raise ValueError("xla: TensorFlow compiles the step of one device only, got several")
        encoder = encoder_layers(model)
        for layer in encoder:
            layer.trainable = not freeze_encoder
        self.model = model
        self.schedule = Schedule(schedule, learning_rate, num_steps, warmup_steps)
        self.optimizer = make_optimizer(
            optimizer, self.schedule, model.trainable_variables, weight_decay
        )
        if encoder_learning_rate_factor != 1:
            slow = [weight for layer in encoder for weight in layer.trainable_weights]
            scale_learning_rate(self.optimizer, slow, encoder_learning_rate_factor)
        self.average = MovingAverage(model, ema) if ema else None
        self.meter = Meter(model, [Scores(CLASS_NAMES)])
        self.step = training_step(
            model, self.optimizer, loss, self.meter, clip_norm, self.average, xla
        )
        self.validation_meter = Meter(model, [Scores(CLASS_NAMES)])
        self.validation_step = validation_step(model, loss, self.validation_meter)
        self.predict = prediction_step(model)
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.epoch_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_score = tf.Variable(-math.inf, trainable=False)

    def begin_epoch(self, earlier_scores):
        """Sets the learning rate by the scores of all epochs before; the higher, the better."""
        if self.schedule.name == "plateau":
            self.schedule.factor.assign(plateau_factor(earlier_scores))
        if self.epoch_step.numpy() == 0:
            self.meter.reset()

    def learning_rate(self, steps_ago=0):
        """The learning rate of the step to come, or of one before it; a float.

        It waits for the device to finish the steps that it was given.
        """
        return float(self.schedule(self.optimizer.iterations - steps_ago))

    def average_applied(self):
        """A context in which the model has the weights to validate and to keep."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def validate(self, batches):
        """Goes through distributed batches; a dict of val_loss, val_dice and so on."""
        self.validation_meter.reset()
        for images, masks in batches:
            self.validation_step(images, masks)
        return {f"val_{name}": value for name, value in self.validation_meter.result().items()}
