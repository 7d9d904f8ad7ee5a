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
from clouds_tf.models.probabilities import for_masks
from clouds_tf.prediction.calibration import Calibration
from clouds_tf.prediction.likeness import Likeness

# Incremented whenever the meaning of postprocessing.json changes. Versions 3 and 4 had other rules.
VERSION = 5
_READABLE_VERSIONS = (3, 4, VERSION)

TOP_SHARE = 0.005  # share of the pixels of an image, the most probable ones, that is averaged

# Candidate values of the attributes of `Rule`.
LOWEST_THRESHOLD = 0.01
RELATIVE_THRESHOLDS = tuple(round(0.05 * i, 2) for i in range(4, 20))
MIN_TOP_MEANS = tuple(round(0.02 * i, 2) for i in range(51))

# Fields of earlier versions, with the values without effect, which a file may still have.
_GONE = {
    "min_area": 0,
    "min_presence": 0,
    "min_component_area": 0,
    "fill": "nothing",
    "remove_gap": False,
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Post-processing of one class; by default a threshold of 0.5.

    The class is present in an image if the mean of its most probable pixels (TOP_SHARE of all) is
    at least `min_top_mean`. Its mask then has the pixels whose probability exceeds both `threshold`
    and `relative_threshold` times that mean, rounded to hundredths.

    Attributes:
        threshold: probability in [0, 1].
        relative_threshold: share in [0, 1] of the mean of the most probable pixels.
        min_top_mean: probability in [0, 1].
    """

    threshold: float = 0.5
    relative_threshold: float = 0.0
    min_top_mean: float = 0.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name}: got {value!r}, expected a number in [0, 1]")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Rule:
        """Reads the fields of a rule, of this version or an earlier one.

        Raises:
            ValueError: fields are missing, unknown or impossible, or the rule has an effect that
                this version does not support.
        """
        fields = dict(fields)
        for name, nothing in _GONE.items():
            value = fields.pop(name, nothing)
            if value != nothing:
                raise ValueError(
                    f"{name}: got {value!r}, which is no longer supported because other rules "
                    "score higher on held-out images; run evaluate and export again"
                )
        if set(fields) == {"threshold", "top_threshold"}:  # the second was for areas only
            return cls(fields["threshold"])
        expected = [field.name for field in dataclasses.fields(cls)]
        if set(fields) != set(expected):
            raise ValueError(f"got {sorted(fields)}, expected {sorted(expected)}")
        return cls(**fields)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain_rules(num_classes: int) -> tuple[Rule, ...]:
    """Rules with a threshold of 0.5 for every class."""
    return (Rule(),) * num_classes


def to_planes(probabilities: tf.Tensor) -> tf.Tensor:
    """[B, h, w, C] to [B, C, h, w]: passes over four classes side by side take twice as long."""
    return tf.transpose(probabilities, [0, 3, 1, 2])


def top_means(probabilities: tf.Tensor, filled: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Mean of the most probable pixels of each image and class, see `Rule`.

    Args:
        probabilities: float32 [B, h, w, C].
        filled: share of each image that is not black padding, float32 [B]; correspondingly fewer
            pixels are averaged.

    Returns:
        float32 [B, C].
    """
    return _top_means(to_planes(tf.convert_to_tensor(probabilities)), filled)


def _top_means(planes: tf.Tensor, filled: tf.Tensor | float) -> tf.Tensor:
    _, classes, height, width = planes.shape
    flat = tf.reshape(planes, [tf.shape(planes)[0], classes, height * width])
    highest = max(1, round(TOP_SHARE * height * width))
    if isinstance(filled, float):
        number: Any = max(1.0, round(filled * highest))
        least = _nth_highest(flat, int(number))
    else:
        number = tf.maximum(tf.round(filled * float(highest)), 1)
        least = tf.map_fn(
            lambda image: _nth_highest(image[0], tf.cast(image[1], tf.int32)),
            (flat, number),
            fn_output_signature=tf.TensorSpec([classes], tf.float32),
        )
        number = number[:, tf.newaxis]
    # The n-th highest plus the mean excess of the n highest over it is their mean. Finding the n-th
    # takes a fifth of the time of sorting.
    return least + tf.reduce_sum(tf.nn.relu(flat - least[..., tf.newaxis]), axis=-1) / number


def _nth_highest(values: tf.Tensor, n: tf.Tensor | int) -> tf.Tensor:
    return tf.raw_ops.NthElement(input=values, n=n - 1, reverse=True)


def mask_thresholds(means: tf.Tensor, threshold: tf.Tensor, relative: tf.Tensor) -> tf.Tensor:
    """Probabilities that the pixels of masks exceed; for tensors that broadcast.

    Args:
        means: float32, of `top_means`.
        threshold: float32, of rules.
        relative: float32, the relative threshold of rules.

    Returns:
        float32, in whole hundredths where the relative threshold decides, because evaluation has
        pixel counts for these.
    """
    return tf.maximum(threshold, tf.round(100 * relative * means) / 100)


def is_present(means: tf.Tensor, min_top_mean: tf.Tensor) -> tf.Tensor:
    """Whether classes count as present, bool; for tensors that broadcast, see `Rule`."""
    return tf.greater_equal(means, min_top_mean)


def limits_of(means: tf.Tensor, rules: Sequence[Rule]) -> tf.Tensor:
    """Probabilities that the pixels of each mask exceed.

    Args:
        means: float32 [B, C], of `top_means`.
        rules: C Rules, in the order of the classes.

    Returns:
        float32 [B, C], infinite where the class counts as absent.
    """
    # In the precision of the network, so that comparisons are exact.
    columns = zip(*(dataclasses.astuple(rule) for rule in rules))
    threshold, relative, min_top_mean = (np.array(column, np.float32) for column in columns)
    limits = mask_thresholds(means, threshold, relative)
    return tf.where(is_present(means, min_top_mean), limits, np.inf)


def postprocess(
    probabilities: tf.Tensor,
    rules: Sequence[Rule],
    exclusive: bool = False,
    filled: tf.Tensor | float = 1.0,
) -> tf.Tensor:
    """Turns probabilities into masks.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        rules: C Rules, in the order of the classes.
        exclusive: whether a pixel counts only for its most probable class, see `for_masks`.
        filled: see `top_means`.

    Returns:
        bool [B, h, w, C].

    Raises:
        ValueError: the numbers of rules and classes differ.
    """
    planes = to_planes(for_masks(probabilities, exclusive))
    return tf.transpose(cut(planes, rules, filled), [0, 2, 3, 1])


def cut(planes: tf.Tensor, rules: Sequence[Rule], filled: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Turns probabilities from `for_masks`, float32 [B, C, h, w], into masks, bool of that shape.

    Args and errors are those of `postprocess`.
    """
    if len(rules) != planes.shape[1]:
        raise ValueError(
            f"rules: got {len(rules)}, expected one for each of {planes.shape[1]} classes"
        )
    limits = limits_of(_top_means(planes, filled), rules)
    return planes > limits[..., tf.newaxis, tf.newaxis]


@dataclasses.dataclass(frozen=True)
class Postprocessing:
    """Contents of a postprocessing.json.

    Attributes:
        rules: C Rules, in the order of the data set's classes.
        test_time_augmentation: the one that the rules were tuned with; None if unknown.
        workdirs: workdirs (or files of weights) of the models that they were tuned with.
        records: fingerprint of the records that they were tuned on; None if unknown.
        calibration: a Calibration, or None.
        report: further JSON-like information for readers, such as scores.
        member_weights: weight of each of `workdirs` in the average; empty if all are equal.
        likeness: distribution of the images that they were tuned on; None if unknown.
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
        dataset: the Dataset, for class names and mask size.
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
    """Reads what `write_postprocessing` wrote, now or in versions 3 and 4.

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
            known = f"{_READABLE_VERSIONS[0]} to {VERSION}"
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
