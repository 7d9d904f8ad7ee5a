"""The graph of a SavedModel: trained networks and all that is around them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf.dataset import Dataset
from clouds_tf.prediction.calibration import Calibration
from clouds_tf.prediction.engine import as_network
from clouds_tf.prediction.fusing import fuse
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import Rule, plain_rules
from clouds_tf.prediction.signatures import Signatures
from clouds_tf.prediction.untrusted import MAX_IMAGE_PIXELS


class CloudModel(tf.Module):
    """Models and their post-processing as functions that `write_version` exports.

    Args:
        models: Keras models from images to logits; several are averaged.
        image_sizes: for each model, the (height, width) that it was trained with.
        dataset: the Dataset of the answers.
        rules: post-processing, a Rule for each class; by default a cut at 0.5.
        test_time_augmentation: "none" or "flips".
        max_image_pixels: larger images are refused before they are decoded.
        calibration: for the expected areas; None takes the network's probabilities as they are.
        training: for each model, JSON-like facts about its training, for the metadata.
        fused: whether to fuse batch norm and upsampling into the convolutions.

    Attributes:
        metadata: a `Metadata`.
        networks: each model as a `Network`, which another engine can take the place of.
        serve: image_bytes, string [N], to a dict of masks and numbers; see `write_version`.
        serve_probabilities: image_bytes, string [N], to a dict with probabilities.
        serve_pixels: images, uint8 [N, H, W, 3], to a dict of everything.

    Raises:
        ValueError: the number of sizes, rules or outputs does not fit the models or the data set.
    """

    def __init__(
        self,
        models: Sequence[Any],
        image_sizes: Sequence[tuple[int, int]],
        dataset: Dataset,
        rules: Sequence[Rule] | None = None,
        test_time_augmentation: str = "none",
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        calibration: Calibration | None = None,
        training: Sequence[dict[str, Any]] = (),
        fused: bool = True,
    ):
        super().__init__(name="clouds_tf")
        if len(models) != len(image_sizes):
            raise ValueError(f"image_sizes: got {len(image_sizes)}, expected {len(models)}")
        for model in models:
            _check_classes(model, dataset)
        if rules is None:
            rules = plain_rules(dataset.num_classes)
        self.metadata = Metadata(
            dataset,
            tuple((height, width) for height, width in image_sizes),
            tuple(rules),
            test_time_augmentation,
            max_image_pixels,
            calibration,
            tuple(training),
        )
        if fused:
            models = [fuse(model) for model in models]
        # A SavedModel of the Keras objects would hold the graphs of every layer as well, and take
        # minutes to write; functions and variables are all that has to be tracked.
        self.weights = [model.variables for model in models]
        self.networks = [as_network(*pair) for pair in zip(models, self.metadata.image_sizes)]

        signatures = Signatures(list(self.networks), self.metadata)
        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
        # AutoGraph takes seconds to rewrite all functions that are called; none of them needs it.
        function = functools.partial(tf.function, autograph=False)
        self.serve = function(signatures.serve, input_signature=[image_bytes])
        self.serve_probabilities = function(
            signatures.serve_probabilities, input_signature=[image_bytes]
        )
        self.serve_pixels = function(signatures.serve_pixels, input_signature=[images])


def _check_classes(model: Any, dataset: Dataset) -> None:
    """Raises ValueError unless a model gives a map for each class of the data set."""
    got = model.output_shape["logits"][-1]
    if got != dataset.num_classes:
        raise ValueError(
            f"the model has {got} classes, expected the {dataset.num_classes} of the data set: "
            + ", ".join(dataset.class_names)
        )
