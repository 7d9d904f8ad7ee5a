"""Learning rates that differ between layers."""

import tensorflow as tf


def scale_learning_rate(optimizer, variables, factor):
    """Makes an optimizer change some variables by a factor of what it would, step by step.

    The change of a variable is scaled after the optimizer has made it, and not the gradient before:
    Adam and its relatives divide by the size of the gradients, so a factor on these would vanish.
    For every optimizer whose step is in proportion to its learning rate, this equals a learning
    rate of its own for those variables; decoupled weight decay alone keeps the full rate.

    Args:
        optimizer: a Keras optimizer of the newer or the older kind, changed in place; a strategy
            may call it on every replica.
        variables: tf.Variables, each with a name of its own.
        factor: >= 0; 1 changes nothing.
    """
    names = {variable.name.split(":")[0] for variable in variables}
    # What scales losses or looks ahead calls the optimizer inside, which takes the steps.
    while inner := getattr(optimizer, "inner_optimizer", getattr(optimizer, "_optimizer", None)):
        optimizer = inner
    method = "update_step" if hasattr(optimizer, "update_step") else "_resource_apply_dense"
    take_step = getattr(optimizer, method)

    def take_scaled_step(gradient, variable, *args, **kwargs):
        # A replica's copy of the variable a/b is called a/b/replica_1.
        if variable.name.split(":")[0].split("/replica_")[0] not in names:
            return take_step(gradient, variable, *args, **kwargs)
        before = tf.identity(variable)
        with tf.control_dependencies([before]):
            taken = take_step(gradient, variable, *args, **kwargs)
        with tf.control_dependencies([taken] if isinstance(taken, tf.Operation) else []):
            return variable.assign(before + factor * (variable - before))

    setattr(optimizer, method, take_scaled_step)
