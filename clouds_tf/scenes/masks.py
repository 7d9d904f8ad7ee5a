"""The prediction of a scene: masks, objects and areas."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence

import numpy as np

from clouds_tf.geo.grid import Grid
from clouds_tf.geo.objects import Object, find_objects
from clouds_tf.prediction.calibration import Calibration


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction of a whole scene.

    Attributes:
        name: name of the scene: its file name without extension.
        date: acquisition time, UTC.
        platform: the satellite, or "".
        model: fingerprint of the SavedModel.
        class_names: C names.
        grid: the cells.
        probabilities: float32 [C, rows, columns] in [0, 1], of the network.
        masks: bool [C, rows, columns]; unobserved cells have the network's output, too.
        observed: bool [rows, columns].
        image: uint8 [rows, columns, 3], the input of the network, at the grid's resolution.
        calibration: a Calibration, or None.
        stretch: description of the brightness curve.
        likeness: likeness to the training images, in [0, 1]; NaN if unknown.
        excluded: descriptions of land and of other excluded areas.
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
    stretch: str = "none"
    likeness: float = math.nan
    excluded: tuple[str, str] = ("observed", "nothing")

    @property
    def preparation(self) -> dict[str, str]:
        """Preparation of the scene before the network, as attributes of its files."""
        land, ignored = self.excluded
        return {"stretch": self.stretch, "land": land, "ignored": ignored}

    def calibrated(self, index: int) -> np.ndarray:
        """Probabilities of a class, float32 [rows, columns], calibrated if possible."""
        if self.calibration is None:
            return self.probabilities[index]
        return self.calibration.curves[index](self.probabilities[index]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ClassAreas:
    """Areas of one class in a scene; one row of scenes.csv.

    Attributes:
        class_name: the class.
        present: whether an observed cell belongs to its mask.
        area_km2: observed area of its mask.
        share: share of the observed area that its mask covers; NaN if nothing was observed.
        expected_share: mean calibrated probability over the observed area; without a calibration,
            the mean of the network's.
        objects: number of connected components of its observed mask.
    """

    class_name: str
    present: bool
    area_km2: float
    share: float
    expected_share: float
    objects: int


def objects_of(prediction: Prediction) -> list[tuple[list[Object], np.ndarray]]:
    """Finds the objects of each class in observed cells."""
    return [
        find_objects(mask & prediction.observed, probability, prediction.grid)
        for mask, probability in zip(prediction.masks, prediction.probabilities)
    ]


def measure(prediction: Prediction, num_objects: Sequence[int]) -> list[ClassAreas]:
    """Areas of every class, with the given numbers of objects."""
    area = prediction.grid.row_areas
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
