"""Tunes post-processing and calibration on held-out predictions, and scores them."""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.evaluation.pipeline import EvaluationResult, evaluate
    from clouds_tf.evaluation.settings import Settings

__all__ = ["EvaluationResult", "Settings", "evaluate"]

__getattr__ = face(
    __name__,
    {
        "pipeline": ["EvaluationResult", "evaluate"],
        "settings": ["Settings"],
    },
)
