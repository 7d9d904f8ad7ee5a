"""Encoders of the U-Net."""
