"""Post-processing: probabilities to masks as graph ops, by one rule per class in a JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files, rle
from clouds_tf.dataset import Dataset
from clouds_tf.prediction.calibration import Calibration

# Raised whenever the meaning of postprocessing.json changes. Version 3 had no calibration.
VERSION = 4
_READABLE_VERSIONS = (3, VERSION)

# What may be added to a mask.
FILLS = {"nothing": tf.identity, "holes": rle.fill_holes, "boxes": rle.fill_boxes}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Post-processing of one class; by default a cut at 0.5 and nothing more.

    The class is present in an image if at least `min_area` pixels are more probable than
    `top_threshold` and its presence is at least `min_presence`. Its mask is then the pixels that
    are more probable than `threshold`, less components smaller than `min_component_area`, plus what
    `fill` adds, less the black gap if `remove_gap`.

    Attributes:
        threshold: probability in [0, 1].
        top_threshold: probability in [0, 1].
        min_area: minimum area in pixels at the submission size.
        min_presence: probability in [0, 1] that the class is in the image at all.
        min_component_area: minimum area of a connected component, in pixels at the submission size.
        fill: "nothing"; "holes" of the components; or their bounding "boxes".
        remove_gap: whether to blank the black gap between two orbits.
    """

    threshold: float = 0.5
    top_threshold: float = 0.5
    min_area: int = 0
    min_presence: float = 0.0
    min_component_area: int = 0
    fill: str = "nothing"
    remove_gap: bool = False

    def __post_init__(self) -> None:
        for name in ("threshold", "top_threshold", "min_presence"):
            value = getattr(self, name)
            if not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{name}: got {value!r}, expected a number in [0, 1]")
        for name in ("min_area", "min_component_area"):
            value = getattr(self, name)
            if not (_is_number(value) and value == int(value) and value >= 0):
                raise ValueError(f"{name}: got {value!r}, expected a number of pixels")
        if self.fill not in FILLS:
            raise ValueError(f"fill: got {self.fill!r}, expected one of {list(FILLS)}")
        if not isinstance(self.remove_gap, bool):
            raise ValueError(f"remove_gap: got {self.remove_gap!r}, expected a boolean")

    @property
    def refines(self) -> bool:
        """Whether the mask is more than a cut: components, filling or the gap."""
        return self.min_component_area > 0 or self.fill != "nothing" or self.remove_gap


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def plain_rules(num_classes: int) -> tuple[Rule, ...]:
    """Rules that cut every class at 0.5 and do nothing more."""
    return (Rule(),) * num_classes


def postprocess(
    probabilities: tf.Tensor,
    presence: tf.Tensor,
    images: tf.Tensor,
    rules: Sequence[Rule],
    gap_brightness: int | None = None,
) -> tf.Tensor:
    """Turns probabilities into masks.

    Args:
        probabilities: float32 [B, h, w, C] in [0, 1].
        presence: float32 [B, C] in [0, 1]; see `mean_prediction`.
        images: the images, uint8 [B, H, W, 3] of any size, to find the black gap in.
        rules: C Rules, in the order of the classes.
        gap_brightness: see `Dataset`; None where the images have no gap.

    Returns:
        uint8 [B, h, w, C] of {0, 1}.

    Raises:
        ValueError: the number of rules is not that of the classes, or a rule removes a gap that
            the data set does not have.
    """
    if len(rules) != probabilities.shape[-1]:
        raise ValueError(
            f"rules: got {len(rules)}, expected one for each of {probabilities.shape[-1]} classes"
        )

    def setting(name: str, dtype: tf.DType = tf.float32) -> tf.Tensor:
        return tf.constant([getattr(rule, name) for rule in rules], dtype)

    areas = tf.math.count_nonzero(probabilities > setting("top_threshold"), axis=[1, 2])
    present = (areas >= setting("min_area", tf.int64)) & (presence >= setting("min_presence"))
    masks = (probabilities > setting("threshold")) & present[:, tf.newaxis, tf.newaxis]
    if any(rule.refines for rule in rules):
        by_class = zip(tf.unstack(masks, num=len(rules), axis=3), rules)
        refined = [refine(mask, images, rule, gap_brightness) for mask, rule in by_class]
        masks = tf.stack(refined, axis=3)
    return tf.cast(masks, tf.uint8)


def refine(
    mask: tf.Tensor, images: tf.Tensor, rule: Rule, gap_brightness: int | None = None
) -> tf.Tensor:
    """Applies the last three fields of a rule to masks of one class: components, filling, gap.

    Args:
        mask: bool [B, h, w].
        images: uint8 [B, H, W, 3] of any size.
        rule: a Rule.
        gap_brightness: see `Dataset`.

    Returns:
        bool [B, h, w].

    Raises:
        ValueError: the rule removes the gap, but the data set has none.
    """
    if rule.min_component_area > 0:
        mask = rle.remove_small(mask, rule.min_component_area)
    mask = FILLS[rule.fill](mask)
    if rule.remove_gap:
        if gap_brightness is None:
            raise ValueError("remove_gap: the data set has no gap, gap_brightness is None")
        mask &= ~black_gap(images, tf.shape(mask)[1:], gap_brightness)
    return mask


def black_gap(images: tf.Tensor, size: Any, brightness: int) -> tf.Tensor:
    """Finds the black gap between two orbits.

    Args:
        images: uint8 [B, H, W, 3].
        size: (height, width) of the result, ints or int32 tensor.
        brightness: highest value of a channel (0 to 255) that still is black.

    Returns:
        bool [B, height, width], by nearest neighbour.
    """
    black = tf.reduce_max(images, axis=3) <= brightness
    for axis in (1, 2):  # in whole numbers: tf.image.resize rounds to the wrong side at times
        target, source = size[axis - 1], tf.shape(black)[axis]
        nearest = (2 * tf.range(target) + 1) * source // (2 * target)
        black = tf.gather(black, nearest, axis=axis)
    return black


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
    """

    rules: tuple[Rule, ...]
    test_time_augmentation: str | None = None
    workdirs: tuple[str, ...] = ()
    records: str | None = None
    calibration: Calibration | None = None
    report: dict[str, Any] = dataclasses.field(default_factory=dict)


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
        "records": postprocessing.records,
        "calibration": calibration and calibration.to_json(dataset.class_names),
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
        content = json.loads(files.read_text(path))
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
        return Postprocessing(
            rules,
            content.pop("test_time_augmentation", None),
            tuple(content.pop("workdirs", ())),
            content.pop("records", None),
            calibration,
            content,
        )
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a postprocessing.json of evaluate: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_rules(path: str, dataset: Dataset) -> tuple[Rule, ...]:
    """Reads the rules of a postprocessing.json; see `read_postprocessing`."""
    return read_postprocessing(path, dataset).rules


def _read_rule(class_name: str, fields: dict[str, Any]) -> Rule:
    expected = [field.name for field in dataclasses.fields(Rule)]
    if set(fields) != set(expected):
        raise ValueError(f"{class_name}: got {sorted(fields)}, expected {sorted(expected)}")
    try:
        return Rule(**fields)
    except ValueError as error:
        raise ValueError(f"{class_name}: {error}") from None
