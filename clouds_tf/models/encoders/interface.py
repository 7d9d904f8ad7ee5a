"""Interface of an encoder to the rest of the library."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An encoder for the U-Net: a new one is a file with such a record, and its entry in ENCODERS.

    Attributes:
        apply: function of an image, float [B, H, W, 3] in 0..255 with H and W divisible by 32, and
            a width, which multiplies the channels of every stage. Returns feature maps
            [B, H/s, W/s, channels] for the strides s = 2, 4, 8, 16 and 32.
        layer_prefixes: what the names of its layers, and of no others, start with.
        decoder_momentum: momentum of the decoder's batch norm, of 1 for averages that never move.
        decoder_epsilon: epsilon of the decoder's batch norm.
        weights_suffixes: endings of the files in which its weights are published.
        read_weights: function of the path of such a file. Returns a dict from the names in the file
            to arrays in Keras' layout; raises ValueError for any other file.
        published_name: function from a name of ours, such as "stem_conv/kernel", to that in the
            file.
    """

    apply: Callable[[Any, float], list[Any]]
    layer_prefixes: tuple[str, ...]
    decoder_momentum: float
    decoder_epsilon: float
    weights_suffixes: tuple[str, ...]
    read_weights: Callable[[str], dict[str, np.ndarray]]
    published_name: Callable[[str], str]
