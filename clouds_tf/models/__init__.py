"""Batches -> logits, losses and metrics."""
