"""Calibration of probabilities by a monotone map per class."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Curve:
    """Monotone, piecewise-linear map of the probabilities of one class.

    Attributes:
        inputs: K >= 2 probabilities of the network, strictly increasing from 0 to 1.
        outputs: the K calibrated probabilities there, never decreasing, in [0, 1].
        method: method of the fit, such as "isotonic".
    """

    inputs: tuple[float, ...]
    outputs: tuple[float, ...]
    method: str = "isotonic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        x, y = np.array(self.inputs, float), np.array(self.outputs, float)
        if len(x) < 2 or len(x) != len(y):
            raise ValueError(
                f"calibration: got {len(x)} inputs and {len(y)} outputs, expected the same number, "
                "at least 2"
            )
        if not (x[0] == 0 and x[-1] == 1 and (np.diff(x) > 0).all()):
            raise ValueError("calibration: inputs must increase strictly from 0 to 1")
        if not (y[0] >= 0 and y[-1] <= 1 and (np.diff(y) >= 0).all()):
            raise ValueError("calibration: outputs must lie in [0, 1] and never decrease")

    def __call__(self, probabilities: Any) -> np.ndarray:
        """Calibrates probabilities of any shape with numpy: float64 in [0, 1]."""
        return np.interp(probabilities, self.inputs, self.outputs)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Calibration of every class, as evaluation fits it on held-out images.

    >>> twice = Calibration((Curve(inputs=(0, 0.5, 1), outputs=(0, 1, 1)),))
    >>> twice.calibrate(tf.constant([[0.2], [0.9]])).numpy().round(3).tolist()
    [[0.4000000059604645], [1.0]]

    Attributes:
        curves: C Curves, in the order of the data set's classes.
    """

    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "curves", tuple(self.curves))

    def calibrate(self, probabilities: tf.Tensor) -> tf.Tensor:
        """Maps probabilities [..., C] to calibrated ones, float32 of the same shape, as graph ops.

        Raises:
            ValueError: the last axis is not one of C classes.
        """
        probabilities = tf.convert_to_tensor(probabilities, tf.float32)
        classes = probabilities.shape[-1]
        if classes != len(self.curves):
            raise ValueError(
                f"calibration: got probabilities of {classes} classes, expected {len(self.curves)}"
            )
        by_class = zip(tf.unstack(probabilities, num=classes, axis=-1), self.curves)
        return tf.stack([_interpolate(values, curve) for values, curve in by_class], axis=-1)

    def to_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """A JSON-like dict, class name -> method and knots, that `from_json` reads."""
        return {
            name: {
                "method": curve.method,
                "knots": [[float(x), float(y)] for x, y in zip(curve.inputs, curve.outputs)],
            }
            for name, curve in zip(class_names, self.curves)
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any], class_names: tuple[str, ...]) -> Calibration:
        """Reads what `to_json` wrote; ValueError for other classes or impossible curves."""
        if list(fields) != list(class_names):
            raise ValueError(
                f"calibration: got the classes {list(fields)}, expected {list(class_names)}"
            )
        curves = []
        for name in class_names:
            try:
                inputs, outputs = zip(*fields[name]["knots"])
                curves.append(Curve(inputs, outputs, fields[name]["method"]))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return cls(tuple(curves))


def _interpolate(values: tf.Tensor, curve: Curve) -> tf.Tensor:
    """`numpy.interp` as graph ops: float32 of any shape."""
    x, y = np.array(curve.inputs, np.float64), np.array(curve.outputs, np.float64)
    inner = tf.constant(x[1:-1], tf.float32)
    segment = tf.searchsorted(inner, tf.reshape(values, [-1]), side="right")
    segment = tf.reshape(segment, tf.shape(values))
    start, base, slope = (
        tf.gather(tf.constant(numbers, tf.float32), segment)
        for numbers in (x[:-1], y[:-1], np.diff(y) / np.diff(x))
    )
    # Rounding may exceed the end values.
    return tf.clip_by_value(base + slope * (values - start), y[0], y[-1])
