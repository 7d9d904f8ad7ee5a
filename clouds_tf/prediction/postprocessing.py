"""Post-processing: probabilities to masks, by one rule per class in a JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from clouds_tf import files
from clouds_tf.dataset import Dataset
from clouds_tf.prediction.calibration import Calibration
from clouds_tf.prediction.likeness import Likeness

# Raised whenever the meaning of postprocessing.json changes. Version 3 had no calibration.
VERSION = 4
_READABLE_VERSIONS = (3, VERSION)

# Fields of earlier versions that gained nothing on held-out images and are gone; a file may still
# have them, with the values that do nothing.
_GONE = {"min_component_area": 0, "fill": "nothing", "remove_gap": False}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Post-processing of one class; by default a cut at 0.5 and nothing more.

    The class is present in an image if at least `min_area` pixels are more probable than
    `top_threshold` and its presence is at least `min_presence`. Its mask is then the pixels that
    are more probable than `threshold`.

    Attributes:
        threshold: probability in [0, 1].
        top_threshold: probability in [0, 1].
        min_area: minimum area in pixels at the submission size.
        min_presence: probability in [0, 1] that the class is in the image at all.
    """

    threshold: float = 0.5
    top_threshold: float = 0.5
    min_area: int = 0
    min_presence: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threshold", "top_threshold", "min_presence"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name}: got {value!r}, expected a number in [0, 1]")
        area = self.min_area
        if not (_is_number(area) and area == int(area) and area >= 0):
            raise ValueError(f"min_area: got {area!r}, expected a number of pixels")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Rule:
        """Reads the fields of a rule, of this version or an earlier one.

        Raises:
            ValueError: fields are missing, unknown or impossible, or the rule does something that
                this version does not do.
        """
        fields = dict(fields)
        for name, nothing in _GONE.items():
            value = fields.pop(name, nothing)
            if value != nothing:
                raise ValueError(
                    f"{name}: got {value!r}, which is not applied any more because it gained "
                    "nothing on held-out images; run evaluate and export again"
                )
        expected = [field.name for field in dataclasses.fields(cls)]
        if set(fields) != set(expected):
            raise ValueError(f"got {sorted(fields)}, expected {sorted(expected)}")
        return cls(**fields)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain_rules(num_classes: int) -> tuple[Rule, ...]:
    """Rules that cut every class at 0.5 and do nothing more."""
    return (Rule(),) * num_classes


def counts_as_present(areas: Any, presence: Any, min_area: Any, min_presence: Any) -> Any:
    """Whether classes count as present; for arrays of numpy or TensorFlow, of any shapes.

    Args:
        areas: int64, pixels that are more probable than the top threshold.
        presence: float32 in [0, 1].
        min_area: int, or ints that broadcast with areas.
        min_presence: float, or floats that broadcast with presence.

    Returns:
        bool, of the shape of all of them together.
    """
    # In the precision of the network, so that equal numbers are equal.
    likely = presence >= np.asarray(min_presence, np.float32)
    return (areas >= np.asarray(min_area, np.int64)) & likely


def find_present(
    probabilities: Any, presence: Any, rules: Sequence[Rule], filled: Any = 1.0
) -> Any:
    """Which classes count as present; for arrays of numpy or TensorFlow.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        presence: float32 [B, C] in [0, 1]; see `mean_prediction`.
        rules: C Rules, in the order of the classes.
        filled: share of each image that there is, [B], by which minimum areas shrink; the rest is
            black.

    Returns:
        bool [B, C].

    Raises:
        ValueError: the number of rules is not that of the classes.
    """
    if len(rules) != probabilities.shape[-1]:
        raise ValueError(
            f"rules: got {len(rules)}, expected one for each of {probabilities.shape[-1]} classes"
        )
    above = probabilities > _setting(rules, "top_threshold")
    count = tf.math.count_nonzero if tf.is_tensor(above) else np.count_nonzero
    min_areas, min_presences = zip(*((rule.min_area, rule.min_presence) for rule in rules))
    min_areas = np.rint(np.multiply.outer(filled, min_areas))
    return counts_as_present(count(above, axis=(1, 2)), presence, min_areas, min_presences)


