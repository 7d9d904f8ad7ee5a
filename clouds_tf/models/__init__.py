"""Encoders, the U-Net, its losses and metrics, and files of weights."""
