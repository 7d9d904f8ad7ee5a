"""The graph of a SavedModel, and numbered version folders as in TensorFlow Serving."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files
from clouds_tf.dataset import Dataset
from clouds_tf.lazy import uncollected
from clouds_tf.messages import counted, warnings_only
from clouds_tf.prediction.engine import as_network
from clouds_tf.prediction.fusing import fuse
from clouds_tf.prediction.metadata import METADATA_FILE, Metadata
from clouds_tf.prediction.signatures import Signatures


class CloudModel(tf.Module):
    """Models and their post-processing as functions that `write_version` exports.

    Args:
        models: Keras models from images to logits, to average; one may occur several times, for
            several sizes. Batch norm and upsampling are fused into the convolutions of copies.
        metadata: data set, sizes, rules and limits.

    Attributes:
        networks: each model as a `Network`, which another engine can replace.
        stages: the stages of the functions below, see `Signatures`.
        serve: image_bytes, string [N], to a dict of masks and numbers; see `write_version`.
        serve_probabilities: image_bytes, string [N], to a dict with probabilities.
        serve_pixels: images, uint8 [N, H, W, channels], to a dict of all outputs.

    Raises:
        ValueError: the number of sizes or outputs does not match the models or the data set.
    """

    def __init__(self, models: Sequence[Any], metadata: Metadata) -> None:
        super().__init__(name="clouds_tf")
        self.metadata, sizes = metadata, metadata.image_sizes
        if len(models) != len(sizes):
            raise ValueError(f"image_sizes: got {len(sizes)}, expected {len(models)}")
        for model in models:
            _check_classes(model, metadata.dataset)
        distinct = {id(model): fuse(model) for model in {id(m): m for m in models}.values()}
        models = [distinct[id(model)] for model in models]
        # Only functions and variables are tracked: a SavedModel of the Keras objects would also
        # have the graphs of every layer, and take minutes to write.
        self.weights = [model.variables for model in models]
        self.networks = [as_network(*pair) for pair in zip(models, sizes)]

        # All predicting functions share one trace of networks and ensemble.
        self.stages = stages = Signatures(list(self.networks), metadata, compiled=True)
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec(
            [None, None, None, metadata.dataset.channels], tf.uint8, name="images"
        )
        # AutoGraph would take seconds to rewrite all functions that are called; none needs it.
        function = functools.partial(tf.function, autograph=False)
        self.serve = function(stages.serve, input_signature=[image_bytes])
        self.serve_probabilities = function(
            stages.serve_probabilities, input_signature=[image_bytes]
        )
        self.serve_pixels = function(stages.serve_pixels, input_signature=[images])


def _check_classes(model: Any, dataset: Dataset) -> None:
    """Raises ValueError if a model has other classes or channels than the data set."""
    if model.input_shape[-1] != dataset.channels:
        raise ValueError(
            f"the model takes images of {counted(model.input_shape[-1], 'channel')}, expected the "
            f"{dataset.channels} of the data set"
        )
    got = model.output_shape["logits"][-1]
    if got != dataset.num_classes:
        raise ValueError(
            f"the model has {got} classes, expected the {dataset.num_classes} of the data set: "
            + ", ".join(dataset.class_names)
        )


def write_version(
    module: CloudModel, export_dir: str, finish: Callable[[str], None] = lambda path: None
) -> str:
    """Writes a SavedModel into the next free numbered folder, whole or not at all.

    The SavedModel has these signatures, for C classes and masks of (h, w), the data set's
    submission size. N may be 0, and images may have different sizes:

        serving_default: image_bytes, string [N], files that `decode_image` reads, to
            encoded_pixels, string [N, C], the RLE at (h, w), "" if the class is absent;
            presence, float32 [N, C] in [0, 1], see `mean_prediction`;
            area_fraction, float32 [N, C] in [0, 1], the share of the image in the class's mask;
            expected_area_fraction, float32 [N, C] in [0, 1], the mean of the calibrated
            probabilities (without a calibration, of the network's);
            likeness, float32 [N] in [0, 1], the share of training images that are less typical;
            NaN if the post-processing does not have their distribution.
        probabilities: image_bytes to
            probabilities, float32 [N, h, w, C] in [0, 1], before post-processing.
        from_pixels: images, uint8 [N, H, W, channels], to all six.
        metadata: image_bytes, which is ignored, to
            metadata, string [N], the JSON of METADATA_FILE.

    Args:
        module: a `CloudModel`.
        export_dir: folder of all versions.
        finish: called with the path of the SavedModel before it gets its final name, to check it
            and to add files; if it raises, nothing is left behind.

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
        # A server that merges requests needs an output for each input.
        return {"metadata": tf.fill(tf.shape(image_bytes), metadata)}

    signatures = {
        "serving_default": module.serve,
        "probabilities": module.serve_probabilities,
        "from_pixels": module.serve_pixels,
        "metadata": serve_metadata,
    }
    with files.written_whole(path) as temporary, warnings_only():
        with uncollected():  # a fifth of the time
            tf.saved_model.save(module, temporary, signatures)
        files.write_text(os.path.join(temporary, METADATA_FILE), metadata + "\n")
        finish(temporary)
    return path