def _setting(rules: Sequence[Rule], name: str) -> np.ndarray:
    return np.array([getattr(rule, name) for rule in rules], np.float32)


def postprocess(probabilities: Any, presence: Any, rules: Sequence[Rule]) -> Any:
    """Turns probabilities into masks; for arrays of numpy or TensorFlow.

    Arguments and errors are those of `find_present`.

    Returns:
        bool [B, h, w, C].
    """
    present = find_present(probabilities, presence, rules)
    return (probabilities > _setting(rules, "threshold")) & present[:, None, None]


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """Contents of a postprocessing.json.

    Attributes:
        rules: C Rules, in the order of the data set's classes.
        test_time_augmentation: the one that the rules were tuned with; None if not known.
        workdirs: workdirs (or files of weights) of the models that they were tuned with.
        records: fingerprint of the records that they were tuned on; None if not known.
        calibration: a Calibration, or None.
        report: further JSON-like facts for readers, such as scores.
        member_weights: the weight of each of `workdirs` in the average; empty where all are equal.
        likeness: distribution of the images that they were tuned on; None if not known.
    """

    rules: tuple[Rule, ...]
    test_time_augmentation: str | None = None
    workdirs: tuple[str, ...] = ()
    records: str | None = None
    calibration: Calibration | None = None
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    member_weights: tuple[float, ...] = ()
    likeness: Likeness | None = None


def write_postprocessing(path: str, postprocessing: Postprocessing, dataset: Dataset) -> None:
    """Writes a postprocessing.json, whole or not at all.

    Args:
        path: the file to write.
        postprocessing: a Postprocessing, with a rule for every class of the data set.
        dataset: the Dataset, for the names of classes and the size that areas refer to.
    """
    calibration = postprocessing.calibration
    rules = zip(dataset.class_names, postprocessing.rules)
    content = {
        "version": VERSION,
        "size": list(dataset.submission_size),
        "classes": {name: dataclasses.asdict(rule) for name, rule in rules},
        "test_time_augmentation": postprocessing.test_time_augmentation,
        "workdirs": list(postprocessing.workdirs),
        "member_weights": list(postprocessing.member_weights),
        "records": postprocessing.records,
        "calibration": calibration and calibration.to_json(dataset.class_names),
        "likeness": postprocessing.likeness and postprocessing.likeness.to_json(),
        **postprocessing.report,
    }
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def read_postprocessing(path: str, dataset: Dataset) -> Postprocessing:
    """Reads what `write_postprocessing` wrote, now or in version 3.

    Args:
        path: a postprocessing.json.
        dataset: the Dataset that the rules are for.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another version, size or classes, an impossible value, or another kind of file.
    """
    try:
        content = files.parse_json(files.read_text(path))
        version = content.pop("version", None)
        if version not in _READABLE_VERSIONS:
            known = " or ".join(map(str, _READABLE_VERSIONS))
            raise ValueError(f"version: got {version}, expected {known}; run evaluate again")
        for name, expected in (
            ("size", list(dataset.submission_size)),
            ("classes", list(dataset.class_names)),
        ):
            if list(content[name]) != expected:
                raise ValueError(f"{name}: got {list(content[name])}, expected {expected}")
        content.pop("size")
        rules = tuple(_read_rule(name, r) for name, r in content.pop("classes").items())
        calibration = content.pop("calibration", None)
        if calibration is not None:
            calibration = Calibration.from_json(calibration, dataset.class_names)
        likeness = content.pop("likeness", None)
        return Postprocessing(
            rules,
            content.pop("test_time_augmentation", None),
            tuple(content.pop("workdirs", ())),
            content.pop("records", None),
            calibration,
            member_weights=tuple(content.pop("member_weights", ())),
            likeness=likeness and Likeness.from_json(likeness),
            report=content,
        )
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a postprocessing.json of evaluate: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_rule(class_name: str, fields: dict[str, Any]) -> Rule:
    try:
        return Rule.from_json(fields)
    except ValueError as error:
        raise ValueError(f"{class_name}: {error}") from None
