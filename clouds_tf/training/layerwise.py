"""Learning rates that differ between layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from clouds_tf.keras import Optimizer


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
