"""Run-length encoding as graph ops that convert between strings, runs and masks."""

from clouds_tf.rle.algebra import area, dice, intersection
from clouds_tf.rle.coco import (
    from_coco_counts,
    from_coco_string,
    to_coco_counts,
    to_coco_string,
)
from clouds_tf.rle.connected import (
    component_areas,
    components,
    fill_boxes,
    fill_holes,
    remove_small,
)
from clouds_tf.rle.masks import coverage, decode, draw, encode, resize
from clouds_tf.rle.text import faults, parse

__all__ = [
    "area",
    "component_areas",
    "components",
    "coverage",
    "decode",
    "dice",
    "draw",
    "encode",
    "faults",
    "fill_boxes",
    "fill_holes",
    "from_coco_counts",
    "from_coco_string",
    "intersection",
    "parse",
    "remove_small",
    "resize",
    "to_coco_counts",
    "to_coco_string",
]
