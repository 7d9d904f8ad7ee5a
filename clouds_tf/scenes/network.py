"""The SavedModel that windows and files go through, in batches of one size."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf.prediction import loading
from clouds_tf.prediction.metadata import read_metadata
from clouds_tf.prediction.postprocessing import black_gap
from clouds_tf.prediction.untrusted import decode_images

_CPU_CALL = 4  # windows


@dataclasses.dataclass(frozen=True)
class Answers:
    """Network outputs for N windows.

    Attributes:
        probabilities: float32 [N, height, width, C], at the submission size of the data set.
        present: bool [N, C], whether the rules find the class in the window.
    """

    probabilities: np.ndarray
    present: np.ndarray


class Network:
    """A SavedModel of `serving.export`.

    Every call has the same number of windows, filled up with black ones: what a window gets depends
    on nothing else then, to the last bit. On a CPU, where more are no faster, that is 4 at most.

    Args:
        saved_model: the folder of a version, such as E/1.
        batch_size: largest number of windows in a call.
        engine: "tensorflow", or "openvino" on the CPU.

    Attributes:
        warning: why TensorFlow computes where OpenVINO was asked for, or "".

    Raises:
        FileNotFoundError, ValueError: there is none, or it cannot do this.
    """

    def __init__(
        self, saved_model: str, batch_size: int = 16, engine: str = "tensorflow"
    ) -> None:
        has_gpu = bool(tf.config.list_physical_devices("GPU"))
        self._call_size = batch_size if has_gpu else min(batch_size, _CPU_CALL)
        metadata = read_metadata(saved_model)
        self.dataset, self.rules = metadata.dataset, metadata.rules
        self.calibration = metadata.calibration
        self.image_sizes = metadata.image_sizes
        self.max_image_pixels = metadata.max_image_pixels
        if self.dataset.degrees is None:
            raise ValueError(
                f"{saved_model}: its data set has no ground resolution (field degrees), which "
                "scenes need"
            )
        self._loaded = loading.load(saved_model, engine)
        self.fingerprint, self.warning = self._loaded.fingerprint, self._loaded.warning
        self._signatures = self._loaded.signatures
        if "from_pixels" not in self._signatures:
            raise ValueError(f"{saved_model}: has no signature from_pixels; export it again")

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of a window in cells: the submission size."""
        return self.dataset.submission_size

    @property
    def cell(self) -> tuple[float, float]:
        """(latitude, longitude) of a cell of the training grid, in degrees."""
        assert self.dataset.degrees is not None
        (dlat, dlon), (height, width) = self.dataset.degrees, self.window
        return dlat / height, dlon / width

    @property
    def scale(self) -> int:
        """Pixels along a side of a cell: a window is no smaller than the network's input."""
        sides = [side for size in self.image_sizes for side in zip(size, self.window)]
        return max(math.ceil(side / cells) for side, cells in sides)

    def predict_tiles(self, tiles: list[np.ndarray]) -> Answers:
        """Predicts windows of pixels: a list of uint8 [height, width, 3] of one size."""

        def call(some: list[np.ndarray]) -> Answers:
            images = np.zeros([self._call_size, *some[0].shape], np.uint8)
            for image, tile in zip(images, some):
                image[:] = tile
            answer = self._signatures["from_pixels"](images=tf.constant(images))
            return self._answers(answer["probabilities"], answer["presence"], len(some))

        return self._in_calls(call, tiles)

    def predict_files(self, contents: list[bytes]) -> Answers:
        """Predicts whole files as `serving.predict` does, from their bytes."""
        if len(set(self.image_sizes)) == 1:
            size, encoded = self.image_sizes[0], tf.constant(contents)
            images = decode_images(encoded, size, self.max_image_pixels)
            return self.predict_tiles(list(images.numpy()))

        def call(some: list[bytes]) -> Answers:
            image_bytes = tf.constant(some + some[:1] * (self._call_size - len(some)))
            found = self._signatures["probabilities"](image_bytes=image_bytes)["probabilities"]
            presence = self._signatures["serving_default"](image_bytes=image_bytes)["presence"]
            return self._answers(found, presence, len(some))

        return self._in_calls(call, contents)

    def _in_calls(self, call: Callable[[Any], Answers], inputs: list[Any]) -> Answers:
        size = self._call_size
        answers = [call(inputs[i : i + size]) for i in range(0, len(inputs), size)]
        return Answers(
            np.concatenate([answer.probabilities for answer in answers]),
            np.concatenate([answer.present for answer in answers]),
        )

    def gap(self, content: bytes, brightness: int) -> np.ndarray:
        """Where a file is black, as the rules of `serving.predict` see it: bool of window size.

        Raises:
            ValueError: the bytes are no whole JPEG or PNG.
        """
        try:
            images = decode_images(
                tf.constant([content]), self.image_sizes[0], self.max_image_pixels
            )
        except tf.errors.InvalidArgumentError:
            raise ValueError("is not a whole, readable JPEG or PNG") from None
        return black_gap(images, self.window, brightness)[0].numpy()

    def _answers(self, probabilities: tf.Tensor, presence: tf.Tensor, count: int) -> Answers:
        found, presence = probabilities.numpy()[:count], presence.numpy()[:count]

        def setting(name: str) -> np.ndarray:
            return np.array([getattr(rule, name) for rule in self.rules], np.float32)

        areas = np.count_nonzero(found > setting("top_threshold"), axis=(1, 2))
        present = (areas >= setting("min_area")) & (presence >= setting("min_presence"))
        return Answers(found, present)


@functools.lru_cache(maxsize=1)
def load(saved_model: str, batch_size: int, engine: str = "tensorflow") -> Network:
    """Loads a Network once per process."""
    return Network(saved_model, batch_size, engine)
