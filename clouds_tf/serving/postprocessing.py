"""Probabilities -> masks, as graph ops, with settings per class that a JSON file keeps."""

import json

import tensorflow as tf

from clouds_tf import files
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES, SCHEMA_VERSION, SUBMISSION_SIZE

# The cut at 1/2 without a least area: what is done unless something better was found.
PLAIN = {"thresholds": [0.5] * NUM_CLASSES, "min_areas": [0] * NUM_CLASSES}


def postprocess(probabilities, thresholds, min_areas):
    """Cuts probabilities and empties masks that are too small to be believed.

    Args:
        probabilities: float32 [B, h, w, 4] in [0, 1].
        thresholds: four numbers; a pixel is in the mask where its probability is above.
        min_areas: four whole numbers; a mask of fewer pixels becomes empty.

    Returns:
        uint8 [B, h, w, 4] of {0, 1}.
    """
    masks = probabilities > tf.constant(thresholds, tf.float32)
    areas = tf.math.count_nonzero(masks, axis=[1, 2], keepdims=True)
    return tf.cast(masks & (areas >= tf.constant(min_areas, tf.int64)), tf.uint8)


def write_settings(path, thresholds, min_areas, **origin):
    """Writes the settings of `postprocess` as JSON, with what they were found from.

    Args:
        path: the JSON file to write.
        thresholds: four numbers, in the order of CLASS_NAMES.
        min_areas: four whole numbers, in pixels at SUBMISSION_SIZE.
        **origin: JSON-like values that say where the settings come from.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        "size": list(SUBMISSION_SIZE),
        "classes": {
            name: {"threshold": threshold, "min_area": min_area}
            for name, threshold, min_area in zip(CLASS_NAMES, thresholds, min_areas)
        },
        **origin,
    }
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def read_settings(path):
    """Reads the settings of `postprocess`: a dict of its arguments thresholds and min_areas.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: other classes, size or version, or no such file of ours.
    """
    try:
        content = json.loads(files.read_text(path))
        classes = content["classes"]
        found = content["schema_version"], content["size"], list(classes)
        expected = SCHEMA_VERSION, list(SUBMISSION_SIZE), list(CLASS_NAMES)
        for name, got, wanted in zip(("schema_version", "size", "classes"), found, expected):
            if got != wanted:
                raise ValueError(f"{path}: {name}: got {got}, expected {wanted}")
        return {
            "thresholds": [float(classes[name]["threshold"]) for name in CLASS_NAMES],
            "min_areas": [int(classes[name]["min_area"]) for name in CLASS_NAMES],
        }
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a postprocessing.json of evaluate: {error!r}") from None
