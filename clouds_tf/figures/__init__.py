"""Pictures in one style and one palette. The only room that knows matplotlib.

Every function that returns a Figure takes the keyword dark, for pictures on a dark page. Charts of
data are in `charts`, those of predictions in `evaluation`, `scenes` and `climatology`.
"""

import typing

from clouds_tf.lazy import face

if typing.TYPE_CHECKING:
    from clouds_tf.figures.architecture import network
    from clouds_tf.figures.charts import curves
    from clouds_tf.figures.images import overlay, overlays
    from clouds_tf.figures.rates import learning_rates
    from clouds_tf.figures.style import AVAILABLE, class_colors, describe, encode, pixels, save

__all__ = [
    "AVAILABLE",
    "class_colors",
    "curves",
    "describe",
    "encode",
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
        "architecture": ["network"],
        "charts": ["curves"],
        "images": ["overlay", "overlays"],
        "rates": ["learning_rates"],
        "style": ["AVAILABLE", "class_colors", "describe", "encode", "pixels", "save"],
    },
)
