"""Optimizers by name, those of Keras and of tensorflow-addons, and their learning rates."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.addons import import_addons
from clouds_tf.keras import Optimizer, keras

_LearningRate = Any  # a number, or a LearningRateSchedule of Keras

_CYCLES = 3  # of cosine restarts, each twice as long as the one before
_PREFIX = "addons:"
# Of tensorflow-addons, those that take a learning rate and no other optimizer.
_ADDONS = ("AdaBelief", "LAMB", "LazyAdam", "NovoGrad", "ProximalAdagrad", "RectifiedAdam", "Yogi")


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


def _vectors(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Biases and the parameters of batch norm, which do not decay."""
    return [variable for variable in variables if len(variable.shape) < 2]


def _adamw(schedule: _LearningRate, variables: Sequence[tf.Variable], weight_decay: float) -> Any:
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_list=_vectors(variables))
    return optimizer


# Name -> a function (schedule, variables, weight_decay) that makes an optimizer of Keras.
_KERAS: dict[str, Callable[..., Any]] = {
    "adam": lambda schedule, *_: keras.optimizers.Adam(schedule),
    "adamw": _adamw,
    "nadam": lambda schedule, *_: Nadam(schedule),
    "sgd": lambda schedule, *_: keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True),
}
# Names of optimizers, besides addons:NAME.
OPTIMIZERS = (*sorted(_KERAS), "lamb", "lookahead", "radam")


def _of_both_lanes() -> str:
    return ", ".join(sorted(_KERAS))


def check_optimizer(name: str) -> None:
    """Checks the name of an optimizer, without importing tensorflow-addons.

    Raises:
        ValueError: there is no such optimizer.
    """
    if name not in OPTIMIZERS and name not in [_PREFIX + other for other in _ADDONS]:
        raise ValueError(
            f"optimizer: got {name!r}, expected one of {', '.join(OPTIMIZERS)}, or {_PREFIX}NAME "
            f"with one of {', '.join(_ADDONS)}"
        )


def _from_addons(
    given: str, schedule: _LearningRate, variables: Sequence[tf.Variable], weight_decay: float
) -> Any:
    """Makes an optimizer of tensorflow-addons; radam and lookahead do not decay the weights."""
    name = {"lamb": "LAMB"}.get(given, given.replace(_PREFIX, ""))
    optimizers = import_addons(f"optimizer: {given}", _of_both_lanes()).optimizers
    if given in ("radam", "lookahead"):
        radam = optimizers.RectifiedAdam(schedule)
        return optimizers.Lookahead(radam) if given == "lookahead" else radam
    vectors = [variable.name.split(":")[0] for variable in _vectors(variables)]
    if name == "LAMB":
        # A replica's copy of the variable a/b is called a/b/replica_1.
        patterns = [rf"^{re.escape(vector)}(/replica_\d+)?:0$" for vector in vectors]
        return optimizers.LAMB(
            schedule, weight_decay=weight_decay, exclude_from_weight_decay=patterns
        )
    optimizer = getattr(optimizers, name)(schedule)
    take_step = optimizer._resource_apply_dense

    # Not by addons' own extension: under several replicas it does not find the variables.
    def decay_and_step(gradient: tf.Tensor, variable: tf.Variable, *args: Any, **more: Any) -> Any:
        if variable.name.split(":")[0].split("/replica_")[0] in vectors:
            return take_step(gradient, variable, *args, **more)
        rate = weight_decay * tf.cast(optimizer._decayed_lr(tf.float32), variable.dtype)
        with tf.control_dependencies([variable.assign_sub(rate * variable)]):
            return take_step(gradient, variable, *args, **more)

    if weight_decay:
        optimizer._resource_apply_dense = decay_and_step
    return optimizer


def make_optimizer(
    name: str, schedule: _LearningRate, variables: Sequence[tf.Variable], weight_decay: float = 0.01
) -> Any:
    """Makes an optimizer with all its slots, so that a checkpoint can be restored at once.

    Args:
        name: one of OPTIMIZERS, or addons:NAME with the name of an optimizer of tensorflow-addons.
            "radam" is Liu et al., "On the Variance of the Adaptive Learning Rate", 2020;
            "lookahead" is Zhang et al., "Lookahead Optimizer", 2019, around it; "lamb" is You et
            al., "Large Batch Optimization for Deep Learning", 2020.
        schedule: learning rate: a number, or a LearningRateSchedule.
        variables: the variables to optimize.
        weight_decay: fraction of each weight that "adamw" and addons:NAME take away per step and
            unit of learning rate, and that LAMB adds to its step; biases and the scales of batch
            norm do not decay.

    Returns:
        An optimizer; under mixed_float16 one that scales the loss.

    Raises:
        ValueError: there is no such optimizer, or tensorflow-addons does not work here.
    """
    check_optimizer(name)
    make = _KERAS.get(name) or functools.partial(_from_addons, name)
    optimizer = make(schedule, variables, weight_decay)
    if keras.mixed_precision.global_policy().name == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    if hasattr(optimizer, "build"):
        optimizer.build(variables)
    else:  # the older kind of Keras' optimizers, on which those of addons are built
        optimizer._create_all_weights(variables)
    return optimizer


