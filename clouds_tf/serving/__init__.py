"""Serving: trained models to a SavedModel, and a SavedModel to a submission."""

from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.serving.exporting import ExportResult, export
from clouds_tf.serving.prediction import PredictionResult, predict

__all__ = [
    "ExportResult",
    "Metadata",
    "PredictionResult",
    "export",
    "predict",
    "read_metadata",
]
