"""The sections of the report."""

from clouds_tf.exploration.sections.examples import examples
from clouds_tf.exploration.sections.folder import folder, problems
from clouds_tf.exploration.sections.images import images
from clouds_tf.exploration.sections.labels import labels
from clouds_tf.exploration.sections.masks import masks
from clouds_tf.exploration.sections.parts import Explored
from clouds_tf.exploration.sections.suspects import suspects

__all__ = ["Explored", "examples", "folder", "images", "labels", "masks", "problems", "suspects"]
