"""The statistics in brief: what statistics.json holds and the report says."""

import numpy as np

from clouds_tf.exploration import findings
from clouds_tf.schema import CLASS_NAMES, NUM_CLASSES

_QUANTILES = {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "max": 1}
_MASK_MEASURES = ("area", "fraction", "runs", "characters", "components")
_CRUMB = 100  # pixels; hardly a component of so few was drawn on purpose


def summarize(statistics):
    """Reduces Statistics to one dict.

    Args:
        statistics: what `measure` returns.

    Returns:
        A dict that json can write.
    """
    rows, components = statistics.rows, statistics.components
    masks = rows[rows["area"] > 0]
    images = findings.per_image(rows)
    present = (rows["area"] > 0).to_numpy().reshape(-1, NUM_CLASSES)
    names = images["filename"]
    return {
        "num_images": len(images),
        "num_rows": len(rows),
        "num_masks": len(masks),
        "image_sizes": {
            f"{height} x {width}": int(count)
            for (height, width), count in images.groupby(["height", "width"]).size().items()
        },
        "present": _per_class(lambda i: int(present[:, i].sum())),
        "pixels": _per_class(lambda i: float(rows["fraction"][i::NUM_CLASSES].mean())),
        "labels_per_image": {
            n: int((present.sum(axis=1) == n).sum()) for n in range(NUM_CLASSES + 1)
        },
        "combinations": _combinations(present),
        "cooccurrence": (present.T.astype(int) @ present).tolist(),
        "correlation": _correlation(present),
        "masks": {
            name: {key: _quantiles(masks[key][masks["class"] == name]) for key in _MASK_MEASURES}
            for name in CLASS_NAMES
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


def _per_class(value):
    return {name: value(i) for i, name in enumerate(CLASS_NAMES)}


def _quantiles(values):
    if not len(values):
        return None
    found = np.quantile(values.to_numpy(dtype=float), list(_QUANTILES.values()))
    return {name: round(float(value), 6) for name, value in zip(_QUANTILES, found)}


def _combinations(present):
    """Counts the images of each combination of classes, the most frequent first."""
    kinds, counts = np.unique(present, axis=0, return_counts=True)
    return {
        " + ".join(np.array(CLASS_NAMES)[kinds[i]]) or "none": int(counts[i])
        for i in np.argsort(-counts, kind="stable")
    }


def _correlation(present):
    """Pearson's correlation between the classes' presence; None where a class never varies."""
    centered = present - present.mean(axis=0)
    covariance = centered.T @ centered
    spread = np.sqrt(np.diag(covariance))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = covariance / np.outer(spread, spread)
    return [[round(float(x), 4) if np.isfinite(x) else None for x in row] for row in found]


def _records(frame, columns=None):
    frame = frame[columns] if columns else frame
    return [
        {key: value.item() if hasattr(value, "item") else value for key, value in record.items()}
        for record in frame.to_dict("records")
    ]
