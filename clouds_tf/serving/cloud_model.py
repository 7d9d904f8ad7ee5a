"""The graph of a SavedModel, and its numbered folders as TensorFlow Serving wants them."""

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
        models: Keras models from images to logits; several are averaged, and one may be given
            several times, at other sizes. Batch norm and upsampling are fused into the
            convolutions of copies.
        metadata: everything else.

    Attributes:
        networks: each model as a `Network`, which another engine can take the place of.
        stages: the stages of the functions below, see `Signatures`.
        serve: image_bytes, string [N], to a dict of masks and numbers; see `write_version`.
        serve_probabilities: image_bytes, string [N], to a dict with probabilities.
        serve_pixels: images, uint8 [N, H, W, channels], to a dict of everything.

    Raises:
        ValueError: the number of sizes or outputs does not fit the models or the data set.
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
        # A SavedModel of the Keras objects would hold the graphs of every layer as well, and take
        # minutes to write; functions and variables are all that has to be tracked.
        self.weights = [model.variables for model in models]
        self.networks = [as_network(*pair) for pair in zip(models, sizes)]

        # Compiled, all that predicts shares one trace of networks and ensemble.
        self.stages = stages = Signatures(list(self.networks), metadata, compiled=True)
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec(
            [None, None, None, metadata.dataset.channels], tf.uint8, name="images"
        )
        # AutoGraph takes seconds to rewrite all functions that are called; none of them needs it.
        function = functools.partial(tf.function, autograph=False)
        self.serve = function(stages.serve, input_signature=[image_bytes])
        self.serve_probabilities = function(
            stages.serve_probabilities, input_signature=[image_bytes]
        )
        self.serve_pixels = function(stages.serve_pixels, input_signature=[images])


def _check_classes(model: Any, dataset: Dataset) -> None:
    """Raises ValueError unless a model has the classes and channels of the data set."""
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

    The SavedModel is of C classes and of masks of (h, w), the data set's submission size. These are
    its signatures, where N may be 0 and images may be of different sizes:

        serving_default: image_bytes, string [N], image files as `decode_image` takes them, to
            encoded_pixels, string [N, C], the RLE at (h, w), "" where the class is absent;
            presence, float32 [N, C] in [0, 1], as `mean_prediction` gives it;
            area_fraction, float32 [N, C] in [0, 1], the share of the image in the class's mask;
            expected_area_fraction, float32 [N, C] in [0, 1], the mean of the calibrated
            probabilities (without a calibration, of the network's);
            likeness, float32 [N] in [0, 1], the share of the training's images that look less like
            the others than this one; NaN where the post-processing has no distribution of them.
        probabilities: image_bytes to
            probabilities, float32 [N, h, w, C] in [0, 1], before post-processing.
        from_pixels: images, uint8 [N, H, W, channels], to all six.
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
    with files.written_whole(path) as temporary, warnings_only():
        with uncollected():  # a fifth of the time
            tf.saved_model.save(module, temporary, signatures)
        files.write_text(os.path.join(temporary, METADATA_FILE), metadata + "\n")
        finish(temporary)
    return path
