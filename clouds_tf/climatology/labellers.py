"""Agreement between labellers of the same image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from clouds_tf import files
from clouds_tf.climatology import aggregate, bootstrap
from clouds_tf.climatology.boxes import View, shared_areas
from clouds_tf.climatology.tables import BoxTable
from clouds_tf.geo.extent import Extent
from clouds_tf.geo.grid import Grid


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Agreement of labellers on one region in one season or month.

    Attributes:
        extent: the region.
        period: such as "DJF".
        num_days: number of days with an image that at least two people labelled.
        fraction: float64 [C], mean share of the region that a labeller assigns to the class.
        agreement: float64 [C], over all pairs of labellers of an image: the area that both assign
            to the class, divided by the area that at least one does; NaN if nobody does.
        lower, upper: float64 [C], 95 % interval of agreement, by `bootstrap.draw`.
    """

    extent: Extent
    period: str
    num_days: int
    fraction: np.ndarray
    agreement: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def agreement(
    table: BoxTable, num_classes: int, by: str = "season", num_resamples: int = 200, seed: int = 0
) -> list[Agreement]:
    """Compares the labellers of every image, pair by pair; sorted by region and period.

    Args:
        table: a table of images that several people labelled, see `tables.read`.
        num_classes: C.
        by: a period, see `aggregate.periods`; averaged over all years.
        num_resamples: number of bootstrap resamples for the intervals; 0 for none (NaN).
        seed: seed of the bootstrap.
    """
    sums: dict[Extent, dict[str, np.ndarray]] = {}
    one = np.ones((1, num_classes))
    for date, views in table.by_day():
        for image in sorted({view.image for view in views}):
            here = [view for view in views if view.image == image]
            if len(here) > 1:
                of_region = sums.setdefault(here[0].extent, {})
                compared = np.concatenate([_compare(here, num_classes), one])
                of_region[date] = of_region.get(date, 0) + compared
    found = []
    for extent, by_date in sorted(sums.items()):
        for period in aggregate.periods(list(by_date), by):
            # For each day: area per labeller, area of both, area of either, number of images.
            area, both, either, number = np.stack([by_date[date] for date in period.dates], axis=1)
            shares = bootstrap.divide(both, either)
            draws = bootstrap.draw(period.dates, shares, num_resamples, seed)
            whole = Grid().area_in(extent).sum()
            share = area.sum(axis=0) / number.sum(axis=0) / whole
            ratio = bootstrap.interval(both, either, draws)
            found.append(Agreement(extent, period.label, len(period.dates), share, *ratio))
    return found


def _compare(views: Sequence[View], num_classes: int) -> np.ndarray:
    """Mean area per labeller, shared area and united area of all pairs: float64 [3, C]."""
    found = np.zeros((3, num_classes))
    owners = np.concatenate([np.full(len(view.labels), i) for i, view in enumerate(views)])
    boxes, labels = (
        np.concatenate([getattr(view, name) for view in views]) for name in ("boxes", "labels")
    )
    for c in range(num_classes):
        of_class = labels == c
        shared = shared_areas(boxes[of_class], owners[of_class], len(views))
        areas, pairs = np.diag(shared), np.triu_indices(len(views), 1)
        found[0, c] = areas.mean()
        found[1, c] = shared[pairs].sum()
        found[2, c] = (areas[pairs[0]] + areas[pairs[1]] - shared[pairs]).sum()
    return found


def write(found: Sequence[Agreement], class_names: Sequence[str], path: str) -> None:
    """Writes a row per region, period and class as CSV, whole or not at all."""
    columns = ("region", "period", "num_days", "class", "fraction", "agreement", "lower", "upper")
    rows = []
    for item in found:
        region = " ".join(f"{side:g}" for side in item.extent)
        for name, *numbers in zip(
            class_names, item.fraction, item.agreement, item.lower, item.upper
        ):
            shown = ["" if np.isnan(x) else f"{x:.4f}" for x in numbers]
            rows.append((region, item.period, item.num_days, name, *shown))
    files.write_table(path, columns, rows)
