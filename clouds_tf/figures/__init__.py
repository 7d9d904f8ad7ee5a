"""Figures in a common style and palette; only this subpackage uses matplotlib.

Every function that returns a Figure takes the keyword dark, for figures on a dark page. In all of
them, class_names are the names of the C classes in the order of the arrays, and title is the
headline. Charts of data are in `charts`, those of predictions in `evaluation`, `images` and
`climatology`.
"""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.figures.images import overlay, overlays
    from clouds_tf.figures.style import AVAILABLE, class_colors, pixels, save
    from clouds_tf.figures.training import curves, learning_rates, network

__all__ = [
    "AVAILABLE",
    "class_colors",
    "curves",
    "learning_rates",
    "network",
    "overlay",
    "overlays",
    "pixels",
    "save",
]

__getattr__ = face(
    __name__,
    {
        "images": ["overlay", "overlays"],
        "style": ["AVAILABLE", "class_colors", "pixels", "save"],
        "training": ["curves", "learning_rates", "network"],
    },
)
