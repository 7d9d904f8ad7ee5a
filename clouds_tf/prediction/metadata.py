"""Metadata of a SavedModel: its data set, networks and post-processing."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from clouds_tf import files, gfile
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.prediction.calibration import Calibration
from clouds_tf.prediction.likeness import Likeness
from clouds_tf.prediction.postprocessing import Rule, plain_rules
from clouds_tf.prediction.untrusted import MAX_IMAGE_PIXELS

METADATA_FILE = "assets.extra/metadata.json"  # in the SavedModel
_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
_SCHEMA_VERSION = 3
_WITHOUT_DATASET = 2  # of version 0.1, which supported one data set


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Description of a SavedModel.

    Attributes:
        dataset: classes, sizes and CSV format of the predictions.
        image_sizes: (height, width) of the input of each network; with the test-time augmentation
            "scales", a model has several networks.
        rules: post-processing, one Rule for each class; by default a threshold of 0.5.
        test_time_augmentation: one of `ensemble.AUGMENTATIONS`.
        max_image_pixels: larger images are refused before they are decoded.
        calibration: map from the network's probabilities to calibrated ones, or None.
        training: for each model, a JSON-like description of the run that trained it.
        version: number of the SavedModel's folder.
        member_weights: weight of each network in the average; empty if all are equal.
        likeness: distribution of the images that the models are for, or None.
    """

    dataset: Dataset
    image_sizes: tuple[tuple[int, int], ...]
    rules: tuple[Rule, ...] = ()
    test_time_augmentation: str = "none"
    max_image_pixels: int = MAX_IMAGE_PIXELS
    calibration: Calibration | None = None
    training: tuple[dict[str, Any], ...] = ()
    version: int = 0
    member_weights: tuple[float, ...] = ()
    likeness: Likeness | None = None

    def __post_init__(self) -> None:
        rules = self.rules or plain_rules(self.dataset.num_classes)
        object.__setattr__(self, "rules", rules)

    def to_json(self) -> dict[str, Any]:
        """A JSON-like dict that `from_json` reads."""
        dataset = self.dataset
        rules = zip(dataset.class_names, self.rules)
        return {
            "version": self.version,
            "schema_version": _SCHEMA_VERSION,
            # These two are part of "dataset", too; they stay here for existing readers.
            "class_names": list(dataset.class_names),
            "mask_size": list(dataset.submission_size),
            "dataset": dataset.to_json(),
            "image_sizes": [list(size) for size in self.image_sizes],
            "postprocessing": {name: dataclasses.asdict(rule) for name, rule in rules},
            "test_time_augmentation": self.test_time_augmentation,
            "max_image_pixels": self.max_image_pixels,
            "calibration": self.calibration and self.calibration.to_json(dataset.class_names),
            "training": list(self.training),
            "member_weights": list(self.member_weights),
            "likeness": self.likeness and self.likeness.to_json(),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Metadata:
        """Reads what `to_json` wrote, in this or the previous version; ValueError otherwise."""
        version = fields.get("schema_version")
        if version not in (_WITHOUT_DATASET, _SCHEMA_VERSION):
            raise ValueError(
                f"schema_version: got {version}, expected {_WITHOUT_DATASET} or {_SCHEMA_VERSION}; "
                "export again with this version of clouds_tf"
            )
        dataset = CLOUDS
        if version == _SCHEMA_VERSION:
            dataset = Dataset.from_json(fields["dataset"])
        calibration = fields.get("calibration")
        if calibration is not None:
            calibration = Calibration.from_json(calibration, dataset.class_names)
        return cls(
            dataset,
            tuple((height, width) for height, width in fields["image_sizes"]),
            tuple(Rule.from_json(fields["postprocessing"][name]) for name in dataset.class_names),
            fields["test_time_augmentation"],
            fields["max_image_pixels"],
            calibration,
            tuple(fields["training"] or ()),
            fields["version"],
            tuple(fields.get("member_weights", ())),
            Likeness.from_json(fields["likeness"]) if fields.get("likeness") else None,
        )


def read_metadata(saved_model: str) -> Metadata:
    """Reads the metadata of a SavedModel without loading it.

    Args:
        saved_model: folder of a version, such as E/1.

    Raises:
        FileNotFoundError: there is no SavedModel.
        ValueError: the SavedModel was not written by `export`, or its metadata is damaged.
    """
    files.check_loadable(saved_model)
    if not any(gfile.exists(os.path.join(saved_model, name)) for name in _GRAPHS):
        raise FileNotFoundError(f"{saved_model}: no SavedModel; expected a folder such as E/1")
    path = os.path.join(saved_model, METADATA_FILE)
    if not gfile.exists(path):
        raise ValueError(f"{saved_model}: not a SavedModel of export: it has no {METADATA_FILE}")
    try:
        return Metadata.from_json(files.parse_json(files.read_text(path)))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: damaged metadata ({error!r}); export again") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
