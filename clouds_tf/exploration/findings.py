"""What stands out: near-duplicates, images unlike the others, and masks worth a look."""

import numpy as np
import pandas as pd

from clouds_tf.schema import NUM_CLASSES

NEAR_DUPLICATE = 0.95  # correlation of thumbnails from which two images pass for one
TINY = 0.01  # share of the image below which a mask is tiny
ON_BLACK = 0.01  # share of a mask in the gap from which it is worth a look
UNLIKE = 5.0  # how far an image lies from the others, as `unlike_others` counts
IMAGE_MEASURES = ("brightness", "contrast", "blueness", "gap", "glint")

_BLOCK = 1024  # bounds the memory of comparing all images with all


def closest_pairs(thumbnails, count):
    """Finds the pairs of images whose thumbnails correlate most.

    Args:
        thumbnails: [N, h, w], grey.
        count: how many pairs.

    Returns:
        A list of at most count (i, j, correlation) with i < j, the closest first.
    """
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    pairs = []
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors.T
        block[np.arange(len(vectors)) <= start + np.arange(len(block))[:, np.newaxis]] = -np.inf
        best = np.argsort(-block, axis=None)[:count]
        rows, columns = np.unravel_index(best, block.shape)
        pairs += [
            (int(start + i), int(j), float(block[i, j]))
            for i, j in zip(rows, columns)
            if np.isfinite(block[i, j])
        ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def per_image(rows):
    """The rows of `measure`, reduced to one for each image."""
    return rows.iloc[::NUM_CLASSES].reset_index(drop=True)


def unlike_others(images):
    """Says by which measure each image differs most from the others, and by how much.

    The distance is that from the median, in half the widths that hold the middle 68 % of images:
    standard deviations, if the measure were normally distributed.

    Args:
        images: a DataFrame of `per_image`.

    Returns:
        A DataFrame with filename, measure, value, median and distance, the farthest first.
    """
    values = images[list(IMAGE_MEASURES)]
    median = values.median()
    spread = (values.quantile(0.84) - values.quantile(0.16)) / 2
    distance = (values - median) / spread.where(spread > 0, np.inf)
    measure = distance.abs().idxmax(axis=1)
    place = np.arange(len(images)), values.columns.get_indexer(measure)
    found = pd.DataFrame(
        {
            "filename": images["filename"],
            "measure": measure,
            "value": values.to_numpy()[place],
            "median": median[measure].to_numpy(),
            "distance": distance.to_numpy()[place],
        }
    )
    return found.sort_values("distance", key=np.abs, ascending=False, ignore_index=True)


def tiny_masks(rows):
    """The rows whose masks cover less than TINY of the image, the smallest first."""
    return rows[(rows["area"] > 0) & (rows["fraction"] < TINY)].sort_values("area")


def masks_on_black(rows):
    """The rows of whose masks ON_BLACK or more lies in the gap, the most first."""
    return rows[rows["on_black"] >= ON_BLACK].sort_values("on_black", ascending=False)
