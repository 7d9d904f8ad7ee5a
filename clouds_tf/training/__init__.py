"""Batches and a model -> a trained model in a workdir."""
