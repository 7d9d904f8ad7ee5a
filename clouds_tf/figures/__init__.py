"""Pictures in one style and one palette. The only room that knows matplotlib.

Every function that returns a Figure takes the keyword dark, for pictures on a dark page.
"""

from clouds_tf.figures.charts import (
    average_masks,
    bars,
    box_sizes,
    combinations,
    curves,
    distributions,
    histogram,
    matrix,
    shares,
)
from clouds_tf.figures.evaluation import (
    comparisons,
    confusions,
    predicted_areas,
    reliability,
    score_maps,
)
from clouds_tf.figures.images import overlay, overlays
from clouds_tf.figures.network import network
from clouds_tf.figures.style import AVAILABLE, class_colors, describe, encode, pixels, save

__all__ = [
    "AVAILABLE",
    "class_colors",
    "average_masks",
    "bars",
    "box_sizes",
    "combinations",
    "comparisons",
    "confusions",
    "curves",
    "describe",
    "distributions",
    "encode",
    "histogram",
    "matrix",
    "network",
    "overlay",
    "overlays",
    "pixels",
    "predicted_areas",
    "reliability",
    "save",
    "score_maps",
    "shares",
]
