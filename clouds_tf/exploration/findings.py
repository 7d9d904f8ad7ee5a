"""Finds near-duplicates, unusual images, and masks that are tiny or in the black gap."""

from __future__ import annotations

import numpy as np
import pandas as pd

NEAR_DUPLICATE = 0.95  # images with this correlation of thumbnails, or more, are near-duplicates
TINY = 0.01  # masks of less than this share of the image are tiny
ON_BLACK = 0.01  # masks with this share of their area in the gap, or more, are reported
UNLIKE = 5.0  # images at this distance from the median, or more, are unusual; see `unlike_others`
IMAGE_MEASURES = ("brightness", "contrast", "blueness", "gap", "glint")

_BLOCK = 1024  # images compared with all others at a time, which bounds the memory


def closest_pairs(thumbnails: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """Finds the pairs of images whose thumbnails correlate most.

    Args:
        thumbnails: [N, h, w], grey.
        count: number of pairs.

    Returns:
        At most count tuples (i, j, correlation) with i < j, the closest first.
    """
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    pairs: list[tuple[int, int, float]] = []
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


def per_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Reduces the rows of `measure` to one for each image."""
    return rows.drop_duplicates("filename").reset_index(drop=True)


def unlike_others(images: pd.DataFrame) -> pd.DataFrame:
    """Finds the measure by which each image differs most from the others, and its distance.

    Distances are measured from the median, in units of half the range that holds the middle 68 % of
    the images: a standard deviation, if the measure is normally distributed.

    Args:
        images: a row per image, from `per_image`.

    Returns:
        A row per image with filename, measure, value, median and distance, the farthest first.
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


def tiny_masks(rows: pd.DataFrame) -> pd.DataFrame:
    """Selects rows whose masks cover less than TINY of the image, the smallest first."""
    return rows[(rows["area"] > 0) & (rows["fraction"] < TINY)].sort_values("area")


def masks_on_black(rows: pd.DataFrame) -> pd.DataFrame:
    """Selects rows whose masks have ON_BLACK or more of their area in the gap, the most first."""
    return rows[rows["on_black"] >= ON_BLACK].sort_values("on_black", ascending=False)
