"""Held-out predictions -> post-processing and honest scores."""
