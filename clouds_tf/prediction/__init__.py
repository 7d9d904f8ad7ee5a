"""Prediction with a SavedModel: engines, ensembles, post-processing, untrusted input."""

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
