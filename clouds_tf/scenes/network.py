"""Runs a SavedModel on windows and files, in batches of one size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf.messages import counted
from clouds_tf.prediction.postprocessing import postprocess
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.prediction.untrusted import LARGEST_IMAGES, decode_images
from clouds_tf.scenes.tiles import Tile

_CPU_CALL = 4  # windows


@dataclasses.dataclass(frozen=True)
class Answers:
    """Network outputs for N windows.

    Attributes:
        probabilities: float32 [N, height, width, C], at the submission size of the data set.
        masks: bool [N, height, width, C], by the rules.
        likeness: float32 [N], NaN if unknown.
    """

    probabilities: np.ndarray
    masks: np.ndarray
    likeness: np.ndarray


class Network:
    """A SavedModel of `serving.export`.

    Every call has the same number of windows, padded with black ones, so that the output for a
    window does not depend on the others, to the last bit. On a CPU, where more windows are not
    faster, it is at most 4.

    Raises:
        ValueError: the SavedModel is damaged or cannot predict scenes.
    """

    def __init__(self, predictor: Predictor, batch_size: int = 16) -> None:
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._call_size = batch_size if has_gpu else min(batch_size, _CPU_CALL)
        self._predictor, metadata = predictor, predictor.metadata
        self.dataset, self.rules = metadata.dataset, metadata.rules
        self.calibration = metadata.calibration
        self.image_sizes = metadata.image_sizes
        self.max_image_pixels = metadata.max_image_pixels
        if self.dataset.degrees is None:
            raise ValueError(
                f"{predictor.path}: its data set has no ground resolution (field degrees), which "
                "scenes need"
            )
        if self.dataset.channels != 3:
            raise ValueError(
                f"{predictor.path}: takes images of {counted(self.dataset.channels, 'channel')}, "
                "and scenes are read as RGB; predict images with tools/predict.py"
            )
        self.fingerprint = predictor.identity
        if "from_pixels" not in predictor.functions:
            raise ValueError(f"{predictor.path}: has no signature from_pixels; export it again")

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of a window in cells: the submission size."""
        return self.dataset.submission_size

    @property
    def cell(self) -> tuple[float, float]:
        """Size of a cell of the training grid in degrees: (latitude, longitude)."""
        assert self.dataset.degrees is not None
        (dlat, dlon), (height, width) = self.dataset.degrees, self.window
        return dlat / height, dlon / width

    @property
    def scale(self) -> int:
        """Pixels along a side of a cell, so that a window is at least as fine as the input."""
        sides = [side for size in self.image_sizes for side in zip(size, self.window)]
        return max(math.ceil(side / cells) for side, cells in sides)

    def predict_tiles(self, tiles: Sequence[Tile]) -> Answers:
        """Predicts windows, whose pixels have one size."""

        def call(some: Sequence[Tile]) -> Answers:
            images = np.zeros([self._call_size, *some[0].pixels.shape], np.uint8)
            for image, tile in zip(images, some):
                image[:] = tile.pixels
            answer = self._predictor.run("from_pixels", images=tf.constant(images))
            return self._answers(answer["probabilities"], answer, [tile.filled for tile in some])

        return self._in_calls(call, tiles, self._call_size)

    def predict_files(self, contents: list[bytes]) -> Answers:
        """Predicts the bytes of whole files, like `serving.predict`."""
        if len(set(self.image_sizes)) == 1:
            return self.predict_tiles([Tile(0, 0, self.decode(x)) for x in contents])
        size = min(self._call_size, LARGEST_IMAGES)

        def call(some: list[bytes]) -> Answers:
            image_bytes = tf.constant(some + some[:1] * (size - len(some)))
            found = self._predictor.run("probabilities", image_bytes=image_bytes)["probabilities"]
            return self._answers(found, self._predictor(image_bytes), [1.0] * len(some))

        return self._in_calls(call, contents, size)

    def _in_calls(
        self, call: Callable[[Any], Answers], inputs: Sequence[Any], size: int
    ) -> Answers:
        answers = [call(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        columns = zip(*((x.probabilities, x.masks, x.likeness) for x in answers))
        return Answers(*map(np.concatenate, columns))

    def decode(self, content: bytes) -> np.ndarray:
        """Decodes a JPEG or PNG at the size of the network: uint8 [height, width, 3].

        Raises:
            ValueError: the bytes are neither, or incomplete.
        """
        size, encoded = self.image_sizes[0], tf.constant([content])
        try:
            return decode_images(encoded, size, self.max_image_pixels)[0].numpy()
        except tf.errors.InvalidArgumentError:
            raise ValueError("is not a complete, readable JPEG or PNG") from None

    def _answers(
        self, probabilities: tf.Tensor, answer: Mapping[str, tf.Tensor], filled: Sequence[float]
    ) -> Answers:
        """Answers for the first windows of a call; `filled` has the share of each in the scene."""
        count = len(filled)
        found = probabilities[:count]
        likeness = np.full(count, np.nan, np.float32)
        if "likeness" in answer:  # missing in older SavedModels
            likeness = answer["likeness"].numpy()[:count]
        shares = 1.0 if min(filled) == 1 else tf.constant(filled, tf.float32)
        masks = postprocess(found, self.rules, self.dataset.exclusive, shares)
        return Answers(found.numpy(), masks.numpy(), likeness)
