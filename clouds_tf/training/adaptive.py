"""Rectified Adam, LAMB and Lookahead, the same in both lanes: newer TensorFlow has no addons."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from clouds_tf.keras import keras


@keras.utils.register_keras_serializable("clouds_tf")
class RectifiedAdam(keras.optimizers.Optimizer):
    """Adam whose adaptive step sets in once the variance of the gradients can be estimated.

    Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2020, algorithm 2. Equal
    to `tensorflow_addons.optimizers.RectifiedAdam` with its defaults.

    Args:
        learning_rate: a float, or a LearningRateSchedule.
        beta_1: decay of the mean of the gradients, in [0, 1).
        beta_2: decay of the mean of their squares, in [0, 1).
        epsilon: added to the denominator, > 0.
        threshold: length of the moving average of squares from which on the step is adaptive.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        threshold: float = 5.0,
        name: str = "RectifiedAdam",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.threshold = threshold

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes the two moving averages of every variable."""
        super().build(var_list)
        if not hasattr(self, "_momentums"):
            self._momentums, self._velocities = (
                [self.add_variable_from_reference(variable, name) for variable in var_list]
                for name in ("m", "v")
            )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one step to one variable."""
        gradient = tf.convert_to_tensor(gradient)
        index = self._index_dict[self._var_key(variable)]
        m, v = self._momentums[index], self._velocities[index]
        # Constants are rounded to the dtype of the variable before they are subtracted, as addons
        # does it: the length is a small difference of large numbers, in which that shows.
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.constant(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        beta_1_power, beta_2_power = tf.pow(beta_1, step), tf.pow(beta_2, step)
        m.assign(beta_1 * m + (1 - beta_1) * gradient)
        v.assign(beta_2 * v + (1 - beta_2) * tf.square(gradient))
        m_hat = m * (1 / (1 - beta_1_power))
        v_hat = tf.sqrt(v * (1 / (1 - beta_2_power)))
        longest = 2 / (1 - beta_2) - 1
        length = longest - 2 * step * beta_2_power * (1 / (1 - beta_2_power))
        rectification = tf.sqrt(
            (length - 4) / (longest - 4) * (length - 2) / (longest - 2) * longest / length
        )
        adaptive = rectification * m_hat / (v_hat + self.epsilon)
        change = tf.where(length >= self.threshold, adaptive, m_hat)
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * change)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        config = {
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "threshold": self.threshold,
        }
        return {**super().get_config(), **config}


@keras.utils.register_keras_serializable("clouds_tf")
class Lamb(keras.optimizers.Adam):
    """Adam whose step in each layer is in proportion to the norm of its weights.

    You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", 2020,
    algorithm 2. Vectors, which are biases and the parameters of batch norm, take plain steps of
    Adam and do not decay. Equal to `tensorflow_addons.optimizers.LAMB` that excludes them.

    Args:
        learning_rate: a float, or a LearningRateSchedule.
        beta_1: decay of the mean of the gradients, in [0, 1).
        beta_2: decay of the mean of their squares, in [0, 1).
        epsilon: added to the denominator, > 0.
        decay_rate: fraction of the weights that is added to the step before it is scaled, >= 0.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        decay_rate: float = 0.01,
        name: str = "Lamb",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, name=name, **kwargs)
        self.decay_rate = decay_rate

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one step to one variable."""
        gradient = tf.convert_to_tensor(gradient)
        index = self._index_dict[self._var_key(variable)]
        m, v = self._momentums[index], self._velocities[index]
        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.constant(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        m.assign(beta_1 * m + (1 - beta_1) * gradient)
        v.assign(beta_2 * v + (1 - beta_2) * tf.square(gradient))
        m_hat, v_hat = m / (1 - tf.pow(beta_1, step)), v / (1 - tf.pow(beta_2, step))
        change = m_hat / (tf.sqrt(v_hat) + self.epsilon)
        if len(variable.shape) > 1:
            change += self.decay_rate * variable
            weight_norm, change_norm = tf.norm(variable), tf.norm(change)
            ratio = tf.math.divide_no_nan(weight_norm, change_norm)
            change *= tf.where(ratio > 0, ratio, 1.0)  # where one of the norms is 0
        variable.assign_sub(tf.cast(self.learning_rate, variable.dtype) * change)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "decay_rate": self.decay_rate}


@keras.utils.register_keras_serializable("clouds_tf")
class Lookahead(keras.optimizers.Optimizer):
    """Weights that follow those of another optimizer every few steps, halfway.

    Zhang et al., "Lookahead Optimizer: k steps forward, 1 step back", 2019, algorithm 1. Equal to
    `tensorflow_addons.optimizers.Lookahead` with its defaults.

    Args:
        optimizer: a Keras optimizer that is not built yet, which takes the steps.
        sync_period: number of steps between two updates of the slow weights, >= 1.
        slow_step_size: fraction of the way that the slow weights go, in (0, 1].
    """

    def __init__(
        self,
        optimizer: Any,
        sync_period: int = 6,
        slow_step_size: float = 0.5,
        name: str = "Lookahead",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self._optimizer = optimizer
        # Shared, so that the rate of a schedule, which Keras sets at each step here, is that there.
        self._learning_rate = optimizer._learning_rate
        if hasattr(optimizer, "_current_learning_rate"):
            self._current_learning_rate = optimizer._current_learning_rate
        self.sync_period, self.slow_step_size = sync_period, slow_step_size

    def build(self, var_list: list[tf.Variable]) -> None:
        """Makes the slow copy of every variable, and what the inner optimizer needs."""
        super().build(var_list)
        self._optimizer.build(var_list)
        self._optimizer._iterations = self._iterations
        if not hasattr(self, "_slow"):
            self._slow = [
                self.add_variable_from_reference(variable, "slow", initial_value=variable)
                for variable in var_list
            ]

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Applies one step to one variable."""
        self._optimizer.update_step(gradient, variable)
        slow = self._slow[self._index_dict[self._var_key(variable)]]
        synced = tf.equal((self.iterations + 1) % self.sync_period, 0)
        halfway = slow + self.slow_step_size * (variable - slow)
        slow.assign(tf.where(synced, halfway, slow))
        variable.assign(tf.where(synced, halfway, variable))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        config = {
            "optimizer": keras.optimizers.serialize(self._optimizer),
            "sync_period": self.sync_period,
            "slow_step_size": self.slow_step_size,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Lookahead:
        """Makes an optimizer from what `get_config` gave."""
        optimizer = keras.optimizers.deserialize(config.pop("optimizer"), custom_objects)
        return cls(optimizer, **config)
