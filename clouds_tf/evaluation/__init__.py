"""Tunes post-processing and calibration on held-out predictions, and scores them."""

from clouds_tf.evaluation.pipeline import EvaluationResult, Settings, evaluate

__all__ = ["EvaluationResult", "Settings", "evaluate"]
