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
    update_step = optimizer.update_step

    def scaled_update_step(gradient, variable):
        # A replica's copy of the variable a/b is called a/b/replica_1.
        if variable.name.split(":")[0].split("/replica_")[0] not in names:
            update_step(gradient, variable)
            return
        before = tf.identity(variable)
        update_step(gradient, variable)
        variable.assign(before + factor * (variable - before))

    optimizer.update_step = scaled_update_step
