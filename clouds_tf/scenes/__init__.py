"""Georeferenced scenes of any size -> masks with longitude and latitude (extra `geo`)."""
