"""Prediction with a SavedModel: engines, ensembles, post-processing, untrusted input."""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.prediction.calibration import Calibration, Curve
    from clouds_tf.prediction.ensemble import mean_prediction
    from clouds_tf.prediction.metadata import Metadata, read_metadata
    from clouds_tf.prediction.postprocessing import Rule, postprocess, read_postprocessing
    from clouds_tf.prediction.predictor import Predictor

__all__ = [
    "Calibration",
    "Curve",
    "Metadata",
    "Predictor",
    "Rule",
    "mean_prediction",
    "postprocess",
    "read_metadata",
    "read_postprocessing",
]

__getattr__ = face(
    __name__,
    {
        "calibration": ["Calibration", "Curve"],
        "ensemble": ["mean_prediction"],
        "metadata": ["Metadata", "read_metadata"],
        "postprocessing": ["Rule", "postprocess", "read_postprocessing"],
        "predictor": ["Predictor"],
    },
)
