"""Likeness of an image to the training images, whatever clouds it shows.

A network predicts noise, deserts and night scenes as confidently as clouds. Plain statistics of the
pixels detect such images better than the network's own features do: brightness, colours of bright
and dark parts, saturation, and roughness at six scales.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf.data.preprocessing import BLACK
from clouds_tf.lazy import traced
from clouds_tf.messages import counted

UNLIKE = 0.01  # images whose likeness is below cause a warning

_DARK, _WHITE = 40, 250
_BLOCK = 16  # pixels; the darkest pixel of a block shows the background of the clouds
_SCALES = 6  # each twice as coarse as the previous one
_REGULARIZATION = 0.05  # added to the variances, which are 1 on average
_LEAST_DEVIATION = 0.05  # otherwise, a statistic that hardly varies would dominate
_QUANTILES = 200


@dataclasses.dataclass(frozen=True)
class Likeness:
    """Distribution of the statistics of the images that a model is for.

    The distance of an image is that of Mahalanobis (1936): its D statistics minus their mean,
    divided by the standard deviations along the principal axes.

    Attributes:
        image_size: (height, width) at which the statistics are computed.
        mean: D means.
        transform: D rows of D numbers, from statistics to axes along which they vary by 1.
        distances: squared distances of the images, from the smallest to the largest.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    transform: tuple[tuple[float, ...], ...] = dataclasses.field(repr=False)
    distances: tuple[float, ...] = dataclasses.field(repr=False)

    @classmethod
    def fit(cls, found: np.ndarray, image_size: tuple[int, int]) -> Likeness:
        """Fits the distribution of `statistics`, float [N, D], of images of one size.

        The distances are cross-fitted: those of each half of the images to the distribution of the
        other half. So the likeness of new images of the same kind is uniformly distributed.

        Raises:
            ValueError: there are fewer than two images.
        """
        if len(found) < 2:
            raise ValueError(f"likeness: got {len(found)} images, expected at least 2")
        halves = found[::2], found[1::2]
        distances = [_squared(x, *_axes(other)) for x, other in (halves, halves[::-1])]
        mean, transform = _axes(found)
        ranks = np.linspace(0, 1, min(len(found), _QUANTILES))
        quantiles = np.quantile(np.concatenate(distances), ranks)
        return cls(
            image_size,
            tuple(map(_rounded, mean)),
            tuple(tuple(map(_rounded, row)) for row in transform),
            tuple(map(_rounded, quantiles)),
        )

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Computes the likeness of images, uint8 [N, *image_size, C]: float32 [N] in [0, 1].

        It is the share of the fitted images that are less typical: of images of the same kind, one
        in a hundred has a likeness below 0.01.
        """
        axes = (statistics(images) - np.array(self.mean, np.float32)) @ np.array(
            self.transform, np.float32
        )
        less = tf.searchsorted(np.array(self.distances, np.float32), tf.reduce_sum(axes**2, axis=1))
        return 1 - tf.cast(less, tf.float32) / len(self.distances)

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads; a row of numbers is a string, on one line."""
        return {
            "image_size": list(self.image_size),
            "mean": _joined(self.mean),
            "transform": [_joined(row) for row in self.transform],
            "distances": _joined(self.distances),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Likeness:
        """Reads what `to_json` wrote.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is damaged.
        """
        height, width = fields["image_size"]
        transform = tuple(_split(row) for row in fields["transform"])
        mean, distances = _split(fields["mean"]), _split(fields["distances"])
        if not distances or {len(mean)} != {len(transform), *map(len, transform)}:
            raise ValueError("likeness: mean, transform and distances do not match")
        return cls((int(height), int(width)), mean, transform, distances)


def _joined(values: Sequence[float]) -> str:
    return " ".join(map(repr, values))


def _split(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _axes(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and transform [D, D] of statistics [N, D]."""
    mean, deviation = found.mean(axis=0), np.maximum(found.std(axis=0), _LEAST_DEVIATION)
    scaled = (found - mean) / deviation
    variances, vectors = np.linalg.eigh(scaled.T @ scaled / len(found))
    return mean, vectors / deviation[:, np.newaxis] / np.sqrt(variances + _REGULARIZATION)


def _squared(found: np.ndarray, mean: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return (((found - mean) @ transform) ** 2).sum(axis=1)


def known(likeness: float) -> float | None:
    """Rounds a likeness to six digits; None for NaN, the answer of a SavedModel without likeness.

    >>> known(0.25), known(math.nan)
    (0.25, None)
    """
    return None if math.isnan(likeness) else round(likeness, 6)


def unlike_warning(likeness: Mapping[str, float | None], noun: str) -> str:
    """One line on images whose likeness is below UNLIKE; "" if there are none.

    Args:
        likeness: likeness of each image by its name; None if unknown.
        noun: name of the images, such as "scene".
    """
    unlike = sorted((x, name) for name, x in likeness.items() if x is not None and x < UNLIKE)
    if not unlike:
        return ""
    (lowest, worst), count = unlike[0], counted(len(unlike), noun)
    do = "does" if len(unlike) == 1 else "do"
    return (
        f"{count} of {len(likeness)} {do} not look like the training images, so their predictions "
        f"may be meaningless; the worst is {worst} (likeness {lowest:.3f}, expected {UNLIKE} or "
        "more)"
    )


@traced  # once for all signatures of a SavedModel
def statistics(images: tf.Tensor) -> tf.Tensor:
    """Measures brightness, colours and roughness of images.

    Args:
        images: uint8 [N, h, w, C]; black pixels, such as the gap between two orbits, are left out.

    Returns:
        float32 [N, D]: D is 28 for three channels.
    """
    channels = tf.unstack(tf.cast(images, tf.float32), axis=3)
    # Reductions over three channels, and powers, would take five times as long.
    light = tf.add_n(channels) / len(channels)
    brightest, darkest = (functools.reduce(f, channels) for f in (tf.maximum, tf.minimum))
    observed = brightest > BLACK
    seen = _Pixels(observed)
    mean = seen.mean(light)
    # 0 where nothing was observed, so that these sums need no weights.
    centered = (light - mean[:, tf.newaxis, tf.newaxis]) * seen.weights
    squared = tf.square(centered)
    variance, third, fourth = map(
        seen.mean_of_weighted, (squared, squared * centered, tf.square(squared))
    )
    found = [
        mean,
        tf.sqrt(variance),
        third / (variance + 1) ** 1.5,
        tf.math.log(fourth / (variance + 1) ** 2 + 0.1),
        tf.math.log(seen.mean(darkest >= _WHITE) + 0.003),
        seen.mean(light < _DARK),
        seen.mean(brightest - darkest),
        *_of_parts(channels, light, observed, centered > 0),
        *_of_blocks(light, observed),
        *_roughness(light, observed),
    ]
    return tf.stack(found, axis=1)


class _Pixels:
    """The pixels where a bool [N, h, w] is true; weights are 1.0 there, 0.0 elsewhere."""

    def __init__(self, where: tf.Tensor) -> None:
        self.weights = tf.cast(where, tf.float32)
        self._number = tf.maximum(tf.reduce_sum(self.weights, axis=[1, 2]), 1.0)

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Means of [N, h, w] over these pixels: float32 [N]; 0 if there are none."""
        return self.mean_of_weighted(tf.cast(values, tf.float32) * self.weights)

    def mean_of_weighted(self, values: tf.Tensor) -> tf.Tensor:
        """The same of values that are 0 elsewhere."""
        return tf.reduce_sum(values, axis=[1, 2]) / self._number


def _of_parts(
    channels: Sequence[tf.Tensor], light: tf.Tensor, observed: tf.Tensor, bright: tf.Tensor
) -> list[tf.Tensor]:
    """Brightness and colours of the bright and of the dark part."""
    found, steps = [], [after - before for before, after in zip(channels, channels[1:])]
    for part in map(_Pixels, (bright, observed & ~bright)):
        found.append(part.mean(light))
        found.extend(map(part.mean, steps))
    return found


def _of_blocks(light: tf.Tensor, observed: tf.Tensor) -> list[tf.Tensor]:
    """Mean and deviation of the darkest pixel of each block, and mean of the brightest."""

    behind = -_highest(tf.where(observed, -light, -255.0), _BLOCK)
    some = _Pixels(behind < 255)
    mean = some.mean(behind)
    deviation = tf.sqrt(some.mean(tf.square(behind - mean[:, tf.newaxis, tf.newaxis])))
    clouds = some.mean(_highest(tf.where(observed, light, 0.0), _BLOCK))
    return [mean, deviation, clouds]


def _highest(values: tf.Tensor, side: int) -> tf.Tensor:
    """The highest value of each block of [N, h, w]."""
    return tf.nn.max_pool2d(values[..., tf.newaxis], side, side, "SAME")[..., 0]


def _roughness(light: tf.Tensor, observed: tf.Tensor) -> list[tf.Tensor]:
    """For each scale, logarithms of the squared differences of neighbours and of their ratio."""
    found = []
    for scale in range(_SCALES):
        if scale:
            light = tf.nn.avg_pool2d(light[..., tf.newaxis], 2, 2, "SAME")[..., 0]
            observed = _highest(tf.cast(~observed, tf.float32), 2) == 0  # in all four pixels
        across, down = (
            _Pixels(observed[after] & observed[before]).mean(
                tf.square(light[after] - light[before])
            )
            + 1
            for after, before in (
                (np.s_[:, :, 1:], np.s_[:, :, :-1]),
                (np.s_[:, 1:], np.s_[:, :-1]),
            )
        )
        found += [tf.math.log(across + down), tf.math.log(down / across)]
    return found
