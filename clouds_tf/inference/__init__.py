"""Shared by evaluation and serving: fused models, ensembles, post-processing, calibration."""
