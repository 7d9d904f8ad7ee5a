"""Whether an exported model says what the trained one says."""

import collections

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.models.metrics import competition_dice
from clouds_tf.schema import SUBMISSION_SIZE

_TOLERANCE = 1e-4  # of a probability, in float32
_DICE_TOLERANCE = 1e-3  # of the competition's score, in a lower precision

# probability: the largest difference of any; dice: the score of the exported model less that of the
# trained one, and error, the standard error of this mean over num_images.
Difference = collections.namedtuple("Difference", "probability dice error num_images")


def compare(trained, saved_model, batches):
    """Measures what an export has changed.

    Args:
        trained: a function from images, uint8 [B, H, W, 3], to a dict with probabilities and
            encoded_pixels, as the signature from_pixels gives them.
        saved_model: the folder of the exported model.
        batches: an iterable of images and of their true masks, [B, 350, 525, 4] of {0, 1}.

    Returns:
        A Difference.
    """
    module = tf.saved_model.load(saved_model)
    exported = module.signatures["from_pixels"]
    largest, changes = [], []
    for images, truth in batches:
        images = tf.constant(images)
        answers = [predict(images=images) for predict in (trained, exported)]
        before, after = (answer["probabilities"] for answer in answers)
        largest.append(tf.reduce_max(tf.abs(after - before)).numpy())
        before, after = (competition_dice(truth, _masks(answer)) for answer in answers)
        changes.append(tf.reduce_mean(after - before, axis=1))
    changes = np.concatenate(changes)
    error = changes.std() / np.sqrt(len(changes))
    return Difference(float(max(largest)), float(changes.mean()), float(error), len(changes))


def _masks(answer):
    masks = rle.decode(answer["encoded_pixels"], SUBMISSION_SIZE, SUBMISSION_SIZE)
    return tf.transpose(masks, [0, 2, 3, 1])


def check(difference, precision):
    """Raises ValueError where an export has changed too much.

    In float32 no probability may differ by more than 1e-4. In a lower precision the score may
    differ by .001, and by two standard errors, which is what the images cannot tell from none.
    """
    if precision == "float32":
        if difference.probability > _TOLERANCE:
            raise ValueError(
                f"export: a probability differs by {difference.probability:.2g} from that of the "
                f"trained model, expected at most {_TOLERANCE:g}"
            )
    elif abs(difference.dice) > _DICE_TOLERANCE + 2 * difference.error:
        raise ValueError(
            f"export: Dice in {precision} differs by {difference.dice:+.4f} from that of the "
            f"trained model, with a standard error of {difference.error:.4f}; expected at most "
            f"{_DICE_TOLERANCE:g} and two standard errors"
        )
