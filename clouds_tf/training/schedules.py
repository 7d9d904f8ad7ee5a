"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from clouds_tf import own
from clouds_tf.keras import keras
from clouds_tf.training.choices import SCHEDULES

_CYCLES = 3  # of cosine restarts, each twice as long as the one before


def constant(share: tf.Tensor) -> tf.Tensor:
    """Stays at 1."""
    return tf.ones_like(share)


def half_cosine(share: tf.Tensor) -> tf.Tensor:
    """Falls from 1 at share 0 to 0 at share 1."""
    return 0.5 * (1 + tf.cos(math.pi * share))


def one_cycle(
    share: tf.Tensor, rise: float = 0.3, start: float = 1 / 25, end: float = 1e-4 / 25
) -> tf.Tensor:
    """Smith and Topin, "Super-Convergence", 2018, section 3, with cosines instead of lines."""
    rising = 1 - (1 - start) * half_cosine(share / rise)
    falling = end + (1 - end) * half_cosine((share - rise) / (1 - rise))
    return tf.where(share < rise, rising, falling)


def cosine_restarts(share: tf.Tensor) -> tf.Tensor:
    """Loshchilov and Hutter, "SGDR", 2017, equation 5, with T_mult = 2."""
    position = share * (2**_CYCLES - 1)
    cycle = tf.minimum(tf.floor(tf.math.log(position + 1) / math.log(2)), _CYCLES - 1)
    length = tf.pow(2.0, cycle)
    return half_cosine((position - (length - 1)) / length)


@tf.autograph.experimental.do_not_convert  # AutoGraph would warn of the import in it
def _shape(name: str, share: tf.Tensor) -> tf.Tensor:
    """Factor on the learning rate at a finished share of the run, float32 []."""
    if name in SCHEDULES:
        return SCHEDULES[name](share)
    factor = tf.cast(tf.convert_to_tensor(own.call("schedule", name, share)), tf.float32)
    if factor.shape.rank != 0:
        raise ValueError(f"schedule: {name} returned the shape {factor.shape}, expected one number")
    return factor


@keras.utils.register_keras_serializable("clouds_tf")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the step.

    Args:
        name: a key of SCHEDULES, or "module:function" for a function of the user.
        learning_rate: peak learning rate.
        num_steps: number of steps of the whole run.
        warmup_steps: number of first steps in which the rate rises linearly from 0.

    Attributes:
        factor: float32 tf.Variable, a factor on the rate; 1 unless it is assigned.
    """

    def __init__(
        self, name: str, learning_rate: float, num_steps: int, warmup_steps: int = 0
    ) -> None:
        self.name, self.learning_rate = name, learning_rate
        self.num_steps, self.warmup_steps = num_steps, warmup_steps
        self.factor = tf.Variable(1.0, trainable=False, name="learning_rate_factor")

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate of a step, float32 []."""
        step = tf.cast(step, tf.float32)
        share = tf.minimum(step / self.num_steps, 1.0)
        warmup = tf.minimum((step + 1) / max(self.warmup_steps, 1), 1.0)
        return self.learning_rate * self.factor * warmup * _shape(self.name, share)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        names = ("name", "learning_rate", "num_steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def plateau_factor(scores: Iterable[float]) -> float:
    """Factor on the learning rate: halved after three epochs without a new best, down to 0.001."""
    result, best, waited = 1.0, -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == 3:
            result, waited = max(result / 2, 1e-3), 0
    return result
