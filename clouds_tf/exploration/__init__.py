"""Explores a data folder before training: measurements, findings, and a report that shows them."""
