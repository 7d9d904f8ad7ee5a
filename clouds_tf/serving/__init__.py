"""Exports trained models as a SavedModel, and predicts submissions with it."""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.prediction.metadata import Metadata, read_metadata
    from clouds_tf.prediction.predictor import Predictor
    from clouds_tf.serving.exporting import ExportResult, export
    from clouds_tf.serving.prediction import PredictionResult, predict

__all__ = [
    "ExportResult",
    "Metadata",
    "PredictionResult",
    "Predictor",
    "export",
    "predict",
    "read_metadata",
]

__getattr__ = face(
    __name__,
    {
        "exporting": ["ExportResult", "export"],
        "prediction": ["PredictionResult", "predict"],
        "clouds_tf.prediction": ["Metadata", "Predictor", "read_metadata"],
    },
)
