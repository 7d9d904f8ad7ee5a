"""The competition's score of a submission, computed on runs."""

import collections

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data import annotations
from clouds_tf.dataset import CLOUDS
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, SUBMISSION_SIZE

# Of N images, in the order of the annotations: filenames [N]; dice float64 [N, 4] in [0, 1]; and,
# int64 [N, 4] in pixels at SUBMISSION_SIZE, areas of the truth and of the submission, and of both.
Comparison = collections.namedtuple(
    "Comparison", "filenames dice true_areas predicted_areas intersections"
)


def compare(submission, annotations_csv, annotations_size=IMAGE_SIZE):
    """Compares a submission with the truth; the mean of the Dice is the competition's score.

    Args:
        submission: a CSV with RLE at SUBMISSION_SIZE.
        annotations_csv: a CSV with the true RLE of the same images.
        annotations_size: (height, width) of that RLE.

    Returns:
        A Comparison.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is malformed, or the images differ; those that do are named.
    """
    truth = annotations.read_csv(annotations_csv, CLOUDS, annotations_size)
    predicted = annotations.read_csv(submission, CLOUDS, SUBMISSION_SIZE).set_index("filename")
    missing = truth["filename"][~truth["filename"].isin(predicted.index)]
    surplus = predicted.index[~predicted.index.isin(truth["filename"])]
    faults = [f"no rows for {name}, which {annotations_csv} has" for name in missing]
    faults += [f"rows for {name}, which {annotations_csv} has not" for name in surplus]
    annotations.raise_faults([annotations.Fault(submission, 0, reason) for reason in faults])
    predicted = predicted.loc[truth["filename"]]

    true_rle, predicted_rle = (
        tf.constant(table[list(CLASS_NAMES)].to_numpy(dtype=object).tolist())
        for table in (truth, predicted)
    )
    true_rle = rle.resize(true_rle, annotations_size, SUBMISSION_SIZE)
    true, predicted = rle.area(true_rle).numpy(), rle.area(predicted_rle).numpy()
    shared = rle.intersection(true_rle, predicted_rle).numpy()
    # As rle.dice, which would parse the strings once more.
    dice = np.where(true + predicted == 0, 1.0, 2 * shared / np.maximum(true + predicted, 1))
    return Comparison(truth["filename"].tolist(), dice, true, predicted, shared)


def intervals(dice, num_resamples=2000, seed=0):
    """Bootstrap: between which means 95 of 100 other choices of as many images would fall.

    Efron, "Bootstrap methods", 1979; percentiles of means of images drawn with replacement.

    Args:
        dice: [N, C], or differences of these.
        num_resamples: how often to draw N images.
        seed: of the draws.

    Returns:
        float64 [2, C + 1]: lower and upper ends, of each class and of the mean over classes.
    """
    values = np.column_stack([dice, np.mean(dice, axis=1)])
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), num_resamples)
    return np.percentile(drawn @ values / len(values), [2.5, 97.5], axis=0)


def table(scores, interval_of=None):
    """Formats mean scores of classes and of all as lines of a table.

    Args:
        scores: a dict of name -> Dice [N, 4].
        interval_of: the name whose `intervals` are shown as well.

    Returns:
        A text.
    """
    lines = ["".join(f"{head:>14}" for head in ("", *CLASS_NAMES, "mean"))]

    def add(name, numbers):
        lines.append(f"{name:>14}" + "".join(f"{number:14.4f}" for number in numbers))

    for name, values in scores.items():
        means = np.mean(values, axis=0)
        add(name, (*means, means.mean()))
        if name == interval_of:
            for end, numbers in zip(("95 % from", "to"), intervals(values)):
                add(end, numbers)
    return "\n".join(lines)


def worst_images(comparison):
    """Lists the images, the worst first, with what is wrong in each.

    Args:
        comparison: a Comparison.

    Returns:
        A list of columns, and a list of rows: filename, mean Dice, Dice of each class, and the
        faults in words, such as "Fish: false alarm of 5231 px; Sugar: too small, 812 of 9000 px".
    """
    dice = comparison.dice
    rows = []
    for i in np.argsort(dice.mean(axis=1), kind="stable"):
        areas = zip(*(x[i] for x in comparison[2:]))
        faults = [
            f"{name}: {fault}" for name, fault in zip(CLASS_NAMES, map(_fault, areas)) if fault
        ]
        numbers = [f"{number:.4f}" for number in (dice[i].mean(), *dice[i])]
        rows.append([comparison.filenames[i], *numbers, "; ".join(faults)])
    return ["filename", "dice", *CLASS_NAMES, "faults"], rows


def _fault(areas):
    """What is wrong with a mask of (true, predicted, shared) pixels; "" if half of it is right."""
    true, predicted, shared = areas
    if predicted and not true:
        return f"false alarm of {predicted} px"
    if true and not predicted:
        return f"missed, {true} px"
    if 2 * shared >= (true + predicted) / 2:
        return ""
    if not shared:
        return f"elsewhere, {predicted} px instead of {true}"
    # Of what is wrong, either more was left out or more is too much.
    return f"too {'small' if predicted < true else 'large'}, {predicted} px, {shared} of {true} hit"