def scale_learning_rate(
    optimizer: Optimizer, variables: Iterable[tf.Variable], factor: float
) -> None:
    """Scales the learning rate of some variables by a factor.

    The change of a variable is scaled after the optimizer has made it, and not the gradient before:
    Adam and its relatives divide by the size of the gradients, so a factor on these would vanish.
    For every optimizer whose step is proportional to its learning rate, this equals a separate
    learning rate for those variables; only decoupled weight decay keeps the full rate.

    Args:
        optimizer: a Keras optimizer of the newer or the older kind, changed in place; a strategy
            may call it on every replica.
        variables: tf.Variables, each with a name of its own.
        factor: >= 0; 1 changes nothing.
    """
    names = {variable.name.split(":")[0] for variable in variables}
    # Optimizers that scale the loss or look ahead leave the steps to the optimizer inside.
    while inner := getattr(optimizer, "inner_optimizer", getattr(optimizer, "_optimizer", None)):
        optimizer = inner
    method = "update_step" if hasattr(optimizer, "update_step") else "_resource_apply_dense"
    take_step = getattr(optimizer, method)

    def take_scaled_step(
        gradient: tf.Tensor, variable: tf.Variable, *args: Any, **kwargs: Any
    ) -> Any:
        # A replica's copy of the variable a/b is called a/b/replica_1.
        if variable.name.split(":")[0].split("/replica_")[0] not in names:
            return take_step(gradient, variable, *args, **kwargs)
        before = tf.identity(variable)
        with tf.control_dependencies([before]):
            taken = take_step(gradient, variable, *args, **kwargs)
        with tf.control_dependencies([taken] if isinstance(taken, tf.Operation) else []):
            return variable.assign(before + factor * (variable - before))

    setattr(optimizer, method, take_scaled_step)


def _half_cosine(share: tf.Tensor) -> tf.Tensor:
    """Falls from 1 at share 0 to 0 at share 1."""
    return 0.5 * (1 + tf.cos(math.pi * share))


def _one_cycle(
    share: tf.Tensor, rise: float = 0.3, start: float = 1 / 25, end: float = 1e-4 / 25
) -> tf.Tensor:
    """Smith and Topin, "Super-Convergence", 2018, section 3, with cosines in place of lines."""
    rising = 1 - (1 - start) * _half_cosine(share / rise)
    falling = end + (1 - end) * _half_cosine((share - rise) / (1 - rise))
    return tf.where(share < rise, rising, falling)


def _cosine_restarts(share: tf.Tensor) -> tf.Tensor:
    """Loshchilov and Hutter, "SGDR", 2017, equation 5, with T_mult = 2."""
    position = share * (2**_CYCLES - 1)
    cycle = tf.minimum(tf.floor(tf.math.log(position + 1) / math.log(2)), _CYCLES - 1)
    length = tf.pow(2.0, cycle)
    return _half_cosine((position - (length - 1)) / length)


# Name -> a function from the finished share of the run (0..1) to a factor on the learning rate.
SCHEDULES = {
    "constant": tf.ones_like,
    "cosine": _half_cosine,
    "cosine_restarts": _cosine_restarts,
    "one_cycle": _one_cycle,
    "plateau": tf.ones_like,  # a constant, until `plateau_factor` says something else
}


@keras.utils.register_keras_serializable("clouds_tf")
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the step.

    Args:
        name: a key of SCHEDULES.
        learning_rate: peak learning rate.
        num_steps: number of steps of the whole run.
        warmup_steps: number of first steps over which the rate rises linearly from 0 to that of the
            schedule.

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
        return self.learning_rate * self.factor * warmup * SCHEDULES[self.name](share)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        names = ("name", "learning_rate", "num_steps", "warmup_steps")
        return {name: getattr(self, name) for name in names}


def plateau_factor(scores: Iterable[float]) -> float:
    """Factor on the learning rate that halves after every three epochs without a new best score.

    Args:
        scores: one score per finished epoch; higher is better.

    Returns:
        A number from 0.001 to 1.
    """
    result, best, waited = 1.0, -math.inf, 0
    for score in scores:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == 3:
            result, waited = max(result / 2, 1e-3), 0
    return result
