"""Optimizers by name, with those that Keras lacks or has with faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.keras import keras
from clouds_tf.training.adaptive import Lamb, Lookahead, RectifiedAdam


@keras.utils.register_keras_serializable("clouds_tf")
class Nadam(keras.optimizers.Nadam):
    """Adam with Nesterov momentum: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, p. 4.

    Keras 2.15 keeps one product of the momentum schedule for all variables, and in a graph
    multiplies it once per variable instead of once per step; under a strategy of several replicas
    the weights become infinite. Here every variable has a product of its own, as in PyTorch.
    """

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes the slots of every variable."""
        super().build(var_list)
        if not hasattr(self, "_u_products"):
            self._u_products = [
                self.add_variable_from_reference(variable, "u", shape=(), initial_value=1.0)
                for variable in var_list
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one step to one variable."""
        gradient = tf.convert_to_tensor(gradient)
        index = self._index_dict[self._var_key(variable)]
        m, v, u = (x[index] for x in (self._momentums, self._velocities, self._u_products))
        step = tf.cast(self.iterations + 1, variable.dtype)

        def momentum(step: tf.Tensor) -> tf.Tensor:
            return self.beta_1 * (1 - 0.5 * tf.pow(tf.cast(0.96, variable.dtype), step))

        now, then = momentum(step), momentum(step + 1)
        u.assign(u * now)
        m.assign_add((1 - self.beta_1) * (gradient - m))
        v.assign_add((1 - self.beta_2) * (tf.square(gradient) - v))
        # Scalars are combined first: each pass over a large variable takes time.
        correction = tf.sqrt(1 - tf.pow(tf.cast(self.beta_2, variable.dtype), step))
        rate = tf.cast(self.learning_rate, variable.dtype) * correction
        change = rate * then / (1 - u * then) * m + rate * (1 - now) / (1 - u) * gradient
        variable.assign_sub(change / (tf.sqrt(v) + self.epsilon * correction))


def _adamw(schedule: Any, variables: Sequence[tf.Variable], weight_decay: float) -> Any:
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    vectors = [variable for variable in variables if len(variable.shape) < 2]
    optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


def _radam(schedule: Any, *_: Any) -> Any:
    return RectifiedAdam(schedule)


# Name -> a function (schedule, variables, weight_decay) that makes a Keras optimizer.
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": lambda schedule, *_: keras.optimizers.Adam(schedule),
    "adamw": _adamw,
    "nadam": lambda schedule, *_: Nadam(schedule),
    "radam": _radam,
    "lamb": lambda schedule, _, weight_decay: Lamb(schedule, decay_rate=weight_decay),
    "lookahead": lambda *args: Lookahead(_radam(*args)),
    "sgd": lambda schedule, *_: keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
}


def make_optimizer(
    name: str, schedule: Any, variables: Sequence[tf.Variable], weight_decay: float = 0.01
) -> Any:
    """Makes an optimizer with all its slots, so that a checkpoint can be restored at once.

    Args:
        name: a key of OPTIMIZERS. "radam" is Liu et al., "On the Variance of the Adaptive Learning
            Rate", 2020; "lookahead" is Zhang et al., "Lookahead Optimizer", 2019, around it; "lamb"
            is You et al., "Large Batch Optimization for Deep Learning", 2020.
        schedule: learning rate: a number, or a LearningRateSchedule.
        variables: the variables to optimize.
        weight_decay: fraction of each weight that "adamw" takes away per step and unit of learning
            rate, and that "lamb" adds to its step; biases and the scales of batch norm do not
            decay.

    Returns:
        An optimizer; under mixed_float16 one that scales the loss.
    """
    optimizer = OPTIMIZERS[name](schedule, variables, weight_decay)
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer
