"""Prediction with a SavedModel: engines, ensembles, post-processing, untrusted input."""
