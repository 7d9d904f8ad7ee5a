"""Serving signatures of a SavedModel: image bytes in, run-length encoded masks out."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.models.probabilities import for_masks
from clouds_tf.prediction.calibration import plane_means
from clouds_tf.prediction.engine import Network
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import cut, to_planes
from clouds_tf.prediction.untrusted import decode_images

# Probabilities [N, h, w, C], presence [N, C] and likeness [N], which is NaN if unknown.
_Prediction = tuple["tf.Tensor", ...]
# From N inputs to uint8 [N, *size, channels] for each network, and their likeness [N].
Read = Callable[["tf.Tensor"], "tuple[list[tf.Tensor], tf.Tensor]"]


class Signatures:
    """The three predicting signatures of a SavedModel, and their stages, on either engine.

    All steps before and after the networks are always graph functions.

    Args:
        networks: Networks to average.
        metadata: the sizes of their images, limits and post-processing.
        compiled: whether the networks are TensorFlow's, and can be part of a graph.

    Attributes:
        networks: the Networks.
        read_bytes, read_pixels: first stage, from image_bytes, string [N], or from images, uint8
            [N, H, W, channels], to N images for each network and their likeness, float32 [N].
        run_networks: second stage, from such images, N at least 1, to probabilities, float32
            [N, h, w, C], and presence, float32 [N, C].
        answer: third stage, from probabilities, presence and likeness to a dict.
    """

    def __init__(
        self, networks: Sequence[Network], metadata: Metadata, compiled: bool = False
    ) -> None:
        self.networks, self._metadata = networks, metadata
        limit, channels = metadata.max_image_pixels, metadata.dataset.channels
        decode = functools.partial(decode_images, max_image_pixels=limit, channels=channels)
        size, num_classes = metadata.dataset.submission_size, metadata.dataset.num_classes
        self._specs = [
            tf.TensorSpec([None, *size, num_classes]),
            tf.TensorSpec([None, num_classes]),
            tf.TensorSpec([None]),
        ]
        # With input signatures, since otherwise each batch size would be traced.
        function = functools.partial(tf.function, autograph=False)
        self.read_bytes: Read = function(
            functools.partial(self._read_images, read=decode),
            input_signature=[tf.TensorSpec([None], tf.string)],
        )
        self.read_pixels: Read = function(
            functools.partial(self._read_images, read=resize_image),
            input_signature=[tf.TensorSpec([None, None, None, channels], tf.uint8)],
        )
        run: Callable[[Sequence[tf.Tensor]], tuple[tf.Tensor, tf.Tensor]] = self._mean_prediction
        if compiled:
            images = [tf.TensorSpec([None, *s, channels], tf.uint8) for s in metadata.image_sizes]
            run = function(run, input_signature=[images])
        self.run_networks = run
        self.answer = function(self._make_answer, input_signature=self._specs)

    def of(self, networks: Sequence[Network]) -> Signatures:
        """A copy with other Networks, which are not part of a graph; shares the traced stages."""
        other = copy.copy(self)
        other.networks, other.run_networks = networks, other._mean_prediction
        return other

    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to masks and numbers; see `write_version`."""
        return self.answer(*self._predict(image_bytes, self.read_bytes))

    def serve_probabilities(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to a dict with probabilities."""
        return {"probabilities": self._predict(image_bytes, self.read_bytes)[0]}

    def serve_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps images, uint8 [N, H, W, channels], to a dict of all outputs."""
        predicted = self._predict(images, self.read_pixels)
        return {**self.answer(*predicted), "probabilities": predicted[0]}

    def predict_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps images, as for `serve_pixels`, to a dict with probabilities and likeness."""
        probabilities, _, likeness = self._predict(images, self.read_pixels)
        return {"probabilities": probabilities, "likeness": likeness}

    def predict_resized(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Predicts images that already have the size of all networks.

        It uses only operations that other runtimes support, and returns masks instead of RLE.

        Args:
            images: uint8 [N, h, w, channels], N at least 1.

        Returns:
            "masks", uint8 [N, H, W, C] of {0, 1} at the submission size, and the other outputs of
            `serve_pixels`; the likeness is NaN if it was fitted at another size.
        """
        likeness = self._find_likeness({tuple(images.shape[1:3]): images})
        probabilities, presence = self._mean_prediction([images] * len(self.networks))
        answer = self._make_masks(probabilities, presence, likeness)
        masks = tf.transpose(answer.pop("masks"), [0, 2, 3, 1])
        return {"masks": masks, **answer, "probabilities": probabilities}

    def _mean_prediction(self, images: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        metadata = self._metadata
        size, way = metadata.dataset.submission_size, metadata.test_time_augmentation
        return mean_prediction(self.networks, images, size, way, metadata.member_weights)

    def _predict(self, inputs: tf.Tensor, read: Read) -> _Prediction:
        def predict_some() -> list[tf.Tensor]:
            images, likeness = read(inputs)
            return [*self.run_networks(images), likeness]

        def predict_none() -> list[tf.Tensor]:
            return [tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in self._specs]

        # oneDNN fails on a convolution of an empty batch.
        predicted = tf.cond(tf.shape(inputs)[0] > 0, predict_some, predict_none)
        return tuple(tf.ensure_shape(x, spec.shape) for x, spec in zip(predicted, self._specs))

    def _read_images(
        self, inputs: tf.Tensor, read: Callable[..., tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Images for each network, and their likeness."""
        sizes, likeness = self._metadata.image_sizes, self._metadata.likeness
        others = [likeness.image_size] if likeness else []
        images = {size: read(inputs, size) for size in {*sizes, *others}}
        return [images[size] for size in sizes], self._find_likeness(images)

    def _find_likeness(self, images: Mapping[Any, tf.Tensor]) -> tf.Tensor:
        """Likeness of N images, given at several sizes; NaN if its own size is not among them."""
        likeness = self._metadata.likeness
        if likeness and likeness.image_size in images:
            return likeness(images[likeness.image_size])
        return tf.fill(tf.shape(next(iter(images.values())))[:1], np.nan)

    def _make_answer(
        self, probabilities: tf.Tensor, presence: tf.Tensor, likeness: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        answer = self._make_masks(probabilities, presence, likeness)
        masks = answer.pop("masks")
        return {"encoded_pixels": rle.encode(masks, self._metadata.dataset.rle_order), **answer}

    def _make_masks(
        self, probabilities: tf.Tensor, presence: tf.Tensor, likeness: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The answer with masks, uint8 [N, C, H, W] of {0, 1}, in place of RLE."""
        metadata = self._metadata
        planes = kept = to_planes(probabilities)
        if metadata.dataset.exclusive:
            kept = to_planes(for_masks(probabilities, exclusive=True))
        masks = tf.cast(cut(kept, metadata.rules), tf.uint8)
        mean_of = metadata.calibration.mean if metadata.calibration else plane_means
        return {
            "masks": masks,
            "presence": presence,
            "area_fraction": tf.reduce_mean(tf.cast(masks, tf.float32), axis=[2, 3]),
            "expected_area_fraction": mean_of(planes),
            "likeness": likeness,
        }
