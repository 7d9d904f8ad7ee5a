"""Probabilities -> masks, as graph ops, with a rule per class that a JSON file keeps."""

import json
import typing

import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES, SUBMISSION_SIZE

# Raised whenever the meaning of postprocessing.json changes.
VERSION = 3

# What may be added to a mask.
FILLS = {"nothing": tf.identity, "holes": rle.fill_holes, "boxes": rle.fill_boxes}

_BLACK = 2  # of 255: the gap between two orbits is black but for the noise of JPEG


class Rule(typing.NamedTuple):
    """What becomes of one class; by default a cut at 1/2 and nothing more.

    The class is present in an image if at least `min_area` pixels are more probable than
    `top_threshold` and its presence is at least `min_presence`. Then its mask is what is more
    probable than `threshold`, less the components of under `min_component_area` pixels, more what
    `fill` adds (a key of FILLS), and less the black gap if `remove_gap`. Areas are pixels at
    SUBMISSION_SIZE.
    """

    threshold: float = 0.5
    top_threshold: float = 0.5
    min_area: int = 0
    min_presence: float = 0.0
    min_component_area: int = 0
    fill: str = "nothing"
    remove_gap: bool = False


PLAIN = (Rule(),) * NUM_CLASSES


def postprocess(probabilities, presence, images, rules=PLAIN):
    """Turns probabilities into masks.

    Args:
        probabilities: float32 [B, h, w, 4] in [0, 1].
        presence: float32 [B, 4] in [0, 1]; see `mean_prediction`.
        images: the images, uint8 [B, H, W, 3] of any size, to find the gap in.
        rules: four Rules, in the order of CLASS_NAMES.

    Returns:
        uint8 [B, h, w, 4] of {0, 1}.
    """

    def setting(name, dtype=tf.float32):
        return tf.constant([getattr(rule, name) for rule in rules], dtype)

    areas = tf.math.count_nonzero(probabilities > setting("top_threshold"), axis=[1, 2])
    present = (areas >= setting("min_area", tf.int64)) & (presence >= setting("min_presence"))
    masks = (probabilities > setting("threshold")) & present[:, tf.newaxis, tf.newaxis]
    if any(_refines(rule) for rule in rules):
        by_class = zip(tf.unstack(masks, axis=3), rules)
        masks = tf.stack([refine(mask, images, rule) for mask, rule in by_class], axis=3)
    return tf.cast(masks, tf.uint8)


def _refines(rule):
    return rule.min_component_area > 0 or rule.fill != "nothing" or rule.remove_gap


def refine(mask, images, rule):
    """Does with the masks of one class what a rule says: components, filling, gap.

    Args:
        mask: bool [B, h, w].
        images: uint8 [B, H, W, 3] of any size.
        rule: a Rule, of which the last three fields matter.

    Returns:
        bool [B, h, w].
    """
    if rule.min_component_area > 0:
        mask = rle.remove_small(mask, rule.min_component_area)
    mask = FILLS[rule.fill](mask)
    if rule.remove_gap:
        mask &= ~black_gap(images, tf.shape(mask)[1:])
    return mask


def black_gap(images, size):
    """Where images are black, as they are between two orbits.

    Args:
        images: uint8 [B, H, W, 3].
        size: (height, width) of the result, ints or int32 tensor.

    Returns:
        bool [B, height, width], by nearest neighbour.
    """
    black = tf.reduce_max(images, axis=3) <= _BLACK
    for axis in (1, 2):  # in whole numbers: tf.image.resize rounds to the wrong side at times
        target, source = size[axis - 1], tf.shape(black)[axis]
        nearest = (2 * tf.range(target) + 1) * source // (2 * target)
        black = tf.gather(black, nearest, axis=axis)
    return black


def write_rules(path, rules, **origin):
    """Writes rules as JSON, with what they were found from.

    Args:
        path: the JSON file to write.
        rules: four Rules, in the order of CLASS_NAMES.
        **origin: JSON-like values that say where the rules come from.
    """
    content = {
        "version": VERSION,
        "size": list(SUBMISSION_SIZE),
        "classes": {name: rule._asdict() for name, rule in zip(CLASS_NAMES, rules)},
        **origin,
    }
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def read_rules(path):
    """Reads what `write_rules` wrote: four Rules, in the order of CLASS_NAMES.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another version, size or classes, a value that cannot be, or no file of ours.
    """
    try:
        content = json.loads(files.read_text(path))
        for name, expected in (("version", VERSION), ("size", list(SUBMISSION_SIZE))):
            if content.get(name) != expected:
                raise ValueError(f"{name}: got {content.get(name)}, expected {expected}")
        names = list(content["classes"])
        if names != list(CLASS_NAMES):
            raise ValueError(f"classes: got {names}, expected {list(CLASS_NAMES)}")
        return tuple(_checked(name, content["classes"][name]) for name in CLASS_NAMES)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a postprocessing.json of evaluate: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _checked(class_name, fields):
    """A Rule of a dict, whose every value could come from `write_rules`."""
    if set(fields) != set(Rule._fields):
        raise ValueError(f"{class_name}: got {sorted(fields)}, expected {sorted(Rule._fields)}")
    rule = Rule(**fields)
    for name in ("threshold", "top_threshold", "min_presence"):
        value = getattr(rule, name)
        if not (isinstance(value, (int, float)) and 0 <= value <= 1):
            raise ValueError(f"{class_name}: {name}: got {value!r}, expected a number in [0, 1]")
    for name in ("min_area", "min_component_area"):
        value = getattr(rule, name)
        if not (isinstance(value, int) and value >= 0):
            raise ValueError(f"{class_name}: {name}: got {value!r}, expected a number of pixels")
    if rule.fill not in FILLS:
        raise ValueError(f"{class_name}: fill: got {rule.fill!r}, expected one of {list(FILLS)}")
    if not isinstance(rule.remove_gap, bool):
        raise ValueError(f"{class_name}: remove_gap: got {rule.remove_gap!r}, expected a boolean")
    return rule
