"""The competition's score of a submission; confidence intervals and tables of scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import tensorflow as tf

from clouds_tf import rle
from clouds_tf.data.annotations import check_mask_size, read_csv
from clouds_tf.dataset import Dataset
from clouds_tf.messages import Fault, aligned, counted, raise_faults

_RESAMPLES, _AT_A_TIME = 2000, 50


def dice_of_areas(shared: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Dice of masks from their areas, float64 in [0, 1]; 1 if both are empty; shapes broadcast.

    >>> dice_of_areas(shared=2, true=np.array([4, 0]), predicted=np.array([4, 0])).tolist()
    [0.5, 1.0]
    """
    total = np.asarray(true) + predicted
    return np.where(total == 0, 1.0, 2 * np.asarray(shared) / np.maximum(total, 1))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A submission against the truth: N images in the order of the annotations, C classes.

    Attributes:
        class_names: names of the classes.
        filenames: file names of the images.
        dice: float64 [N, C] in [0, 1].
        true_areas: int64 [N, C], in pixels at the submission size.
        predicted_areas: int64 [N, C], likewise.
        intersections: int64 [N, C], likewise.
    """

    class_names: tuple[str, ...]
    filenames: tuple[str, ...]
    dice: np.ndarray
    true_areas: np.ndarray
    predicted_areas: np.ndarray
    intersections: np.ndarray

    @property
    def all_blank(self) -> np.ndarray:
        """Dice of blank masks on the same images: float64 [N, C]."""
        return (self.true_areas == 0).astype(float)

    def __repr__(self) -> str:
        return (
            f"Comparison({counted(len(self.filenames), 'image')}, Dice {self.dice.mean():.4f}, "
            f"all blank {self.all_blank.mean():.4f})"
        )


def compare(
    submission: str,
    annotations_csv: str,
    dataset: Dataset,
    annotations_size: tuple[int, int] | None = None,
) -> Comparison:
    """Compares a submission with the truth; the mean of the Dice is the competition's score.

    Args:
        submission: a CSV or Parquet file of predict, with RLE at the submission size.
        annotations_csv: a CSV with the true RLE of the same images.
        dataset: the Dataset of both files.
        annotations_size: (height, width) of the true RLE; the data set's mask size by default.

    Returns:
        A Comparison.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed, its runs belong to masks of another size, or the files have
            different images, of which the first ones are named.
    """
    size = annotations_size or dataset.mask_size
    truth = read_csv(annotations_csv, dataset, size)
    check_mask_size(truth, dataset, annotations_csv, "--annotations_size", size)
    predicted = _read_submission(submission, dataset).set_index("filename")
    if dataset.missing_rows == "absent":
        rowless = predicted.index[~predicted.index.isin(truth["filename"])]
        blank = pd.DataFrame({"filename": rowless}).reindex(columns=truth.columns, fill_value="")
        truth = pd.concat([truth, blank], ignore_index=True)
    missing = truth["filename"][~truth["filename"].isin(predicted.index)]
    surplus = predicted.index[~predicted.index.isin(truth["filename"])]
    faults = [f"no rows for {name}, which is in {annotations_csv}" for name in missing]
    faults += [f"rows for {name}, which is not in {annotations_csv}" for name in surplus]
    raise_faults([Fault(submission, 0, reason) for reason in faults])
    predicted = predicted.loc[truth["filename"]]

    true_rle, predicted_rle = (
        tf.constant(table[list(dataset.class_names)].to_numpy(dtype=object).tolist())
        for table in (truth, predicted)
    )
    true_rle = rle.resize(true_rle, size, dataset.submission_size, dataset.rle_order)
    true, found = rle.area(true_rle).numpy(), rle.area(predicted_rle).numpy()
    shared = rle.intersection(true_rle, predicted_rle).numpy()
    # Like rle.dice, which would parse the strings again.
    dice = dice_of_areas(shared, true, found)
    names = tuple(truth["filename"])
    return Comparison(dataset.class_names, names, dice, true, found, shared)


def _read_submission(path: str, dataset: Dataset) -> pd.DataFrame:
    """Reads a submission from CSV or Parquet, like `annotations.read_csv`."""
    table = read_csv(path, dataset, dataset.submission_size)
    try:
        check_mask_size(table, dataset, path, "", dataset.submission_size)
    except ValueError as error:
        height, width = dataset.submission_size
        raise ValueError(
            f"{str(error).split(';')[0]}; the masks of a submission, as predict writes it, have "
            f"{height}x{width}"
        ) from None
    return table


def intervals(dice: np.ndarray) -> np.ndarray:
    """95 % bootstrap confidence intervals of mean scores, over images.

    Efron, "Bootstrap methods", 1979; percentiles of the means of images drawn with replacement.

    Args:
        dice: [N, C], or differences of these.

    Returns:
        float64 [2, C + 1]: lower and upper ends, of each class and of the mean over classes.
    """
    values = np.column_stack([dice, np.mean(dice, axis=1)])
    return np.percentile(resampled_sums(values) / len(values), [2.5, 97.5], axis=0)


def resampled_sums(values: np.ndarray) -> np.ndarray:
    """Sums values [N, K] of N images over bootstrap resamples: float64 [_RESAMPLES, K].

    A few resamples are drawn at a time: all of them would take 16 kB an image.
    """
    rng, count = np.random.default_rng(0), len(values)
    values, sums = values.astype(float), np.empty((_RESAMPLES, values.shape[1]))
    for start in range(0, _RESAMPLES, _AT_A_TIME):
        drawn = rng.multinomial(count, np.full(count, 1 / count), _AT_A_TIME)
        sums[start : start + _AT_A_TIME] = drawn @ values
    return sums


def table(
    scores: dict[str, np.ndarray],
    class_names: tuple[str, ...],
    interval_of: str | None = None,
    baseline: str | None = None,
) -> str:
    """Formats mean scores of each class and of all classes as a table.

    Args:
        scores: name -> Dice [N, C].
        class_names: names of the classes.
        interval_of: name of the scores whose `intervals` are shown as well.
        baseline: name of the scores to compare the others with.
    """
    rows = [["", *class_names, "mean"]]
    for name, values in scores.items():
        means = class_means(values)
        rows.append([name.replace("_", " "), *map("{:.4f}".format, means)])
        if name == interval_of:
            for end, numbers in zip(("95 % from", "to"), intervals(values)):
                rows.append([end, *map("{:.4f}".format, numbers)])
        if baseline is not None and baseline != name:
            gains = means - class_means(scores[baseline])
            rows.append(["over blank", *map("{:+.4f}".format, gains)])
    return aligned(rows)


def class_means(scores: np.ndarray) -> np.ndarray:
    """Means of each class over images, and their mean: [N, C] to float64 [C + 1]."""
    means = np.mean(scores, axis=0)
    return np.append(means, means.mean())


def worst_images(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Lists the images with their main errors, worst first.

    Args:
        comparison: a Comparison.

    Returns:
        Columns and rows: file name, mean Dice, Dice of each class, and the errors in words, such
        as "Fish: false alarm of 5231 px; Sugar: too small, 9000 px, 812 of 12000 hit".
    """
    dice, names = comparison.dice, comparison.class_names
    rows = []
    for i in np.argsort(dice.mean(axis=1), kind="stable"):
        areas = zip(
            comparison.true_areas[i], comparison.predicted_areas[i], comparison.intersections[i]
        )
        faults = [f"{name}: {fault}" for name, fault in zip(names, map(_fault, areas)) if fault]
        numbers = [f"{number:.4f}" for number in (dice[i].mean(), *dice[i])]
        rows.append([comparison.filenames[i], *numbers, "; ".join(faults)])
    return ["filename", "dice", *names, "faults"], rows


def _fault(areas: tuple[int, int, int]) -> str:
    """Describes the main error of a mask, or "" if at least half of it is correct."""
    true, predicted, shared = areas
    if predicted and not true:
        return f"false alarm of {predicted} px"
    if true and not predicted:
        return f"missed, {true} px"
    if 2 * shared >= (true + predicted) / 2:
        return ""
    if not shared:
        return f"elsewhere, {predicted} px instead of {true}"
    # The larger part of the error is either missing or superfluous area.
    return f"too {'small' if predicted < true else 'large'}, {predicted} px, {shared} of {true} hit"
