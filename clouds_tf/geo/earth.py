"""The Earth as a sphere: its radius, lengths and areas."""

from __future__ import annotations

import numpy as np

RADIUS = 6371.0072  # km, of the sphere with the area of the WGS 84 ellipsoid
KM_PER_DEGREE = RADIUS * np.pi / 180  # of latitude


def sine(latitudes: np.ndarray) -> np.ndarray:
    """Sine of latitudes in degrees, exactly -1 and 1 at the poles."""
    return np.sin(np.radians(latitudes))


def heights(latitudes: np.ndarray) -> np.ndarray:
    """Signed area between the equator and latitudes (degrees) per degree of longitude, in km2.

    The area of a rectangle of longitudes and latitudes is its difference of heights times its
    degrees of longitude: Lambert's cylindrical projection preserves areas.
    """
    return RADIUS * KM_PER_DEGREE * sine(latitudes)
