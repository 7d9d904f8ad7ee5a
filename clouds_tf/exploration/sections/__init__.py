"""The sections of the report: for each, the HTML above its cards, and the cards."""

from clouds_tf.exploration.sections.examples import examples
from clouds_tf.exploration.sections.folder import folder, problems
from clouds_tf.exploration.sections.images import images
from clouds_tf.exploration.sections.labels import labels
from clouds_tf.exploration.sections.masks import masks
from clouds_tf.exploration.sections.parts import Data, Picture
from clouds_tf.exploration.sections.worth_a_look import worth_a_look

__all__ = [
    "Data",
    "Picture",
    "examples",
    "folder",
    "images",
    "labels",
    "masks",
    "problems",
    "worth_a_look",
]
