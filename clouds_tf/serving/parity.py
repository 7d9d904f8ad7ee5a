"""Compares the outputs of an exported model with those of the trained model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.dataset import Dataset
from clouds_tf.messages import counted
from clouds_tf.models.metrics import competition_dice

TOLERANCE = 1e-4  # of a probability, in float32
_DICE_TOLERANCE = 1e-3  # of the competition's score, in a lower precision

# From images, uint8 [B, H, W, 3], to the outputs of the signature from_pixels.
FromPixels = Callable[..., "dict[str, tf.Tensor]"]


@dataclasses.dataclass(frozen=True)
class Difference:
    """Differences between an export and the trained model.

    Attributes:
        probability: largest absolute difference of any probability.
        dice: mean Dice of the exported model minus that of the trained model.
        error: standard error of `dice`.
        num_images: number of images that were compared.
    """

    probability: float
    dice: float
    error: float
    num_images: int

    def __str__(self) -> str:
        return (
            f"on {counted(self.num_images, 'image')}, probabilities differ by at most "
            f"{self.probability:.2g}, "
            f"Dice by {self.dice:+.4f} (standard error {self.error:.4f})"
        )


@contextlib.contextmanager
def true_float32() -> Iterator[None]:
    """Context without TF32, with which GPUs round factors to 10 bits, even in float32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def compare(
    trained: FromPixels,
    exported: FromPixels,
    batches: Iterable[tuple[tf.Tensor, tf.Tensor]],
    dataset: Dataset,
) -> Difference:
    """Measures the differences between an export and the trained model.

    Args:
        trained: the signature from_pixels of the trained model.
        exported: that of the exported model.
        batches: images, uint8 [B, H, W, 3], and true masks, [B, h, w, C] of {0, 1} at the data
            set's submission size.
        dataset: the Dataset of both.
    """
    largest, changes = [], []
    with true_float32():
        for images, truth in batches:
            answers = [predict(images=tf.constant(images)) for predict in (trained, exported)]
            before, after = (answer["probabilities"] for answer in answers)
            largest.append(tf.reduce_max(tf.abs(after - before)).numpy())
            before, after = (competition_dice(truth, _masks(answer, dataset)) for answer in answers)
            changes.append(tf.reduce_mean(after - before, axis=1))
    change = np.concatenate(changes)
    error = change.std() / np.sqrt(len(change))
    return Difference(float(max(largest)), float(change.mean()), float(error), len(change))


def _masks(answer: dict[str, tf.Tensor], dataset: Dataset) -> tf.Tensor:
    size, order = dataset.submission_size, dataset.rle_order
    return tf.transpose(rle.decode(answer["encoded_pixels"], size, size, order), [0, 2, 3, 1])


def require_parity(difference: Difference, precision: str) -> None:
    """Raises ValueError if an export differs too much from the trained model.

    In float32, no probability may differ by more than 1e-4. In a lower precision, the score may
    differ by 0.001, or by two standard errors, which is not significant.
    """
    if precision == "float32":
        if not difference.probability <= TOLERANCE:  # nan is not
            raise ValueError(
                f"export: a probability differs by {difference.probability:.2g} from that of the "
                f"trained model, expected at most {TOLERANCE:g}"
            )
    elif not abs(difference.dice) <= _DICE_TOLERANCE + 2 * difference.error:
        raise ValueError(
            f"export: Dice in {precision} differs by {difference.dice:+.4f} from that of the "
            f"trained model, with a standard error of {difference.error:.4f}; expected at most "
            f"{_DICE_TOLERANCE:g} and two standard errors"
        )
