"""Reduces the statistics to the numbers of statistics.json and of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from clouds_tf.exploration import findings
from clouds_tf.exploration.statistics import Statistics

_QUANTILES = {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1}
_MASK_MEASURES = ("area", "fraction", "runs", "characters", "components")
_CRUMB = 100  # pixels; components this small were hardly drawn on purpose


def summarize(statistics: Statistics, class_names: Sequence[str]) -> dict[str, Any]:
    """Reduces Statistics to one dict.

    Args:
        statistics: result of `measure`.
        class_names: names of the classes, in the order of the rows.

    Returns:
        The content of statistics.json, without the counts of files.
    """
    num_classes = len(class_names)
    rows, components = statistics.rows, statistics.components
    masks = rows[rows["area"] > 0]
    images = findings.per_image(rows)
    present = (rows["area"] > 0).to_numpy().reshape(-1, num_classes)
    names = images["filename"]
    return {
        "num_images": len(images),
        "num_rows": len(rows),
        "num_masks": len(masks),
        "image_sizes": {
            f"{height} x {width}": int(count)
            for (height, width), count in images.groupby(["height", "width"]).size().items()
        },
        "present": dict(zip(class_names, present.sum(axis=0).tolist())),
        "pixels": {
            name: float(rows["fraction"][i::num_classes].mean())
            for i, name in enumerate(class_names)
        },
        "labels_per_image": {
            n: int((present.sum(axis=1) == n).sum()) for n in range(num_classes + 1)
        },
        "combinations": _combinations(present, class_names),
        "cooccurrence": (present.T.astype(int) @ present).tolist(),
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
        "images": {key: _quantiles(images[key]) for key in findings.IMAGE_MEASURES},
        "touches_gap": int(masks["touches_gap"].sum()),
        "on_black": _records(findings.masks_on_black(rows), ["filename", "class", "on_black"]),
        "tiny": _records(findings.tiny_masks(rows), ["filename", "class", "area", "fraction"]),
        "unlike_others": _records(
            findings.unlike_others(images).query(f"abs(distance) >= {findings.UNLIKE}")
        ),
        "closest_pairs": [
            {"filenames": [names[i], names[j]], "correlation": round(correlation, 4)}
            for i, j, correlation in findings.closest_pairs(statistics.thumbnails, 12)
        ],
        "problems": statistics.problems,
    }


def _quantiles(values: pd.Series) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.quantile(values.to_numpy(dtype=float), list(_QUANTILES.values()))
    return {name: round(float(value), 6) for name, value in zip(_QUANTILES, found)}


def _combinations(present: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    """Counts the images of each combination of classes, the most frequent first."""
    kinds, counts = np.unique(present, axis=0, return_counts=True)
    return {
        " + ".join(np.array(class_names)[kinds[i]]) or "none": int(counts[i])
        for i in np.argsort(-counts, kind="stable")
    }


def _correlation(present: np.ndarray) -> list[list[float | None]]:
    """Pearson's correlation between the presence of classes; None where a class never varies."""
    centered = present - present.mean(axis=0)
    covariance = centered.T @ centered
    spread = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = covariance / np.outer(spread, spread)
    return [[round(float(x), 4) if np.isfinite(x) else None for x in row] for row in found]


def _records(frame: pd.DataFrame, columns: list[str] | None = None) -> list[dict[str, Any]]:
    frame = frame[columns] if columns else frame
    return [
        {key: value.item() if hasattr(value, "item") else value for key, value in record.items()}
        for record in frame.to_dict("records")
    ]
