"""Reduces the statistics to the numbers of statistics.json, with findings worth a look."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf.exploration.statistics import Statistics

NEAR_DUPLICATE = 0.95  # images with this correlation of thumbnails, or more, are near-duplicates
TINY = 0.01  # masks of less than this share of the image are tiny
ON_BLACK = 0.01  # masks with this share of their area in the gap, or more, are reported
UNUSUAL = 5.0  # images at this distance from the median, or more; see `_unlike_others`
IMAGE_MEASURES = ("brightness", "contrast", "blueness", "gap", "glint")

_QUANTILES = {"min": 0.0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1.0}
_MASK_MEASURES = ("area", "fraction", "runs", "characters", "components")
_CRUMB = 100  # pixels; smaller components were hardly drawn on purpose
_NUM_PAIRS = 12
_BLOCK = 512  # number of images compared with as many others at a time
_COMPONENTS = 48  # principal components of thumbnails
_ROUNDING = 1e-6  # of correlations in float32


def summarize(statistics: Statistics, class_names: Sequence[str]) -> dict[str, Any]:
    """Reduces Statistics to the content of statistics.json, without the counts of files."""
    rows, components = statistics.rows, statistics.components
    masks, images = rows[rows["area"] > 0], per_image(rows)
    present = pd.DataFrame(
        (rows["area"] > 0).to_numpy().reshape(-1, len(class_names)), columns=list(class_names)
    )
    num_labels = present.sum(axis=1)
    tiny = masks[masks["fraction"] < TINY].sort_values("area")
    on_black = rows[rows["on_black"] >= ON_BLACK].sort_values("on_black", ascending=False)
    unusual = _unlike_others(images).query(f"abs(distance) >= {UNUSUAL}")
    sizes = images.groupby(["height", "width"]).size()
    return {
        "num_images": len(images),
        "num_rows": len(rows),
        "num_masks": len(masks),
        "image_sizes": {f"{h} x {w}": int(count) for (h, w), count in sizes.items()},
        "present": present.sum().to_dict(),
        "pixels": rows.groupby("class")["fraction"].mean().loc[list(class_names)].to_dict(),
        "labels_per_image": {n: int((num_labels == n).sum()) for n in range(len(class_names) + 1)},
        "combinations": _combinations(present),
        "cooccurrence": (present.T.astype(int) @ present.astype(int)).to_numpy().tolist(),
        "correlation": _correlation(present),
        "masks": {
            name: {key: _quantiles(masks[key][masks["class"] == name]) for key in _MASK_MEASURES}
            for name in class_names
        },
        "components": {
            "num": len(components),
            "num_crumbs": int((components["area"] < _CRUMB).sum()),
            "crumb": _CRUMB,
            "share_of_largest": float(
                masks["largest_component"].sum() / max(masks["area"].sum(), 1)
            ),
        },
        "images": {key: _quantiles(images[key]) for key in IMAGE_MEASURES if key in images},
        "touches_gap": int(masks["touches_gap"].sum()),
        "on_black": on_black[["filename", "class", "on_black"]].to_dict("records"),
        "tiny": tiny[["filename", "class", "area", "fraction"]].to_dict("records"),
        "unlike_others": unusual.to_dict("records"),
        "closest_pairs": [
            {"filenames": images["filename"][[i, j]].tolist(), "correlation": round(value, 4)}
            for i, j, value in _closest_pairs(statistics.thumbnails, _NUM_PAIRS)
        ],
        "problems": statistics.problems,
    }


def per_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Reduces the rows of `measure` to one for each image."""
    return rows.drop_duplicates("filename").reset_index(drop=True)


def _quantiles(values: pd.Series) -> dict[str, float] | None:
    if values.empty:
        return None
    found = values.astype(float).quantile(list(_QUANTILES.values())).round(6) + 0.0  # no -0.0
    return dict(zip(_QUANTILES, found.tolist()))


def _combinations(present: pd.DataFrame) -> dict[str, int]:
    """Counts the images of each combination of classes, the most frequent first."""
    counts = present.groupby(list(present), sort=True).size()
    counts = counts.sort_values(ascending=False, kind="stable")
    flags = counts.index.to_frame().to_numpy()
    names = [" + ".join(present.columns[some]) or "none" for some in flags]
    return dict(zip(names, counts.tolist()))


def _correlation(present: pd.DataFrame) -> list[list[float | None]]:
    """Pearson's correlation between the presence of classes; None where a class never varies."""
    found = present.astype(float).corr().round(4) + 0.0
    return [[None if np.isnan(x) else x for x in row] for row in found.to_numpy().tolist()]


def _unlike_others(images: pd.DataFrame) -> pd.DataFrame:
    """Finds the measure in which each image differs most from the others, most unusual first.

    Distances are from the median, in units of half the range of the middle 68 % of the images,
    which is the standard deviation if the measure is normally distributed.
    """
    values = images[[key for key in IMAGE_MEASURES if key in images]]
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


def _closest_pairs(thumbnails: np.ndarray, count: int) -> list[tuple[int, int, float]]:
    """The pairs (i, j, correlation), i < j, of thumbnails [N, h, w] with highest correlation.

    Most pairs are compared by principal components only, with the length of the rest as a further
    component: by the Cauchy-Schwarz inequality, that product is at least the correlation.
    """
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    short = vectors @ np.linalg.eigh(vectors.T @ vectors)[1][:, -_COMPONENTS:]
    rest = np.square(vectors).sum(axis=1) - np.square(short).sum(axis=1)
    short = np.column_stack([short, np.sqrt(np.maximum(rest, 0))])
    pairs: list[tuple[int, int, float]] = []
    lowest = -np.inf
    for first, start in itertools.combinations_with_replacement(
        range(0, len(vectors), _BLOCK), 2
    ):
        bounds = short[first : first + _BLOCK] @ short[start : start + _BLOCK].T
        rows = first + np.flatnonzero(bounds.max(axis=1) > lowest + _ROUNDING)
        if not len(rows):
            continue
        block = vectors[rows] @ vectors[start : start + _BLOCK].T
        block[rows[:, np.newaxis] >= start + np.arange(block.shape[1])] = -np.inf  # i < j only
        few = min(count, block.size)
        found = np.unravel_index(np.argpartition(block, -few, axis=None)[-few:], block.shape)
        for i, j in zip(*found):
            if block[i, j] > lowest:
                pairs.append((int(rows[i]), int(start + j), float(block[i, j])))
        pairs = sorted(pairs, key=lambda pair: (-pair[2], *pair[:2]))[:count]
        lowest = pairs[-1][2] if len(pairs) == count else -np.inf
    return pairs
