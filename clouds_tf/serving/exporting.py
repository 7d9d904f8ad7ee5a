"""Exports trained models to one SavedModel, and checks it against them."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import sample_data
from clouds_tf.data.records import Records
from clouds_tf.dataset import Dataset
from clouds_tf.lazy import uncollected
from clouds_tf.prediction import ensemble
from clouds_tf.prediction.engine import as_network
from clouds_tf.prediction.metadata import Metadata, read_metadata
from clouds_tf.prediction.postprocessing import Postprocessing, plain_rules, read_postprocessing
from clouds_tf.prediction.predictor import Predictor
from clouds_tf.prediction.untrusted import MAX_IMAGE_PIXELS
from clouds_tf.serving import integrity
from clouds_tf.serving import onnx as onnx_files
from clouds_tf.serving import parity, tf_serving
from clouds_tf.serving.cloud_model import CloudModel, write_version
from clouds_tf.serving.members import Member, find_mismatches, read_members, tuned_weights
from clouds_tf.training import distribution
from clouds_tf.training.workdir import Run

_BATCH_SIZE = 4  # of the check


@dataclasses.dataclass(frozen=True)
class ExportResult:
    """Result of `export`.

    Attributes:
        path: folder of the SavedModel.
        num_models: number of models that it averages.
        test_time_augmentation: one of `ensemble.AUGMENTATIONS`.
        difference: difference between its outputs and those of the trained models.
        has_warmup: whether it has warm-up requests for TensorFlow Serving.
        warnings: warnings of possible mistakes.
        onnx_difference: largest difference of a probability between the ONNX file and the trained
            models; None if no ONNX file was written.
        manifest: file of the checksums of the SavedModel, see `integrity.write`.
    """

    path: str
    num_models: int
    test_time_augmentation: str
    difference: parity.Difference
    has_warmup: bool
    warnings: tuple[str, ...] = ()
    onnx_difference: float | None = None
    manifest: str = ""


def export(
    workdirs: Sequence[str] = (),
    export_dir: str = "export",
    *,
    weights: Sequence[str] = (),
    postprocessing: str | None = None,
    test_time_augmentation: str | None = None,
    member_weights: Sequence[float] = (),
    precision: str = "float32",
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    records_dir: str | None = None,
    check_images: int = 16,
    onnx: str | None = None,
) -> ExportResult:
    """Writes a SavedModel of one or several trained models, and side files for servers.

    Args:
        workdirs: folders of training runs; leave empty if `weights` are given.
        weights: .safetensors files of whole models, see `models.weights.save_model_weights`.
        export_dir: folder of all versions; the SavedModel gets a new numbered folder in it.
        postprocessing: postprocessing.json of `evaluate`; None uses a threshold of 0.5.
        test_time_augmentation: one of `ensemble.AUGMENTATIONS`; None uses the one that the rules
            were tuned with.
        member_weights: the weight of each model in the average; by default those that the rules
            were tuned with, otherwise equal ones.
        precision: numeric precision of the SavedModel: "float32", "bfloat16" or "float16".
        max_image_pixels: larger images are refused before they are decoded.
        records_dir: records whose held-out images are used for the check; None uses synthetic
            images.
        check_images: number of images for the check.
        onnx: ONNX file to write as well, see `onnx.write`; always in float32.

    Raises:
        FileNotFoundError: there is no such run, file of weights, or post-processing.
        ValueError: an argument is wrong, models and post-processing do not match, an output cannot
            be written, an ONNX file is requested for models with several image sizes, or an export
            differs too much from the trained models. Then nothing is left behind.
    """
    if check_images < 1:
        raise ValueError(f"check_images: got {check_images}, expected at least 1")
    files.check_loadable(export_dir)
    members = read_members(workdirs, weights)
    dataset = members[0].dataset
    tuned = Postprocessing(plain_rules(dataset.num_classes))
    if postprocessing is not None:
        tuned = read_postprocessing(postprocessing, dataset)
    way = test_time_augmentation or tuned.test_time_augmentation or "none"
    ensemble.check_weights(member_weights, len(members))
    member_weights = tuple(member_weights) or tuned_weights(members, tuned)
    found = find_mismatches(members, tuned, way, member_weights)
    warnings = [f"{postprocessing}: {text}" for text in found]
    metadata = _metadata(members, tuned, way, member_weights, max_image_pixels)
    if onnx is not None:
        onnx_files.require(onnx, metadata.image_sizes)
    batches = _check_batches(members, records_dir, check_images)
    files.check_output(os.path.join(export_dir, "models.config"))

    trained = _load(members, way, "float32")
    loaded = trained if precision == "float32" else _load(members, way, precision)
    model = _build(loaded, metadata, precision)
    checked, sums = [], {}

    def finish(path: str) -> None:
        predict = Predictor.open(path).functions["from_pixels"]
        before = model.stages.of(list(map(as_network, trained, metadata.image_sizes)))
        with uncollected():
            difference = parity.compare(before.serve_pixels, predict, batches, dataset)
        parity.require_parity(difference, precision)
        has_warmup, error = _write_warmup(path, dataset), None
        if onnx is not None:
            exact = model if precision == "float32" else _build(trained, metadata, "float32")
            images = (images for images, _ in batches)
            error = onnx_files.write(onnx, exact.networks, read_metadata(path), images)
        checked.append((difference, has_warmup, tuple(warnings), error))
        sums.update(integrity.checksums(path))

    path = write_version(model, export_dir, finish)
    tf_serving.write_config(export_dir)
    return ExportResult(path, len(members), way, *checked[0], integrity.write(path, sums))


@uncollected()
def _load(members: Sequence[Member], way: str, precision: str) -> list[Any]:
    """A Keras model for each network; a member that sees several sizes occurs several times."""
    with distribution.precision(precision):
        loaded = ([member.load()] * len(_sizes(member, way)) for member in members)
        return list(itertools.chain.from_iterable(loaded))


@uncollected()
def _build(models: Sequence[Any], metadata: Metadata, precision: str) -> CloudModel:
    with distribution.precision(precision):
        return CloudModel(models, metadata)


def _sizes(member: Member, way: str) -> list[tuple[int, int]]:
    return ensemble.input_sizes(member.image_size, way)


def _metadata(
    members: Sequence[Member],
    tuned: Postprocessing,
    way: str,
    member_weights: Sequence[float],
    max_image_pixels: int,
) -> Metadata:
    """Metadata of a SavedModel; a member that sees several sizes is several networks."""
    sizes = [_sizes(member, way) for member in members]
    shares = [w / len(some) for some, w in zip(sizes, member_weights) for _ in some]
    return Metadata(
        members[0].dataset,
        tuple(itertools.chain.from_iterable(sizes)),
        tuned.rules,
        way,
        max_image_pixels,
        tuned.calibration,
        tuple(member.training for member in members),
        member_weights=tuple(shares),
        likeness=tuned.likeness,
    )


def _write_warmup(path: str, dataset: Dataset) -> bool:
    """Writes warm-up requests if the package for them is installed; returns whether it did."""
    image = sample_data.render_images(1, dataset.submission_size, dataset=dataset)[0][0]
    try:
        tf_serving.write_warmup(path, image)
    except ImportError:
        return False
    return True


def _check_batches(
    members: Sequence[Member], records_dir: str | None, num_images: int
) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
    """Batches of images and masks, from the fold that the first model held out, or synthetic.

    They can be iterated more than once.
    """
    dataset, starts = members[0].dataset, range(0, num_images, _BATCH_SIZE)
    if records_dir is None:
        images, masks = sample_data.render_images(
            num_images, dataset.submission_size, dataset=dataset
        )
        return [(images[i : i + _BATCH_SIZE], masks[i : i + _BATCH_SIZE]) for i in starts]
    if "fold" not in members[0].training:
        raise ValueError(f"records_dir: {members[0].path} does not name the fold that it held out")
    records = Records.open(records_dir)
    for member in members:
        if "records" in member.training:
            Run.open(member.path).check_records(records)
    batches = records.held_out_batches(
        [members[0].training["fold"]], dataset.submission_size, _BATCH_SIZE
    )
    return batches.take(len(starts))
