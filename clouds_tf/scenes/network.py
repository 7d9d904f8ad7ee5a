"""Runs a SavedModel on the windows of a scene, or on a file that is one window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from clouds_tf.messages import counted
from clouds_tf.models.probabilities import for_masks
from clouds_tf.prediction.postprocessing import cut, to_planes
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.prediction.untrusted import decode_images
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

    On a CPU, where more windows are not faster, a call has at most 4.

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
        calls = [tiles[i : i + self._call_size] for i in range(0, len(tiles), self._call_size)]
        answers = []
        for some in calls:
            images = tf.constant(np.stack([tile.pixels for tile in some]))
            found = self._predictor.run("probabilities_of_pixels", images=images)
            likeness = found.get("likeness")  # missing in older SavedModels
            filled = [tile.filled for tile in some]
            answers.append(self._answers(found["probabilities"], likeness, filled))
        columns = zip(*((x.probabilities, x.masks, x.likeness) for x in answers))
        return Answers(*map(np.concatenate, columns))

    def predict_file(self, content: bytes) -> Answers:
        """Predicts the bytes of a whole file with networks of several sizes."""
        image_bytes = tf.constant([content])
        found = self._predictor.run("probabilities", image_bytes=image_bytes)["probabilities"]
        return self._answers(found, self._predictor(image_bytes).get("likeness"), [1.0])

    def read_file(self, content: bytes) -> Tile | bytes:
        """The input for the bytes of a JPEG or PNG that is one window, as `serving.predict` has it.

        It is a Tile of the size of the network, or the bytes if networks have several sizes.

        Raises:
            ValueError: the bytes are neither, or incomplete.
        """
        size, encoded = self.image_sizes[0], tf.constant([content])
        try:
            pixels = decode_images(encoded, size, self.max_image_pixels)[0].numpy()
        except tf.errors.InvalidArgumentError:
            raise ValueError("is not a complete, readable JPEG or PNG") from None
        return Tile(0, 0, pixels) if len(set(self.image_sizes)) == 1 else content

    def _answers(
        self, probabilities: tf.Tensor, likeness: tf.Tensor | None, filled: Sequence[float]
    ) -> Answers:
        """Answers for windows of which the scene fills these shares."""
        planes = to_planes(probabilities)
        kept = to_planes(for_masks(probabilities, True)) if self.dataset.exclusive else planes
        shares = 1.0 if min(filled) == 1 else tf.constant(filled, tf.float32)
        masks = cut(kept, self.rules, shares)
        return Answers(
            np.moveaxis(planes.numpy(), 1, -1),
            np.moveaxis(masks.numpy(), 1, -1),
            np.full(len(filled), np.nan, np.float32) if likeness is None else likeness.numpy(),
        )
