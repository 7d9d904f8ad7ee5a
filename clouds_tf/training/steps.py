"""One step of training or of validation, the same on any number of replicas.

Each replica sees its part of a global batch. Losses are summed over images and divided by the
number of images in the whole batch; gradients are summed over replicas, then clipped: so nothing
depends on how a batch is divided.
"""

import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.models import losses

PRESENCE_WEIGHT = 0.1  # of the classification head's loss, as in the competition's first place

# Gradients are sent in packs, since one pack of them all waits for the last gradient, and its 98 MB
# are memory that the operating system has to find anew at each step.
_GRADIENT_PACKS = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=1 << 20)


def _forward(model, images, training):
    """The outputs of a model, also for no images at all, which oneDNN's convolutions refuse.

    An empty part still takes part in the sums over replicas, with a black image that is left out of
    the result (in training it does count in the statistics of batch norm).
    """
    size = tf.shape(images)[0]
    padded = tf.pad(images, [[0, tf.cast(size == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
    outputs = model(tf.ensure_shape(padded, [None, *images.shape[1:]]), training=training)
    return tf.nest.map_structure(lambda output: output[:size], outputs)


def _losses(loss, masks, outputs):
    """A dict of float32 [B]: `loss`, and its parts where the model has a classification head."""
    logits_loss = loss(masks, outputs["logits"])
    if "presence_logits" not in outputs:
        return {"loss": logits_loss}
    presence_loss = losses.presence_bce(masks, outputs["presence_logits"])
    total = logits_loss + PRESENCE_WEIGHT * presence_loss
    return {"loss": total, "logits_loss": logits_loss, "presence_loss": presence_loss}


class Meter(tf.Module):
    """What an epoch has come to so far: mean losses over images, and metrics.

    Args:
        model: tells whether there is a classification head.
        metrics: Keras metrics of (masks, logits), whose results are dicts of numbers.
    """

    def __init__(self, model, metrics):
        super().__init__()
        names = ["loss"]
        if "presence_logits" in model.output:
            names += ["logits_loss", "presence_loss"]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.metrics = metrics

    def update(self, values, masks, outputs):
        """Adds a part of a batch; values is a dict of losses [B]."""
        for name, value in values.items():
            self.means[name].update_state(value)
        for metric in self.metrics:
            metric.update_state(masks, outputs["logits"])

    def result(self):
        """A dict of floats; call it on all workers, outside of replicas."""
        values = {name: mean.result() for name, mean in self.means.items()}
        for metric in self.metrics:
            values.update(metric.result())
        return {name: float(value) for name, value in values.items()}

    def num_images(self):
        """The number of images in it; call it on all workers, outside of replicas."""
        return float(tf.identity(self.means["loss"].count))

    def blank_dice(self):
        """Mean Dice of predicting nothing on these images; call it as `result`."""
        (scores,) = self.metrics
        return float(tf.reduce_mean(scores.blank_dice()))

    def reset(self):
        """Begins an epoch."""
        for metric in [*self.means.values(), *self.metrics]:
            metric.reset_state()


def training_step(model, optimizer, loss, meter, clip_norm=None, average=None, xla=False):
    """Makes the function of one step of training.

    Args:
        model: a model of `unet`, made under the current strategy like all the others.
        optimizer: of `make_optimizer`.
        loss: a function (masks, logits) -> float32 [B].
        meter: a Meter, or None to measure nothing.
        clip_norm: the largest length of all gradients together; None does not clip.
        average: a MovingAverage to keep, or None.
        xla: whether XLA compiles the step.

    Returns:
        A tf.function (images, masks, stop) -> (loss, stops): float32 scalars, the mean loss of the
        global batch, and the sum over replicas of `stop`, a number that each worker may set.
    """
    strategy = tf.distribute.get_strategy()
    variables = model.trainable_variables
    scaled = isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)

    def on_replica(images, masks, stop):
        context = tf.distribute.get_replica_context()
        size = tf.cast(tf.shape(images)[0], tf.float32)
        # The sum over replicas wants values on the replicas' own devices: hence the identity.
        size, stops = context.all_reduce("SUM", [size, tf.identity(stop)])
        with tf.GradientTape() as tape:
            outputs = _forward(model, images, training=True)
            values = _losses(loss, masks, outputs)
            share = tf.reduce_sum(values["loss"]) / size
            objective = optimizer.get_scaled_loss(share) if scaled else share
        gradients = tape.gradient(objective, variables)
        if scaled:
            gradients = optimizer.get_unscaled_gradients(gradients)
        gradients = context.all_reduce("SUM", gradients, options=_GRADIENT_PACKS)
        if clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
        optimizer.apply_gradients(zip(gradients, variables), experimental_aggregate_gradients=False)
        if meter is not None:
            meter.update(values, masks, outputs)
        return context.all_reduce("SUM", share), stops

    @tf.function(jit_compile=xla or None)
    def step(images, masks, stop):
        loss, stops = strategy.run(on_replica, args=(images, masks, stop))
        if average is not None:
            average.update()
        return _first(strategy, loss), _first(strategy, stops)

    return step


def _first(strategy, value):
    """The value of the first replica here, where all have the same."""
    return strategy.experimental_local_results(value)[0]


def validation_step(model, loss, meter):
    """Makes a tf.function (images, masks) that adds a batch to a meter and changes nothing else."""
    strategy = tf.distribute.get_strategy()

    def on_replica(images, masks):
        outputs = _forward(model, images, training=False)
        meter.update(_losses(loss, masks, outputs), masks, outputs)

    @tf.function
    def step(images, masks):
        strategy.run(on_replica, args=(images, masks))

    return step


def prediction_step(model):
    """Makes a tf.function (images) -> masks bool [B, h, w, C] of each replica, cut at 1/2."""
    strategy = tf.distribute.get_strategy()

    def on_replica(images):
        return _forward(model, images, training=False)["logits"] > 0

    @tf.function
    def step(images):
        return strategy.run(on_replica, args=(images,))

    return step
