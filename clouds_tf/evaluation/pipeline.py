"""Evaluates trained models on records: postprocessing.json, scores and pictures."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np

from clouds_tf import files
from clouds_tf.data.records import Records
from clouds_tf.dataset import Dataset
from clouds_tf.evaluation import out_of_fold, pictures, score
from clouds_tf.evaluation.areas import AreaResult, Bias, area_biases, calibrate
from clouds_tf.evaluation.held_out import HeldOut, Member, load_members, load_weights
from clouds_tf.evaluation.search import (
    Rung,
    SearchResult,
    ladder,
    ladder_columns,
    ladder_text,
    search,
)
from clouds_tf.evaluation.settings import Settings
from clouds_tf.messages import aligned
from clouds_tf.prediction import engine, ensemble
from clouds_tf.prediction.likeness import Likeness
from clouds_tf.prediction.postprocessing import Postprocessing, write_postprocessing
from clouds_tf.progress import Progress

_CHOSEN_EPOCH = (
    "The best epoch of each run was chosen on its own held-out fold, so all three scores are "
    "slightly optimistic; only images that influenced no choice give an unbiased score."
)

_PRESENCE = "Share of images with a mask if and only if the class is present, cross-fitted:"


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """Rules, calibration and scores of held-out predictions of N images; prints as a report.

    Attributes:
        output: the postprocessing.json that was written.
        dataset: the Dataset of the records.
        folds: the predicted folds.
        settings: the Settings of the evaluation.
        search: rules and scores.
        areas: calibration and areas.
        remarks: caveats for readers of the scores.
        rungs: the ladder; empty unless requested.
        member_weights: weights of the models in the average; empty if all are equal.
        likeness: distribution of the images.
    """

    output: str
    dataset: Dataset
    folds: tuple[int, ...]
    settings: Settings
    search: SearchResult
    areas: AreaResult
    remarks: tuple[str, ...]
    rungs: tuple[Rung, ...] = ()
    member_weights: tuple[float, ...] = ()
    likeness: Likeness | None = None

    @property
    def num_images(self) -> int:
        """Number of images N."""
        return len(self.areas.true)

    @functools.cached_property
    def area_biases(self) -> dict[str, tuple[Bias, ...]]:
        """Cross-fitted bias of the areas of each class, by method of prediction."""
        ways = {
            "tuned_masks": self.search.areas,
            "unbiased_masks": self.areas.unbiased_masks,
            "expected_area": self.areas.expected,
        }
        true = np.tile(self.areas.true, len(ways))
        biases = iter(area_biases(np.hstack(list(ways.values())), true))
        return {
            name: tuple(itertools.islice(biases, areas.shape[1])) for name, areas in ways.items()
        }

    def postprocessing(self, models: tuple[str, ...], records: Records) -> Postprocessing:
        """The contents of postprocessing.json, for models that were evaluated on records."""
        return Postprocessing(
            self.search.rules,
            self.settings.test_time_augmentation,
            models,
            records.identity,
            self.areas.calibration,
            _report(self),
            self.member_weights,
            self.likeness,
        )

    def __repr__(self) -> str:
        return (
            f"EvaluationResult({self.num_images} images, cross-fitted Dice "
            f"{self.search.cross_fitted.mean():.4f}, {self.output})"
        )

    def __str__(self) -> str:
        names = self.dataset.class_names
        table = score.table(self.search.scores, names, "cross_fitted", baseline="all_blank")
        accuracy = score.table({"accuracy": self.search.presence_accuracy}, names, "accuracy")
        parts = [table, f"{_PRESENCE}\n{accuracy}", _area_table(self.area_biases, names)]
        if self.rungs:
            parts.append(ladder_text(self.rungs, names))
        return "\n\n".join([*parts, "\n".join(self.remarks)])


def _area_table(biases: dict[str, tuple[Bias, ...]], names: Sequence[str]) -> str:
    """Formats the biases of areas, a line per class."""
    header = ["", *(way.replace("_", " ") for way in biases)]
    rows = [[name, *map(str, of_class)] for name, *of_class in zip(names, *biases.values())]
    title = "Bias of predicted areas, cross-fitted, with its 95 % interval:"
    return f"{title}\n{aligned([header, *rows])}"


def evaluate(
    records_dir: str,
    workdirs: Sequence[str] = (),
    output: str = "postprocessing.json",
    *,
    weights: Sequence[str] = (),
    folds: Optional[Sequence[int]] = None,
    member_weights: Sequence[float] = (),
    settings: Settings = Settings(),
    ladder_csv: Optional[str] = None,
    pictures_dir: Optional[str] = None,
    out_of_fold_table: Optional[str] = None,
    out_of_fold_maps: Optional[str] = None,
    progress: Progress | bool = True,
) -> EvaluationResult:
    """Tunes post-processing and calibration on held-out images, and scores them.

    Every image is predicted by the mean of the models that held its fold out. Rules and calibration
    are tuned on all these images, and scored by cross-fitting.

    Args:
        records_dir: the folder of shards that the models were trained on.
        workdirs: workdirs of `train`; models of the same fold are averaged.
        output: the postprocessing.json to write.
        weights: .safetensors files of whole models, which are averaged, instead of workdirs.
        folds: the folds to predict with `weights`, which must have held them out; default: all.
        member_weights: the weight of each workdir or file in the average; equal by default.
        settings: settings of the prediction, and the seed of cross-fitting.
        ladder_csv: CSV to write with the scores without and with flips.
        pictures_dir: folder for pictures of scores, areas and examples.
        out_of_fold_table: Parquet file to write, a row for each image and class.
        out_of_fold_maps: new folder for the probabilities as 8-bit PNG files, at a quarter of the
            size; see `data.soft_targets`.
        progress: called with (done, total) images, for each kind of prediction; True shows a bar
            in a terminal or notebook.

    Raises:
        FileNotFoundError: records, a workdir or weights are missing.
        ValueError: an output cannot be written, an optional package is missing, a model is given
            twice, or models and records do not match; raised before any image is predicted.
    """
    engine.require(settings.engine)
    _check_outputs(output, ladder_csv, pictures_dir)
    out_of_fold.check_outputs(out_of_fold_table, out_of_fold_maps)
    way, models = settings.test_time_augmentation, tuple(weights or workdirs)
    ensemble.check_weights(member_weights, len(models))
    if ladder_csv and "scales" in way:
        raise ValueError(f"ladder: compares predictions at one scale, got {way}")
    records = Records.open(records_dir)
    members, remarks = _load(records, workdirs, weights, folds, settings, member_weights)
    held_out = HeldOut(records, members, settings.batch_size)
    dataset, seed = records.dataset, settings.seed
    if seed and len(members) > 1:
        raise ValueError(f"seed: got {seed}, but it has no effect with several folds")
    if settings.engine == "openvino":
        held_out, reasons = held_out.on_openvino()
        remarks = [*remarks, *reasons]
    counts, asked = {}, (out_of_fold_table, out_of_fold_maps)
    with out_of_fold.recording(records, list(members), *asked) as recorder:
        for name in dict.fromkeys(["none", "flips", way] if ladder_csv else [way]):
            keep = recorder.add if recorder and name == way else None
            counts[name] = held_out.count(name, progress, keep)
        found = search(counts[way], seed)
        if recorder:
            recorder.write(counts[way], found, ", ".join(models))
    areas = calibrate(counts[way], seed)
    rungs = tuple(ladder(counts, seed) if ladder_csv else ())
    remarks = [*_worse_than_blank(found, dataset.class_names), *remarks]
    about = tuple(remarks), rungs, tuple(member_weights), held_out.fit_likeness()
    result = EvaluationResult(output, dataset, tuple(members), settings, found, areas, *about)
    if ladder_csv:
        rows = [rung.cells() for rung in rungs]
        files.write_table(ladder_csv, ladder_columns(dataset.class_names), rows)
    if pictures_dir:
        pictures.write(pictures_dir, held_out, counts[way], found, areas, way)
    write_postprocessing(output, result.postprocessing(models, records), dataset)
    return result


def _check_outputs(output: str, ladder_csv: str | None, pictures_dir: str | None) -> None:
    """Raises ValueError for outputs that cannot be written, before any work."""
    if pictures_dir:
        files.require("matplotlib", "plots", "pictures_dir")
        for name in pictures.NAMES:
            files.check_output(os.path.join(pictures_dir, f"{name}.png"))
    for path in filter(None, (output, ladder_csv)):
        files.check_output(path)


def _load(
    records: Records,
    workdirs: Sequence[str],
    weights: Sequence[str],
    folds: Sequence[int] | None,
    settings: Settings,
    member_weights: Sequence[float],
) -> tuple[dict[int, list[Member]], list[str]]:
    """Loads the models by the fold that they predict, with remarks about them."""
    if bool(workdirs) == bool(weights):
        raise ValueError("workdirs, weights: got both or none, expected one of the two")
    if not weights:
        if folds is not None:
            raise ValueError("folds: only for weights; workdirs know the fold that they held out")
        return load_members(records, workdirs, settings, member_weights), [_CHOSEN_EPOCH]
    num_folds = records.info.num_folds
    folds = range(num_folds) if folds is None else folds
    for fold in folds:
        if not 0 <= fold < num_folds:
            raise ValueError(f"folds: got {fold}, expected 0 to {num_folds - 1}")
    folds = sorted(set(folds))
    files.check_distinct(weights)
    loaded = [
        load_weights(path, settings, weight)
        for path, weight in zip(weights, member_weights or [1.0] * len(weights))
    ]
    remarks = [
        _check_metadata(path, metadata, records, folds)
        for path, (_, metadata) in zip(weights, loaded)
    ]
    by_fold = {fold: [member for some, _ in loaded for member in some] for fold in folds}
    return by_fold, list(dict.fromkeys(remarks))


def _check_metadata(
    path: str, metadata: dict[str, Any], records: Records, folds: Sequence[int]
) -> str:
    """Raises ValueError for weights of other classes or folds; returns a remark on the scores."""
    names = metadata.get("class_names") or metadata.get("dataset", {}).get("class_names")
    expected = list(records.dataset.class_names)
    if names is not None and list(names) != expected:
        raise ValueError(f"{path}: for the classes {list(names)}, the records have {expected}")
    for name in ("channels", "exclusive"):
        default = getattr(Dataset, name)
        got = metadata["model"].get(name, default)
        if got != getattr(records.dataset, name):
            raise ValueError(
                f"{path}: for a data set with {name}={got}, the records have "
                f"{name}={getattr(records.dataset, name)}"
            )
    if metadata.get("records") != records.identity:
        return (
            "The weights do not say that they were trained without these images: if they were not, "
            "the scores are too good."
        )
    seen = sorted(set(folds) - {metadata.get("fold")})
    if seen:
        raise ValueError(
            f"{path}: was trained on the folds {seen} of these records, expected only the fold "
            f"{metadata.get('fold')} that it held out"
        )
    return _CHOSEN_EPOCH


def _worse_than_blank(found: SearchResult, class_names: Sequence[str]) -> list[str]:
    """Remarks on classes, or their mean, that score below blank masks."""
    ours, blank = score.class_means(found.cross_fitted), score.class_means(found.all_blank)
    return [
        f"{name}: the cross-fitted Dice {mine:.4f} is below the {theirs:.4f} of blank masks: "
        "predicting nothing would score higher."
        for name, mine, theirs in zip((*class_names, "Mean"), ours, blank)
        if mine < theirs - 1e-9  # rounding
    ]


def _report(result: EvaluationResult) -> dict[str, Any]:
    """Further contents of postprocessing.json, for readers."""
    names, found, areas = result.dataset.class_names, result.search, result.areas

    def by_class(numbers: Iterable[float]) -> dict[str, float | None]:
        finite = [round(float(x), 4) if math.isfinite(x) else None for x in numbers]
        return dict(zip((*names, "mean"), finite))

    def interval(scores: np.ndarray) -> list[dict[str, float | None]]:
        return [by_class(end) for end in score.intervals(scores)]

    means = {name: score.class_means(values) for name, values in found.scores.items()}
    gain = {name: by_class(values - means["all_blank"]) for name, values in means.items()}
    gain.pop("all_blank")
    biases = {
        way: {
            name: [None if math.isnan(x) else round(x, 4) for x in (b.value, b.low, b.high)]
            for name, b in zip(names, some)
        }
        for way, some in result.area_biases.items()
    }
    return {
        "metric": "competition Dice",
        "scores": {name: by_class(values) for name, values in means.items()},
        "gain_over_all_blank": gain,
        "interval_of_cross_fitted": interval(found.cross_fitted),
        "presence_accuracy": by_class(score.class_means(found.presence_accuracy)),
        "interval_of_presence_accuracy": interval(found.presence_accuracy),
        "area_bias": biases,
        "unbiased_thresholds": by_class(areas.thresholds),
        "log_loss": {name: by_class(values) for name, values in areas.log_losses.items()},
        "num_images": result.num_images,
        "folds": list(result.folds),
        "remarks": list(result.remarks),
    }
