"""Serving: trained models to a SavedModel, and a SavedModel to a submission.

Names are imported when they are first used.
"""

import importlib
import typing

if typing.TYPE_CHECKING:
    from clouds_tf.prediction.metadata import Metadata, read_metadata
    from clouds_tf.prediction.predictor import Predictor
    from clouds_tf.serving.exporting import ExportResult, export
    from clouds_tf.serving.prediction import PredictionResult, predict

_HOMES = {
    "ExportResult": "clouds_tf.serving.exporting",
    "Metadata": "clouds_tf.prediction.metadata",
    "PredictionResult": "clouds_tf.serving.prediction",
    "Predictor": "clouds_tf.prediction.predictor",
    "export": "clouds_tf.serving.exporting",
    "predict": "clouds_tf.serving.prediction",
    "read_metadata": "clouds_tf.prediction.metadata",
}

__all__ = [
    "ExportResult",
    "Metadata",
    "PredictionResult",
    "Predictor",
    "export",
    "predict",
    "read_metadata",
]


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
