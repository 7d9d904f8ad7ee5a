"""Annotations and image files -> batches of images and masks."""
