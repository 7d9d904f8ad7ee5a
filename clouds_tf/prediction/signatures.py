"""Serving signatures of a SavedModel: JPEG or PNG bytes in, run-length encoded masks out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.preprocessing import resize_image
from clouds_tf.prediction.engine import Network
from clouds_tf.prediction.ensemble import mean_prediction
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.prediction.postprocessing import postprocess
from clouds_tf.prediction.untrusted import decode_images

# Probabilities [N, h, w, C], presence [N, C] and likeness [N], the last one NaN if it is not known.
_Prediction = tuple[tf.Tensor, ...]


class Signatures:
    """The three signatures of a SavedModel that predict, around networks of either engine.

    All that comes before and after the networks is compiled in any case.

    Args:
        networks: Networks, which are averaged.
        metadata: the sizes of their images, limits and post-processing.
    """

    def __init__(self, networks: Sequence[Network], metadata: Metadata) -> None:
        self._networks, self._metadata = networks, metadata
        limit = metadata.max_image_pixels
        self._decode = functools.partial(decode_images, max_image_pixels=limit)
        self._read = tf.function(self._read_images, autograph=False)
        self._answer = tf.function(self._make_answer, autograph=False)

    def serve(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to masks and numbers; see `write_version`."""
        return self._answer(*self._predict(image_bytes, self._decode))

    def serve_probabilities(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps image_bytes, string [N], to a dict with probabilities."""
        return {"probabilities": self._predict(image_bytes, self._decode)[0]}

    def serve_pixels(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps images, uint8 [N, H, W, 3], to a dict of everything."""
        predicted = self._predict(images, resize_image)
        return {**self._answer(*predicted), "probabilities": predicted[0]}

    def _predict(self, inputs: tf.Tensor, read: Callable[..., tf.Tensor]) -> _Prediction:
        """Predicts inputs [N, ...], which read(inputs, size) turns into uint8 [N, *size, 3]."""
        metadata = self._metadata
        size, num_classes = metadata.dataset.submission_size, metadata.dataset.num_classes
        specs = [
            tf.TensorSpec([None, *size, num_classes]),
            tf.TensorSpec([None, num_classes]),
            tf.TensorSpec([None]),
        ]

        def predict_some() -> list[tf.Tensor]:
            images, likeness = self._read(inputs, read)
            way, weights = metadata.test_time_augmentation, metadata.member_weights
            return [*mean_prediction(self._networks, images, size, way, weights), likeness]

        def predict_none() -> list[tf.Tensor]:
            return [tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in specs]

        # oneDNN fails on a convolution of no image.
        predicted = tf.cond(tf.shape(inputs)[0] > 0, predict_some, predict_none)
        return tuple(tf.ensure_shape(x, spec.shape) for x, spec in zip(predicted, specs))

    def _read_images(
        self, inputs: tf.Tensor, read: Callable[..., tf.Tensor]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Images for each network, and their likeness."""
        sizes, likeness = self._metadata.image_sizes, self._metadata.likeness
        others = [likeness.image_size] if likeness else []
        images = {size: read(inputs, size) for size in {*sizes, *others}}
        if likeness:
            found = likeness(images[likeness.image_size])
        else:
            found = tf.fill(tf.shape(inputs)[:1], np.nan)
        return [images[size] for size in sizes], found

    def _make_answer(
        self, probabilities: tf.Tensor, presence: tf.Tensor, likeness: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        metadata = self._metadata
        dataset, calibrated = metadata.dataset, probabilities
        masks = tf.cast(postprocess(probabilities, presence, metadata.rules), tf.uint8)
        if metadata.calibration is not None:
            calibrated = metadata.calibration.calibrate(probabilities)
        return {
            "encoded_pixels": rle.encode(tf.transpose(masks, [0, 3, 1, 2]), dataset.rle_order),
            "presence": presence,
            "area_fraction": tf.reduce_mean(tf.cast(masks, tf.float32), axis=[1, 2]),
            "expected_area_fraction": tf.reduce_mean(calibrated, axis=[1, 2]),
            "likeness": likeness,
        }
