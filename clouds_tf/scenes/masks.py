"""Blended probabilities -> the masks of a scene, its objects and its areas."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.prediction.calibration import Calibration
from clouds_tf.prediction.postprocessing import FILLS, Rule
from clouds_tf.scenes.georeference import Grid


@dataclasses.dataclass(frozen=True)
class Prediction:
    """All that is known of a scene when its windows have been predicted.

    Attributes:
        name: of the scene: its file name without the ending.
        date: when it was taken, UTC.
        platform: the satellite, or "".
        model: fingerprint of the SavedModel.
        class_names: C names.
        grid: the cells.
        probabilities: float32 [C, rows, columns] in [0, 1], of the network.
        masks: bool [C, rows, columns]. Cells that were not observed have the network's answer too.
        observed: bool [rows, columns].
        image: uint8 [rows, columns, 3], the scene at the grid's resolution.
        calibration: from probabilities to calibrated ones, or None.
    """

    name: str
    date: datetime.datetime
    platform: str
    model: str
    class_names: tuple[str, ...]
    grid: Grid
    probabilities: np.ndarray = dataclasses.field(repr=False)
    masks: np.ndarray = dataclasses.field(repr=False)
    observed: np.ndarray = dataclasses.field(repr=False)
    image: np.ndarray = dataclasses.field(repr=False)
    calibration: Calibration | None = dataclasses.field(default=None, repr=False)

    def calibrated(self, index: int) -> np.ndarray:
        """Calibrated probabilities of a class, float32 [rows, columns]; the network's without."""
        if self.calibration is None:
            return self.probabilities[index]
        return self.calibration.curves[index](self.probabilities[index]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ClassAreas:
    """What a scene shows of a class: a row of scenes.csv.

    Attributes:
        class_name: the class.
        present: whether an observed cell belongs to its mask.
        area_km2: of its mask, where observed.
        share: of the observed area that its mask covers; NaN where nothing was observed.
        expected_share: mean calibrated probability of the observed area; without a calibration,
            of the network's.
        objects: number of connected components of its mask, where observed.
    """

    class_name: str
    present: bool
    area_km2: float
    share: float
    expected_share: float
    objects: int


@dataclasses.dataclass(frozen=True)
class Object:
    """A connected component of a mask, where observed; cells that touch at a corner connect.

    Attributes:
        class_name: the class.
        labels: the numbers of the object in the array of labels, two at least where it crosses
            the seam of a grid that goes round the globe.
        area_km2: on a sphere.
        mean_probability: of the network, weighted by area.
        centroid: (longitude, latitude) in degrees.
        bounds: (west, south, east, north) in degrees; west is above east across the date line.
    """

    class_name: str
    labels: tuple[int, ...]
    area_km2: float
    mean_probability: float
    centroid: tuple[float, float]
    bounds: tuple[float, float, float, float]


def refine(
    mask: np.ndarray, rule: Rule, gap: np.ndarray, scale: float, periodic: bool
) -> np.ndarray:
    """Applies what a rule says of components, filling and the gap to the mask of a whole scene.

    Args:
        mask: bool [rows, columns].
        rule: of the class.
        gap: bool [rows, columns], what remove_gap removes.
        scale: cells of the grid for a pixel of the rule's areas.
        periodic: whether the last column borders on the first one.

    Returns:
        bool [rows, columns].
    """
    if not rule.refines:
        return mask
    # A grid round the globe is cut where no object is, if there is such a meridian.
    shift = int((~mask.any(axis=0)).argmax()) if periodic else 0
    refined = tf.constant(np.roll(mask, -shift, axis=1)[np.newaxis])
    if rule.min_component_area > 0:
        refined = rle.remove_small(refined, round(rule.min_component_area * scale))
    refined = np.roll(FILLS[rule.fill](refined)[0].numpy(), shift, axis=1)
    return refined & ~gap if rule.remove_gap else refined


def find_objects(prediction: Prediction, index: int) -> tuple[list[Object], np.ndarray]:
    """Finds the objects of a class.

    Args:
        prediction: a Prediction.
        index: of the class.

    Returns:
        Objects in the order of their first cells, column by column; and int32 [rows, columns],
        their labels, 0 outside.
    """
    grid = prediction.grid
    labels = rle.components(prediction.masks[index] & prediction.observed).numpy()
    count = int(labels.max(initial=0))
    owner = _across_seam(labels, count) if grid.periodic else np.arange(count)
    rows, columns = np.nonzero(labels)
    label = owner[labels[rows, columns] - 1]
    weight = grid.cell_areas[rows]
    # What crosses the seam continues to the west of the first column.
    crossing = np.isin(np.arange(count), owner[owner != np.arange(count)])
    position = columns - grid.size[1] * (crossing[label] & (columns >= grid.size[1] / 2))

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(label, weight * values, count)

    def extreme(function: np.ufunc, values: np.ndarray, start: int) -> np.ndarray:
        result = np.full(count, start)
        function.at(result, label, values)
        return result

    area = np.maximum(total(np.ones(len(rows))), 1e-300)
    latitude, longitude = grid.cell
    east_of = grid.lon_min + longitude * (total(position + 0.5) / area)
    north_of = grid.lat_max - latitude * (total(rows + 0.5) / area)
    probability = total(prediction.probabilities[index][rows, columns]) / area
    west = grid.lon_min + longitude * extreme(np.minimum, position, 2**31)
    east = grid.lon_min + longitude * (extreme(np.maximum, position, -(2**31)) + 1)
    north = grid.lat_max - latitude * extreme(np.minimum, rows, 2**31)
    south = grid.lat_max - latitude * (extreme(np.maximum, rows, -1) + 1)
    objects = [
        Object(
            prediction.class_names[index],
            tuple((np.flatnonzero(owner == i) + 1).tolist()) if crossing[i] else (i + 1,),
            float(area[i]),
            float(probability[i]),
            (_wrapped(east_of[i]), float(north_of[i])),
            (_wrapped(west[i]), float(south[i]), _wrapped(east[i], end=True), float(north[i])),
        )
        for i in range(count)
        if owner[i] == i
    ]
    return objects, labels


def _across_seam(labels: np.ndarray, count: int) -> np.ndarray:
    """For each label from 1, the position of the label that owns it, by contact over the seam."""
    owner = np.arange(count)

    def root(i: int) -> int:
        while owner[i] != i:
            i = owner[i]
        return i

    first, last = labels[:, 0], labels[:, -1]
    for step in (-1, 0, 1):
        moved = np.roll(last, step)
        if step:
            moved[0 if step > 0 else -1] = 0
        for a, b in {(int(a), int(b)) for a, b in zip(first, moved) if a and b}:
            low, high = sorted((root(a - 1), root(b - 1)))
            owner[high] = low
    return np.array([root(i) for i in range(count)], np.int64)


def _wrapped(longitude: float, end: bool = False) -> float:
    """A longitude as -180 to below 180; or, of an eastern edge, above -180 to 180."""
    beyond = longitude > 180 if end else longitude >= 180
    below = longitude <= -180 if end else longitude < -180
    return float(longitude - 360 if beyond else longitude + 360 if below else longitude)


def measure(prediction: Prediction, num_objects: Sequence[int]) -> list[ClassAreas]:
    """Areas of every class.

    Args:
        prediction: a Prediction.
        num_objects: of each class.
    """
    area = prediction.grid.cell_areas
    observed = float(prediction.observed.sum(axis=1) @ area)
    result = []
    for i, name in enumerate(prediction.class_names):
        mask = prediction.masks[i] & prediction.observed
        covered = float(mask.sum(axis=1) @ area)
        expected = np.where(prediction.observed, prediction.calibrated(i), 0)
        expected_km2 = float(expected.sum(axis=1, dtype=np.float64) @ area)
        shares = (covered / observed, expected_km2 / observed) if observed else (np.nan, np.nan)
        result.append(ClassAreas(name, bool(mask.any()), covered, *shares, num_objects[i]))
    return result


def cut_masks(
    probabilities: np.ndarray,
    present: np.ndarray,
    rules: Sequence[Rule],
    refine_class: Callable[[np.ndarray, Rule], np.ndarray],
) -> np.ndarray:
    """Cuts the masks out of probabilities: bool [C, rows, columns].

    Args:
        probabilities: float32 [C, rows, columns].
        present: bool [C, rows, columns], where the class is present.
        rules: C Rules.
        refine_class: what `refine` does, of a mask and its Rule.
    """
    masks = np.empty(probabilities.shape, bool)
    for mask, probability, here, rule in zip(masks, probabilities, present, rules):
        mask[:] = refine_class((probability > np.float32(rule.threshold)) & here, rule)
    return masks
