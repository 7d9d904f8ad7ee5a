"""The competition's score of a submission, computed on runs."""

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data import annotations
from clouds_tf.schema import CLASS_NAMES, IMAGE_SIZE, SUBMISSION_SIZE


def score(submission, annotations_csv, annotations_size=IMAGE_SIZE):
    """Scores a submission against the truth.

    Args:
        submission: a CSV with RLE at SUBMISSION_SIZE.
        annotations_csv: a CSV with the true RLE of the same images.
        annotations_size: (height, width) of that RLE.

    Returns:
        A dict of Dice, float32 [N, 4] in [0, 1], images in the order of the annotations:
        "submission", whose mean is the score, and "all blank", what no mask at all would get.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: a file is malformed, or the images differ; the first that does is named.
    """
    truth = annotations.read_csv(annotations_csv, annotations_size)
    predicted = annotations.read_csv(submission, SUBMISSION_SIZE).set_index("filename")
    for filename in truth["filename"][~truth["filename"].isin(predicted.index)]:
        raise ValueError(f"{submission}: no rows for {filename}, which {annotations_csv} has")
    for filename in predicted.index[~predicted.index.isin(truth["filename"])]:
        raise ValueError(f"{submission}: rows for {filename}, which {annotations_csv} has not")
    predicted = predicted.loc[truth["filename"]]

    rles = [
        tf.constant(table[list(CLASS_NAMES)].to_numpy(dtype=object).tolist())
        for table in (truth, predicted)
    ]
    true_rle = rle.resize(rles[0], annotations_size, SUBMISSION_SIZE)
    return {
        "submission": rle.dice(true_rle, rles[1]).numpy(),
        "all blank": tf.cast(tf.equal(true_rle, ""), tf.float32).numpy(),
    }


def table(scores):
    """Formats scores as lines of a table: a dict of name -> [N, 4] becomes a text."""
    lines = ["".join(f"{head:>14}" for head in ("", *CLASS_NAMES, "mean"))]
    for name, values in scores.items():
        means = np.mean(values, axis=0)
        numbers = "".join(f"{number:14.4f}" for number in (*means, means.mean()))
        lines.append(f"{name:>14}{numbers}")
    return "\n".join(lines)
