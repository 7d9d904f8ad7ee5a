"""Procedural textures of clouds, for synthetic images: random fields, blobs and ridges.

Lengths are in pixels of SCENE_SIZE.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

# (height, width) of a scene.
SCENE_SIZE = (1400, 2100)
# Clouds are drawn at this size and then resized: it shows the finest texture, and is fast.
RENDER_SIZE = (700, 1050)


def noise(
    rng: np.random.Generator,
    wavelength: float,
    octaves: float,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> np.ndarray:
    """A random field of mean 0 and variance 1, float32 of RENDER_SIZE.

    Args:
        rng: a numpy.random.Generator.
        wavelength: how long its waves are.
        octaves: how much that varies: 0.3 makes even ripples or blobs, 1.5 a fractal.
        stretch: how many times longer the waves are in the direction of `angle`.
        angle: radians, 0 is along a row.
    """
    height, width = RENDER_SIZE
    pitch = SCENE_SIZE[0] / height
    y = np.fft.fftfreq(height, pitch).astype(np.float32)[:, None]
    x = np.fft.rfftfreq(width, pitch).astype(np.float32)[None, :]
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    frequency = wavelength * np.hypot(stretch * along, across)
    frequency[0, 0] = np.inf  # the mean is no wave
    # The same energy in every octave, under a bell around the wavelength.
    amplitude = np.exp(-0.5 * np.square(np.log2(frequency) / octaves)) / frequency
    # Their sum is normally distributed although the waves are not, and these are faster to draw.
    real, imaginary = rng.random((2, *amplitude.shape), dtype=np.float32) - 0.5
    field = tf.signal.irfft2d(amplitude * (real + 1j * imaginary), RENDER_SIZE).numpy()
    return field / field.std()


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, and linear between."""
    return np.clip((x - low) / (high - low), 0, 1)


def ridges(field: np.ndarray, width: float) -> np.ndarray:
    """1 on the lines where a field changes its sign, and falling to 0 on either side."""
    return np.exp(-np.square(field / width))


def _fish(rng: np.random.Generator) -> np.ndarray:
    """Long skeletons with ribs."""
    angle = rng.uniform(-0.4, 0.4)
    detail = noise(rng, 80, 1.6)
    skeleton = noise(rng, 420, 0.35, stretch=3, angle=angle) + 0.12 * detail
    ribs = ramp(noise(rng, 75, 0.5, stretch=3, angle=angle + 1.2) + 0.6 * detail, 0.2, 1.8)
    return ridges(skeleton, 0.22) * ramp(detail, -1.8, 1.2) + ridges(skeleton, 0.5) * ribs


def _flower(rng: np.random.Generator) -> np.ndarray:
    """Large blobs, apart from each other, with ragged edges."""
    detail = noise(rng, 70, 1.6)
    return ramp(noise(rng, 330, 0.3) + 0.35 * detail, 0.2, 0.9) * (0.85 + 0.15 * detail)


def _gravel(rng: np.random.Generator) -> np.ndarray:
    """Small bright granules along arcs and rings."""
    arcs = ridges(noise(rng, 330, 0.25), 0.5)
    return ramp(noise(rng, 45, 0.6) + 2.4 * arcs, 2, 3.4)


def _sugar(rng: np.random.Generator) -> np.ndarray:
    """A dust of tiny puffs."""
    return ramp(noise(rng, 16, 0.7) + 0.4 * noise(rng, 400, 1), 0, 2.2)


# Opacity and colour of the classes, from the highest clouds to the lowest; further classes repeat
# them.
TEXTURES = (
    (_fish, (214, 222, 232)),
    (_flower, (240, 238, 232)),
    (_gravel, (250, 246, 236)),
    (_sugar, (172, 184, 200)),
)
