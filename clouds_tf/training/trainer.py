"""The complete, checkpointed state of a run."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.data.records import ORDER
from clouds_tf.keras import Model, keras
from clouds_tf.lazy import uncollected
from clouds_tf.messages import counted
from clouds_tf.models import losses
from clouds_tf.models.encoders import encoder_layers
from clouds_tf.models.metrics import Scores, own_metric
from clouds_tf.models.normalization import BatchNorm
from clouds_tf.training.averaging import MovingAverage
from clouds_tf.training.gradients import check_accumulation
from clouds_tf.training.optimizers import make_optimizer, scale_learning_rate
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.schedules import Schedule, plateau_factor
from clouds_tf.training.steps import Meter, prediction_step, training_step, validation_step
from clouds_tf.training.tuned_dice import TunedDice


class Trainer(tf.Module):
    """A model, its optimizer and averages, and the progress of its training.

    Create it in the scope of the model's strategy.

    Args:
        model: a model of `unet`.
        recipe: settings of the training; settings of the model and the data are not used here.
        steps_per_epoch: number of batches per epoch.
        class_names: names of the mask's channels.

    Attributes:
        step, validation_step, predict: the functions of clouds_tf.training.steps.
        epoch: int64 tf.Variable, number of finished epochs.
        epoch_step: int64 tf.Variable, number of finished steps of the current epoch.
        order: int64 tf.Variable, version of the order of the images in these steps,
            `records.ORDER`; it is checkpointed next to this module.
        best_score: float64 tf.Variable, `Recipe.score` of the best weights.

    Raises:
        ValueError: XLA with several replicas, which TensorFlow does not support; or batch norm
            that is not synchronised over several replicas.
    """

    def __init__(
        self, model: Model, recipe: Recipe, steps_per_epoch: int, class_names: Sequence[str]
    ) -> None:
        super().__init__()
        self.strategy = tf.distribute.get_strategy()
        if recipe.xla and self.strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "xla: got several devices, expected one: TensorFlow compiles no others"
            )
        self._check_normalization(model)
        if recipe.accumulate > 1:
            check_accumulation(model)
        encoder = encoder_layers(model)
        for layer in encoder:
            layer.trainable = not recipe.freeze_encoder
        self.model, self.recipe = model, recipe
        self.steps_per_epoch, self.class_names = steps_per_epoch, tuple(class_names)
        self.schedule = Schedule(
            recipe.schedule,
            recipe.learning_rate,
            num_steps=recipe.epochs * steps_per_epoch,
            warmup_steps=round(recipe.warmup_epochs * steps_per_epoch),
        )
        self.optimizer = make_optimizer(
            recipe.optimizer, self.schedule, model.trainable_variables, recipe.weight_decay
        )
        if recipe.encoder_learning_rate_factor != 1:
            slow = [weight for layer in encoder for weight in layer.trainable_weights]
            scale_learning_rate(self.optimizer, slow, recipe.encoder_learning_rate_factor)
        self.average = MovingAverage(model, recipe.ema) if recipe.ema else None
        self._make_steps()
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.epoch_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        order = tf.Variable(ORDER, dtype=tf.int64, trainable=False)
        self._order = lambda: order  # not an attribute, as it would be part of this module's state
        self.best_score = tf.Variable(-math.inf, dtype=tf.float64, trainable=False)

    @property
    def order(self) -> tf.Variable:
        """Version of the order of the images that `epoch_step` counts."""
        return self._order()

    def describe(self, epoch: int) -> str:
        """One line about the run, for its start."""
        devices = self.strategy.num_replicas_in_sync
        kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        return (
            f"training from epoch {epoch + 1} of {self.recipe.epochs}, "
            f"{counted(self.steps_per_epoch, 'step')} each, on {counted(devices, kind)}; "
            f"{self.model.count_params():,} parameters"
        )

    def _check_normalization(self, model: Model) -> None:
        if self.strategy.num_replicas_in_sync == 1:
            return
        for layer in model.submodules:
            is_norm = isinstance(layer, keras.layers.BatchNormalization)
            if is_norm and not isinstance(layer, BatchNorm):
                raise ValueError(
                    f"encoder: {layer.name} normalizes over the images of one device; use "
                    "clouds_tf.models.normalization.BatchNorm, or --distribute=none"
                )

    def _make_steps(self) -> None:
        loss: Any = losses.parse(self.recipe.loss)
        if weights := self.recipe.class_weights:
            if len(weights) != len(self.class_names):
                expected = f"one for each of {', '.join(self.class_names)}"
                raise ValueError(f"class_weights: got {len(weights)}, expected {expected}")
            loss = losses.ByClass(loss, weights)
        self.meter = Meter(self.model, [Scores(self.class_names)])
        self.step = training_step(
            self.model,
            self.optimizer,
            loss,
            self.meter,
            self.recipe.clip_norm,
            self.average,
            self.recipe.xla,
            self.recipe.accumulate,
        )
        own_metrics = map(own_metric, self.recipe.own_metrics())
        self.validation_meter = Meter(self.model, [Scores(self.class_names), *own_metrics])
        self._tuned = TunedDice(
            len(self.class_names), exclusive="background_logits" in self.model.output
        )
        self.validation_step = validation_step(self.model, loss, self.validation_meter, self._tuned)
        self.predict = prediction_step(self.model)

    @uncollected()
    def trace(self, training: Any, validation: Any) -> None:
        """Traces each step once for all batch sizes; the last batch of an epoch is often smaller.

        Args:
            training: distributed dataset of the batches to train on.
            validation: distributed dataset of the batches that `validate` will get.
        """
        stop = tf.TensorSpec([], tf.float32)
        self.step = self.step.get_concrete_function(*training.element_spec, stop)
        self.validation_step = self.validation_step.get_concrete_function(*validation.element_spec)
        self.predict = self.predict.get_concrete_function(validation.element_spec[0])

    def begin_epoch(self, earlier_scores: Sequence[float]) -> None:
        """Prepares for an epoch.

        Args:
            earlier_scores: held-out score of every finished epoch, which determines the learning
                rate of the plateau schedule.
        """
        if self.schedule.name == "plateau":
            self.schedule.factor.assign(plateau_factor(earlier_scores))
        if self.epoch_step.numpy() == 0:
            self.meter.reset()

    def learning_rate(self, steps_ago: int = 0) -> float:
        """Learning rate of the next step, or of an earlier one.

        Waits until the device has finished its queued steps.
        """
        return float(self.schedule(self.optimizer.iterations - steps_ago))

    def average_applied(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the model has the weights to validate and to keep."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def validate(self, batches: Iterable[tuple[Any, Any]]) -> dict[str, float]:
        """Measures losses and scores.

        Args:
            batches: distributed batches of (images, masks).

        Returns:
            A dict of val_loss, val_dice and so on; val_tuned_dice, see `TunedDice`; and
            val_blank_dice, the Dice of blank masks.
        """
        self.validation_meter.reset()
        self._tuned.reset()
        for images, masks in batches:
            self.validation_step(images, masks)
        values = {f"val_{name}": value for name, value in self.validation_meter.result().items()}
        tuned, blank = self._tuned.result(), self.validation_meter.blank_dice()
        return {**values, "val_tuned_dice": tuned, "val_blank_dice": blank}
