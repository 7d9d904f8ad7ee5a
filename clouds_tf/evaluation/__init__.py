"""Held-out predictions -> post-processing, calibration and honest scores."""

from clouds_tf.evaluation.pipeline import EvaluationResult, Settings, evaluate

__all__ = ["EvaluationResult", "Settings", "evaluate"]
