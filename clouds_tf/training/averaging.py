"""Averages of weights: over the steps of a run, or over its last checkpoints."""

import contextlib

import tensorflow as tf


class MovingAverage(tf.Module):
    """An exponential moving average of all weights of a model, batch-norm statistics included.

    Args:
        model: a Keras model; make the average under the strategy of the model.
        decay: of the average, 0..1; smaller in the first steps, where it is (1 + t) / (10 + t), as
            in tf.train.ExponentialMovingAverage.
    """

    def __init__(self, model, decay):
        super().__init__()
        self.model, self.decay = model, decay
        self.strategy = tf.distribute.get_strategy()
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.averages = [
            tf.Variable(weight.read_value(), trainable=False, name="average")
            for weight in model.weights
        ]

    def update(self):
        """Counts one more step; to be called outside of replicas."""
        self.step.assign_add(1)
        step = tf.cast(self.step.read_value(), tf.float32)
        rate = 1 - tf.minimum(self.decay, (1 + step) / (10 + step))

        def move(average, weight, rate):
            average.assign_sub(rate * (average - weight))

        for average, weight in zip(self.averages, self.model.weights):
            # On each device from its own copy; statistics of batch norm differ between devices.
            value = weight if weight.trainable else weight.read_value()
            self.strategy.extended.update(average, move, args=(value, rate))

    @contextlib.contextmanager
    def applied(self):
        """A context in which the model has the averages for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self):
        for average, weight in zip(self.averages, self.model.weights):
            value = tf.identity(average.read_value())
            average.assign(weight.read_value())
            weight.assign(value)


@contextlib.contextmanager
def mean_applied(model, paths):
    """A context in which a model has the mean of the weights of some checkpoints.

    Args:
        model: a Keras model.
        paths: of checkpoints that were written by tf.train.Checkpoint(model=model).
    """
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
