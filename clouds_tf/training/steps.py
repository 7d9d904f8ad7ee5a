"""One step of training or of validation, the same on any number of replicas.

Each replica sees its part of a global batch. Losses are summed over images and divided by the
number of images in the whole batch; gradients are summed over replicas, then clipped. The result
does not depend on how a batch is divided.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from clouds_tf.keras import Model, Optimizer, keras
from clouds_tf.models import losses
from clouds_tf.training.averaging import MovingAverage
from clouds_tf.training.gradients import Outputs, accumulated, forward, whole
from clouds_tf.training.tuned_dice import TunedDice

# Weight of the classification head's loss, as in the competition's winning solution.
_PRESENCE_WEIGHT = 0.1

_Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Gradients are sent in packs: a single pack would wait for the last gradient, and its 98 MB would
# have to be allocated again in each step.
_GRADIENT_PACKS = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=1 << 20)


def _losses(loss: _Loss, masks: tf.Tensor, outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Losses of each image, float32 [B]: `loss`, and its parts with a classification head."""
    logits = outputs["logits"]
    if "background_logits" in outputs:
        logits = tf.concat([logits, outputs["background_logits"]], axis=-1)
    logits_loss = loss(masks, logits)
    if "presence_logits" not in outputs:
        return {"loss": logits_loss}
    presence_loss = losses.presence_bce(masks, outputs["presence_logits"])
    total = logits_loss + _PRESENCE_WEIGHT * presence_loss
    return {"loss": total, "logits_loss": logits_loss, "presence_loss": presence_loss}


class Meter(tf.Module):
    """Running losses and metrics of one epoch.

    Args:
        model: the model, which may have a classification head.
        metrics: Keras metrics of (masks, logits), first the `Scores`.
    """

    def __init__(self, model: Model, metrics: Sequence[Any]) -> None:
        super().__init__()
        names = ["loss"]
        if "presence_logits" in model.output:
            names += ["logits_loss", "presence_loss"]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.metrics = metrics

    def update(
        self, values: dict[str, tf.Tensor], masks: tf.Tensor, outputs: dict[str, tf.Tensor]
    ) -> None:
        """Adds a part of a batch; `values` is a dict of losses, float32 [B]."""
        for name, value in values.items():
            self.means[name].update_state(value)
        for metric in self.metrics:
            metric.update_state(masks, outputs["logits"])

    def result(self) -> dict[str, float]:
        """Means and metrics by name; call it on all workers, outside of replicas."""
        values = {name: mean.result() for name, mean in self.means.items()}
        for metric in self.metrics:
            found = metric.result()
            values.update(found if isinstance(found, dict) else {metric.name: found})
        return {name: float(value) for name, value in values.items()}

    def num_images(self) -> float:
        """Number of images so far; call it on all workers, outside of replicas."""
        return float(tf.identity(self.means["loss"].count))

    def blank_dice(self) -> float:
        """Mean Dice of blank masks on these images; call it like `result`."""
        scores, *_ = self.metrics
        return float(tf.reduce_mean(scores.blank_dice()))

    def reset(self) -> None:
        """Begins an epoch."""
        for metric in [*self.means.values(), *self.metrics]:
            metric.reset_state()


def training_step(
    model: Model,
    optimizer: Optimizer,
    loss: _Loss,
    meter: Optional[Meter],
    clip_norm: Optional[float] = None,
    average: Optional[MovingAverage] = None,
    xla: bool = False,
    accumulate: int = 1,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes the function of one training step.

    Args:
        model: a model of `unet`; all arguments belong to the current strategy.
        optimizer: of `make_optimizer`.
        loss: a function (masks, logits) -> float32 [B].
        meter: a Meter, or None to measure nothing.
        clip_norm: maximum global norm of the gradients; None does not clip.
        average: a MovingAverage to update, or None.
        xla: whether XLA compiles the step.
        accumulate: number of parts in which each replica computes its gradients.

    Returns:
        A tf.function (images, masks, stop) or (images, masks, weights, stop) -> (loss, stops):
        float32 scalars: the (weighted) mean loss of the global batch, and the sum over replicas of
        `stop`, a number that each worker may set.
    """
    strategy = tf.distribute.get_strategy()
    variables = model.trainable_variables
    scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)

    def on_replica(images: tf.Tensor, masks: tf.Tensor, *rest: tf.Tensor) -> Any:
        *weights, stop = rest
        context = tf.distribute.get_replica_context()
        size = tf.cast(tf.shape(images)[0], tf.float32)
        # The identity copies the value to the replica's device, as the sum over replicas needs.
        size, stops = context.all_reduce("SUM", [size, tf.identity(stop)])

        def measure(outputs: Outputs) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
            """Measures the outputs of this replica, see `gradients.Measure`."""
            values = _losses(loss, masks, outputs)
            for weight in weights:
                values = {name: weight * value for name, value in values.items()}
            share = tf.reduce_sum(values["loss"]) / size
            return optimizer.get_scaled_loss(share) if scaled else share, share, values

        if accumulate > 1:
            found = accumulated(model, images, measure, accumulate)
        else:
            found = whole(model, images, measure)
        gradients, outputs, share, values = found
        if scaled:
            gradients = optimizer.get_unscaled_gradients(gradients)
        gradients = context.all_reduce("SUM", gradients, options=_GRADIENT_PACKS)
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        optimizer.apply_gradients(zip(gradients, variables), experimental_aggregate_gradients=False)
        if meter is not None:
            meter.update(values, masks, outputs)
        return context.all_reduce("SUM", share), stops

    @tf.function(jit_compile=xla or None, autograph=False)
    def step(*arguments: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        loss, stops = strategy.run(on_replica, args=arguments)
        if average is not None:
            average.update()
        return _first(strategy, loss), _first(strategy, stops)

    return step


def _first(strategy: tf.distribute.Strategy, value: Any) -> tf.Tensor:
    """Value of this worker's first replica, for values that are equal on all replicas."""
    return strategy.experimental_local_results(value)[0]


def validation_step(
    model: Model, loss: _Loss, meter: Meter, tuned: TunedDice
) -> tf.types.experimental.PolymorphicFunction:
    """Makes a tf.function (images, masks) that adds a batch to the meters.

    The halves for `tuned` follow from the pixels, not from the order of the images.
    """
    strategy = tf.distribute.get_strategy()

    def on_replica(images: tf.Tensor, masks: tf.Tensor) -> None:
        outputs = forward(model, images, training=False)
        meter.update(_losses(loss, masks, outputs), masks, outputs)
        half = tf.reduce_sum(tf.cast(images, tf.int32), axis=[1, 2, 3]) % 2
        tuned.update(masks, outputs["logits"], half)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, masks: tf.Tensor) -> None:
        strategy.run(on_replica, args=(images, masks))

    return step


def prediction_step(model: Model) -> tf.types.experimental.PolymorphicFunction:
    """Makes a tf.function (images) -> each replica's masks, bool [B, h, w, C], at threshold 0.5."""
    strategy = tf.distribute.get_strategy()

    def on_replica(images: tf.Tensor) -> tf.Tensor:
        return forward(model, images, training=False)["logits"] > 0

    @tf.function(autograph=False)
    def step(images: tf.Tensor) -> Any:
        return strategy.run(on_replica, args=(images,))

    return step
