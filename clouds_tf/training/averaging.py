"""Weight averaging over the steps of a run, or over its last checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from clouds_tf.keras import Model


class MovingAverage(tf.Module):
    """Exponential moving average of all weights of a model, batch-norm statistics included.

    Args:
        model: a Keras model; create the average in the scope of the model's strategy.
        decay: decay per step, 0..1. In the first steps it is smaller, (1 + t) / (10 + t), as in
            tf.train.ExponentialMovingAverage.
    """

    def __init__(self, model: Model, decay: float) -> None:
        super().__init__()
        self.model, self.decay = model, decay
        self.strategy = tf.distribute.get_strategy()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.averages = [
            tf.Variable(weight.read_value(), trainable=False, name="average")
            for weight in model.weights
        ]

    def update(self) -> None:
        """Updates the average after a step; call it outside of replicas."""
        self.step.assign_add(1)
        step = tf.cast(self.step.read_value(), tf.float32)
        rate = 1 - tf.minimum(self.decay, (1 + step) / (10 + step))

        def move(average: tf.Variable, weight: tf.Tensor, rate: tf.Tensor) -> None:
            average.assign_sub(rate * (average - weight))

        for average, weight in zip(self.averages, self.model.weights):
            # On each device from its own copy; statistics of batch norm differ between devices.
            value = weight if weight.trainable else weight.read_value()
            self.strategy.extended.update(average, move, args=(value, rate))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the weights of the model are the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, weight in zip(self.averages, self.model.weights):
            value = tf.identity(average.read_value())
            average.assign(weight.read_value())
            weight.assign(value)


@contextlib.contextmanager
def mean_applied(model: Model, paths: Sequence[str]) -> Iterator[None]:
    """Context in which a model's weights are the mean of those in several of its checkpoints."""
    before = [weight.numpy() for weight in model.weights]
    sums = [0.0] * len(before)
    for path in paths:
        tf.train.Checkpoint(model=model).restore(path).expect_partial()
        sums = [total + weight.numpy() for total, weight in zip(sums, model.weights)]
    try:
        model.set_weights([total / len(paths) for total in sums])
        yield
    finally:
        model.set_weights(before)
