"""Writes SavedModels into numbered folders, as TensorFlow Serving wants them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable

import tensorflow as tf

from clouds_tf import files
from clouds_tf.prediction.metadata import METADATA_FILE
from clouds_tf.serving.cloud_model import CloudModel


def write_version(
    module: CloudModel, export_dir: str, finish: Callable[[str], None] = lambda path: None
) -> str:
    """Writes a SavedModel into the next free numbered folder, whole or not at all.

    The SavedModel is of C classes and of masks of (h, w), the data set's submission size. These are
    its signatures, where N may be 0 and images may be of different sizes:

        serving_default: image_bytes, string [N], JPEGs or PNGs, to
            encoded_pixels, string [N, C], the RLE at (h, w), "" where the class is absent;
            presence, float32 [N, C] in [0, 1], as `mean_prediction` gives it;
            area_fraction, float32 [N, C] in [0, 1], the share of the image in the class's mask;
            expected_area_fraction, float32 [N, C] in [0, 1], the mean of the calibrated
            probabilities (without a calibration, of the network's).
        probabilities: image_bytes to
            probabilities, float32 [N, h, w, C] in [0, 1], before post-processing.
        from_pixels: images, uint8 [N, H, W, 3], to all five.
        metadata: image_bytes, which it does not look at, to
            metadata, string [N], each the JSON that METADATA_FILE holds too.

    Args:
        module: a `CloudModel`.
        export_dir: folder of all versions.
        finish: called with the path of the SavedModel before it takes its place, to check it and to
            add files; nothing is left if it raises.

    Returns:
        The path of the new version: export_dir/1, or the number after the highest.
    """
    names = files.list_names(export_dir)
    version = max((int(name) for name in names if name.isdecimal()), default=0) + 1
    path = os.path.join(export_dir, str(version))
    described = dataclasses.replace(module.metadata, version=version)
    metadata = json.dumps(described.to_json(), indent=1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serve_metadata(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        # A server that merges requests wants an output for each input.
        return {"metadata": tf.fill(tf.shape(image_bytes), metadata)}

    signatures = {
        "serving_default": module.serve,
        "probabilities": module.serve_probabilities,
        "from_pixels": module.serve_pixels,
        "metadata": serve_metadata,
    }
    with files.written_whole(path) as temporary:
        tf.saved_model.save(module, temporary, signatures)
        files.write_text(os.path.join(temporary, METADATA_FILE), metadata + "\n")
        finish(temporary)
    return path
