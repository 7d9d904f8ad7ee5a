"""Learning rates over the steps of a run."""

import math

import tensorflow as tf

from clouds_tf.keras import keras

_CYCLES = 3  # of cosine restarts, each twice as long as the one before


def _half_cosine(share):
    """From 1 at share 0 to 0 at share 1."""
    return 0.5 * (1 + tf.cos(math.pi * share))


def _one_cycle(share, rise=0.3, start=1 / 25, end=1e-4 / 25):
    """Smith and Topin, "Super-Convergence", 2018, section 3, with cosines in place of lines."""
    rising = 1 - (1 - start) * _half_cosine(share / rise)
    falling = end + (1 - end) * _half_cosine((share - rise) / (1 - rise))
    return tf.where(share < rise, rising, falling)


def _cosine_restarts(share):
    """Loshchilov and Hutter, "SGDR", 2017, equation 5, with T_mult = 2."""
    position = share * (2**_CYCLES - 1)
    cycle = tf.minimum(tf.floor(tf.math.log(position + 1) / math.log(2)), _CYCLES - 1)
    length = tf.pow(2.0, cycle)
    return _half_cosine((position - (length - 1)) / length)


# Name -> the factor of the learning rate at a share (0..1) of the run.
SCHEDULES = {
    "constant": tf.ones_like,
    "cosine": _half_cosine,
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "plateau": tf.ones_like,  # a constant, until `plateau_factor` says something else
}


@keras.utils.register_keras_serializable("clouds_tf")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that changes with the step.

    Args:
        name: a key of SCHEDULES.
        learning_rate: the highest.
        num_steps: steps of the whole run.
        warmup_steps: over these first steps the rate grows in a line from 0 to what the schedule
            says.

    Attributes:
        factor: a float32 tf.Variable that multiplies all of it; 1 unless somebody changes it.
    """

    def __init__(self, name, learning_rate, num_steps, warmup_steps=0):
        self.name, self.learning_rate = name, learning_rate
        self.num_steps, self.warmup_steps = num_steps, warmup_steps
        self.factor = tf.Variable(1.0, trainable=False, name="learning_rate_factor")

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        share = tf.minimum(step / self.num_steps, 1.0)
        warmup = tf.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        return self.learning_rate * self.factor * warmup * SCHEDULES[self.name](share)

    def get_config(self):
        names = ("name", "learning_rate", "num_steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def plateau_factor(scores, patience=3, factor=0.5, least=1e-3):
    """How far the learning rate has come down: by a factor wherever scores stayed for a while.

    Args:
        scores: one number per epoch so far, the higher the better.
        patience: epochs without a new best score after which the rate falls.
        factor: by what it falls.
        least: where it stops.

    Returns:
        A number from `least` to 1.
    """
    result, best, waited = 1.0, -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == patience:
            result, waited = max(result * factor, least), 0
    return result
