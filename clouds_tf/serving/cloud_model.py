"""The graph of a SavedModel: JPEG or PNG bytes to run-length encoded masks, without Python."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.dataset import Dataset
from clouds_tf.inference.calibration import Calibration
from clouds_tf.inference.ensemble import mean_prediction
from clouds_tf.inference.fusing import fuse
from clouds_tf.inference.postprocessing import Rule, plain_rules, postprocess
from clouds_tf.serving.metadata import Metadata
from clouds_tf.serving.untrusted import MAX_IMAGE_PIXELS, decode_images

# Probabilities [N, h, w, C], presence [N, C], and the images [N, H, W, 3] to find the gap in.
_Prediction = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


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
        # minutes to write; the variables are all that has to be tracked.
        self.weights = [model.variables for model in models]
        self._network = _network(models, self.metadata)

        image_bytes = tf.TensorSpec([None], tf.string, name="image_bytes")
        images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
        self.serve = tf.function(self._serve, input_signature=[image_bytes])
        self.serve_probabilities = tf.function(
            self._serve_probabilities, input_signature=[image_bytes]
        )
        self.serve_pixels = tf.function(self._serve_pixels, input_signature=[images])

    def _serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._answer(*self._predict_bytes(image_bytes))

    def _serve_probabilities(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": self._predict_bytes(image_bytes)[0]}

    def _serve_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        predicted = self._predict(images, resize_image)
        return {**self._answer(*predicted), "probabilities": predicted[0]}

    def _predict_bytes(self, image_bytes: tf.Tensor) -> _Prediction:
        limit = self.metadata.max_image_pixels
        return self._predict(
            image_bytes, functools.partial(decode_images, max_image_pixels=limit)
        )

    def _predict(self, inputs: tf.Tensor, read: Callable[..., tf.Tensor]) -> _Prediction:
        """Predicts inputs [N, ...], which read(inputs, size) turns into uint8 [N, *size, 3]."""
        sizes, dataset = self.metadata.image_sizes, self.metadata.dataset
        specs = [
            tf.TensorSpec([None, *dataset.submission_size, dataset.num_classes]),
            tf.TensorSpec([None, dataset.num_classes]),
            tf.TensorSpec([None, *sizes[0], 3], tf.uint8),
        ]

        def predict_some() -> _Prediction:
            resized = {size: read(inputs, size) for size in set(sizes)}
            return self._network([resized[size] for size in sizes])

        def predict_none() -> list[tf.Tensor]:
            return [tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in specs]

        # oneDNN fails on a convolution of no image.
        predicted = tf.cond(tf.shape(inputs)[0] > 0, lambda: list(predict_some()), predict_none)
        probabilities, presence, images = (
            tf.ensure_shape(x, spec.shape) for x, spec in zip(predicted, specs)
        )
        return probabilities, presence, images

    def _answer(
        self, probabilities: tf.Tensor, presence: tf.Tensor, images: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        metadata = self.metadata
        dataset, calibrated = metadata.dataset, probabilities
        masks = postprocess(
            probabilities, presence, images, metadata.rules, dataset.gap_brightness
        )
        if metadata.calibration is not None:
            calibrated = metadata.calibration.calibrate(probabilities)
        order = "C" if dataset.rle_order == "rows" else "F"
        return {
            "encoded_pixels": rle.encode(tf.transpose(masks, [0, 3, 1, 2]), order),
            "presence": presence,
            "area_fraction": tf.reduce_mean(tf.cast(masks, tf.float32), axis=[1, 2]),
            "expected_area_fraction": tf.reduce_mean(calibrated, axis=[1, 2]),
        }


def _check_classes(model: Any, dataset: Dataset) -> None:
    """Raises ValueError unless a model gives a map for each class of the data set."""
    got = model.output_shape["logits"][-1]
    if got != dataset.num_classes:
        raise ValueError(
            f"the model has {got} classes, expected the {dataset.num_classes} of the data set: "
            + ", ".join(dataset.class_names)
        )


def _network(models: Sequence[Any], metadata: Metadata) -> Any:
    """A tf.function from a batch of images for each model to a _Prediction.

    The models are in the function's closure, because a tf.Module tracks its attributes.
    """
    calls = [functools.partial(model, training=False) for model in models]
    specs = [tf.TensorSpec([None, *size, 3], tf.uint8) for size in metadata.image_sizes]
    size, flips = metadata.dataset.submission_size, metadata.test_time_augmentation

    @tf.function(input_signature=[specs])
    def predict_images(images: list[tf.Tensor]) -> _Prediction:
        probabilities, presence = mean_prediction(calls, images, size, flips)
        return probabilities, presence, images[0]

    return predict_images
