"""Optimizers by name: those of Keras, of tensorflow-addons and of the user."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import own
from clouds_tf.keras import Optimizer, keras
from clouds_tf.lane_one import import_addons
from clouds_tf.training.choices import ADDONS_PREFIX, KERAS_OPTIMIZERS, check_optimizer

_LearningRate = Any  # a number, or a LearningRateSchedule of Keras


@keras.utils.register_keras_serializable("clouds_tf")
class Nadam(keras.optimizers.Nadam):
    """Adam with Nesterov momentum: Dozat, "Incorporating Nesterov Momentum into Adam", 2016, p. 4.

    Keras 2.15 keeps one product of the momentum schedule for all variables, and in a graph
    multiplies it once per variable instead of once per step; with several replicas, the weights
    become infinite. Here every variable has its own product, as in PyTorch.
    """

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes the slots of every variable."""
        super().build(var_list)
        if not hasattr(self, "_u_products"):
            self._u_products = [
                self.add_variable_from_reference(variable, "u", shape=(), initial_value=1.0)
                for variable in var_list
            ]

    def _distributed_apply_gradients_fn(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the values shared by all variables once per step, then applies the step."""
        step = tf.cast(self.iterations + 1, tf.float32)
        now, then = (self.beta_1 * (1 - 0.5 * tf.pow(0.96, x)) for x in (step, step + 1))
        correction = tf.sqrt(1 - tf.pow(self.beta_2, step))
        rate = tf.cast(self.learning_rate, tf.float32) * correction
        epsilon = self.epsilon * correction
        self._scalars = (now, rate * then, then, rate * (1 - now), epsilon)
        return super()._distributed_apply_gradients_fn(*args, **kwargs)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one step to one variable."""
        gradient = tf.convert_to_tensor(gradient)
        index = self._index_dict[self._var_key(variable)]
        m, v, u = (x[index] for x in (self._momentums, self._velocities, self._u_products))
        now, rate_then, then, rate_now, epsilon = self._scalars
        product = u.assign(u * now)
        m.assign_add((1 - self.beta_1) * (gradient - m))
        v.assign_add((1 - self.beta_2) * (tf.square(gradient) - v))
        # Scalars are combined first, to save passes over large variables.
        change = rate_then / (1 - product * then) * m + rate_now / (1 - product) * gradient
        variable.assign_sub(change / (tf.sqrt(v) + epsilon))


def _vectors(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Biases and the parameters of batch norm, to which weight decay does not apply."""
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


def _is_optimizer(value: object) -> bool:
    kinds = (keras.optimizers.Optimizer, keras.optimizers.legacy.Optimizer)
    return isinstance(value, kinds)


def describe_optimizer(optimizer: Optimizer) -> tuple[str, float]:
    """Describes a Keras optimizer, so that another process can build it.

    Returns:
        Its class with the arguments that differ from their defaults, as `own.find` reads it, and
        its learning rate.

    Raises:
        ValueError: it is not an optimizer, or has a schedule, loss scaling or moving average of its
            own, for which the recipe has settings.

    >>> describe_optimizer(keras.optimizers.Adam(0.002, beta_1=0.8))[0]
    'clouds_tf.keras:keras.optimizers.Adam(beta_1=0.8)'
    """
    if not _is_optimizer(optimizer):
        raise ValueError(f"optimizer: got {optimizer!r}, expected an optimizer of clouds_tf.keras")
    cls: Any = type(optimizer)
    config = optimizer.get_config()
    rate = config.pop("learning_rate", None)
    for setting, is_used in (
        ("precision", hasattr(optimizer, "inner_optimizer")),
        ("schedule", not isinstance(rate, (int, float, np.number))),
        ("ema", config.get("use_ema")),
    ):
        if is_used:
            raise ValueError(
                f"optimizer: got {cls.__name__} with a {setting} of its own, expected the "
                f"setting {setting} in its place"
            )
    defaults = cls().get_config()
    changed = {key: value for key, value in config.items() if value != defaults.get(key)}
    if cls is keras.optimizers.Nadam:
        cls = Nadam  # that of Keras is wrong under several replicas
    name = own.name_of("optimizer", functools.partial(cls, **changed), {})
    if getattr(keras.optimizers, cls.__name__, None) is cls:  # another package in each lane
        name = f"clouds_tf.keras:keras.optimizers.{name.split(':', 1)[1]}"
    return name, float(f"{rate:.7g}")  # Keras keeps the rate as float32


def _of_the_user(name: str, schedule: _LearningRate, *_: object) -> Any:
    """Makes an optimizer with a user's function or class, which takes the learning rate."""
    optimizer = own.call("optimizer", name, schedule)
    if not _is_optimizer(optimizer) or hasattr(optimizer, "inner_optimizer"):
        raise ValueError(
            f"optimizer: {name} returned {optimizer!r}, expected an optimizer of clouds_tf.keras, "
            "which the training wraps where a precision needs it"
        )
    return optimizer


def _from_addons(
    given: str, schedule: _LearningRate, variables: Sequence[tf.Variable], weight_decay: float
) -> Any:
    """Makes an optimizer of tensorflow-addons; radam and lookahead have no weight decay."""
    name = {"lamb": "LAMB"}.get(given, given.replace(ADDONS_PREFIX, ""))
    optimizers = import_addons(f"optimizer: {given}", ", ".join(KERAS_OPTIMIZERS)).optimizers
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

    # Not with addons' own extension, which does not find the variables of several replicas.
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
    """Makes an optimizer with all its slot variables, so that a checkpoint can be restored.

    Args:
        name: one of OPTIMIZERS, "module:function" for a function or class that makes an optimizer
            of a schedule, or addons:NAME with the name of an optimizer of tensorflow-addons.
            "radam" is Liu et al., "On the Variance of the Adaptive Learning Rate", 2020;
            "lookahead" is Zhang et al., "Lookahead Optimizer", 2019, around it; "lamb" is You et
            al., "Large Batch Optimization for Deep Learning", 2020.
        schedule: learning rate: a number, or a LearningRateSchedule.
        variables: the variables to optimize.
        weight_decay: weight decay per step and unit of learning rate, decoupled in "adamw" and
            addons:NAME, and part of the step in LAMB; not applied to biases and batch norm.

    Returns:
        An optimizer; with loss scaling if the policy is mixed_float16.

    Raises:
        ValueError: there is no such optimizer, or tensorflow-addons does not work here.
    """
    check_optimizer(name)
    found = _of_the_user if own.is_own(name) else _from_addons
    make = _KERAS.get(name) or functools.partial(found, name)
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

    It scales the update of a variable rather than the gradient, because Adam and similar
    optimizers are invariant to the scale of the gradients. For every optimizer whose update is
    proportional to its learning rate, this equals a separate learning rate for those variables;
    only decoupled weight decay keeps the full rate.

    Args:
        optimizer: a Keras optimizer, new or legacy, changed in place; replicas may call it.
        variables: tf.Variables with unique names.
        factor: >= 0; 1 changes nothing.
    """
    names = {variable.name.split(":")[0] for variable in variables}
    # Loss scaling and Lookahead wrap the optimizer that applies the updates.
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
