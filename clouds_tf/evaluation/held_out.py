"""Held-out images and the models that predict them."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from clouds_tf import files
from clouds_tf.data.records import Records
from clouds_tf.evaluation.counts import Counts, count_pixels
from clouds_tf.evaluation.settings import Settings
from clouds_tf.keras import Model
from clouds_tf.models import weights as model_weights
from clouds_tf.models.probabilities import for_masks
from clouds_tf.prediction import engine
from clouds_tf.prediction.engine import Network, as_network
from clouds_tf.prediction.ensemble import input_sizes, mean_prediction
from clouds_tf.prediction.fusing import fuse
from clouds_tf.prediction.likeness import Likeness, statistics
from clouds_tf.progress import Progress, shown
from clouds_tf.training import distribution
from clouds_tf.training.workdir import Run


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    Attributes:
        network: the model with batch norm fused, as a Network of either engine.
        image_size: (height, width) of its input.
        weight: its weight in the average.
    """

    network: Network
    image_size: tuple[int, int]
    weight: float = 1.0


def load_members(
    records: Records,
    workdirs: Sequence[str],
    settings: Settings = Settings(),
    member_weights: Sequence[float] = (),
) -> dict[int, list[Member]]:
    """Loads the models of workdirs, by the fold that each held out.

    Args:
        records: the records that the workdirs were trained on.
        workdirs: workdirs of `train`.
        settings: precision and test-time augmentation; with "scales", each model becomes a Member
            for each size.
        member_weights: the weight of each workdir; by default, all are equal.

    Returns:
        A dict of fold -> Members, with batch norm fused as in serving, in the order of the folds.

    Raises:
        FileNotFoundError: there is no run in a workdir.
        ValueError: a workdir was trained on other records or is given twice.
    """
    if not workdirs:
        raise ValueError("workdirs: got none, expected at least one workdir of train")
    files.check_distinct(workdirs)
    runs = [Run.open(folder) for folder in workdirs]
    for run in runs:
        run.check_records(records)
    by_fold: dict[int, list[Member]] = {}
    with distribution.precision(settings.precision):
        for run, weight in zip(runs, member_weights or [1.0] * len(runs)):
            members = _members(run.load_model(), run.recipe.image_size, settings, weight)
            by_fold.setdefault(run.fold, []).extend(members)
    return dict(sorted(by_fold.items()))


def load_weights(
    path: str, settings: Settings, weight: float = 1.0
) -> tuple[list[Member], dict[str, Any]]:
    """Loads the model of a .safetensors file.

    Args:
        path: a file of `save_model_weights`, whose metadata has the image size.
        settings: see `load_members`.
        weight: weight of the model in the average.

    Returns:
        The Members, one for each size, and the metadata of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is altered, another kind of file, or lacks the image size.
    """
    with distribution.precision(settings.precision):
        model, metadata = model_weights.load_model(path)
    size = metadata.get("image_size")
    if size is None:
        raise ValueError(f"{path}: its metadata has no image_size, (height, width) of the input")
    return _members(model, (int(size[0]), int(size[1])), settings, weight), metadata


def _members(
    model: Model, image_size: tuple[int, int], settings: Settings, weight: float
) -> list[Member]:
    fused, sizes = fuse(model), input_sizes(image_size, settings.test_time_augmentation)
    return [Member(as_network(fused, size), size, weight / len(sizes)) for size in sizes]


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Held-out images of records, and the models that predict them.

    Attributes:
        records: the records that the models were trained on.
        members: the models that predict each fold, see `load_members`.
        batch_size: images in a batch.
    """

    records: Records
    members: dict[int, list[Member]]
    batch_size: int = 16

    def on_openvino(self) -> tuple[HeldOut, list[str]]:
        """Converts the networks to OpenVINO.

        Returns:
            A copy with converted networks, and no remark; or, if OpenVINO cannot replace
            TensorFlow, itself, and a remark with the reason.
        """
        networks: dict[Network, Network] = {}  # a member may predict several folds
        with tempfile.TemporaryDirectory() as folder:
            for member in itertools.chain.from_iterable(self.members.values()):
                old, path = member.network, os.path.join(folder, f"{len(networks)}.xml")
                if old in networks:
                    continue
                try:
                    networks[old] = engine.convert(
                        old, member.image_size, self.records.dataset, path
                    )
                except engine.UnusableError as error:
                    return self, [f"OpenVINO {error}; TensorFlow was used instead."]
        converted = {
            fold: [dataclasses.replace(member, network=networks[member.network]) for member in some]
            for fold, some in self.members.items()
        }
        return dataclasses.replace(self, members=converted), []

    def count(
        self,
        test_time_augmentation: str = "none",
        progress: Progress | bool = False,
        keep: Optional[Callable[[tf.Tensor, tf.Tensor], None]] = None,
    ) -> Counts:
        """Predicts each image with the models that were not trained on it, and counts pixels.

        Only pixel counts are kept: 2 kB per image and class, independent of image size.

        Args:
            test_time_augmentation: one of `ensemble.AUGMENTATIONS`.
            progress: called with (done, total) images; True shows a bar.
            keep: called with the masks and probabilities of each batch.

        Returns:
            Counts over all N images, those of the first fold first.

        Raises:
            ValueError: the folds have no images.
        """
        dataset, total = self.records.dataset, self.records.info.count(list(self.members))
        if not total:
            raise ValueError(f"{self.records.path}: no images in the folds {list(self.members)}")
        masks = [None, *dataset.submission_size, dataset.num_classes]
        # Concrete, as TensorFlow would warn of retracing for a new tf.function in each call.
        count = tf.function(count_pixels).get_concrete_function(
            tf.TensorSpec(masks, tf.float32), tf.TensorSpec(masks, tf.uint8)
        )
        arrays: list[np.ndarray] = []  # filled in place, as a concatenation would need twice that
        done, tell = 0, shown(progress, "image")
        for fold in self.members:
            for _, mask, probabilities, presence in self.predict(fold, test_time_augmentation):
                histograms, means = count(for_masks(probabilities, dataset.exclusive), mask)
                of_all = [count(probabilities, mask)[0]] if dataset.exclusive else []
                batch = [histograms, presence, means, np.full(len(mask), fold), *of_all]
                batch = [np.asarray(x) for x in batch]
                arrays = arrays or [np.empty((total, *x.shape[1:]), x.dtype) for x in batch]
                for array, x in zip(arrays, batch):
                    array[done : done + len(x)] = x
                if keep:
                    keep(mask, probabilities)
                done += len(mask)
                tell(done, total)
        return Counts(*arrays)

    def predict(
        self,
        fold: int,
        test_time_augmentation: str = "none",
        places: Optional[Sequence[int]] = None,
    ) -> Iterator[tuple[list[tf.Tensor], tf.Tensor, tf.Tensor, tf.Tensor]]:
        """Predicts the images of one fold by the mean of its M models, in the order of the shards.

        Args:
            fold: the fold to predict.
            test_time_augmentation: one of `ensemble.AUGMENTATIONS`.
            places: images of the fold to predict, counted from 0, as one batch; all by default.

        Yields:
            For every batch: a list of M batches of images uint8 [B, h, w, 3], one for each model;
            the true masks uint8 [B, height, width, C] at the submission size; and the probabilities
            and presence of `mean_prediction`.
        """
        members = self.members[fold]
        streams = [
            self.records.held_out_batches([fold], member.image_size, self.batch_size)
            for member in members
        ]
        batches = tf.data.Dataset.zip(tuple(streams))
        if places is not None:
            wanted = batches.unbatch().enumerate().filter(lambda i, _: tf.reduce_any(i == places))
            batches = wanted.map(lambda _, example: example).batch(len(places))
        for batch in batches:
            images, (mask, *_) = zip(*batch)
            predicted = mean_prediction(
                [member.network for member in members],
                images,
                self.records.dataset.submission_size,
                test_time_augmentation,
                [member.weight for member in members],
            )
            yield list(images), mask, *predicted

    def fit_likeness(self) -> Likeness | None:
        """Fits the likeness, at the size of the first network; None if there is a single image."""
        folds, size = list(self.members), next(iter(self.members.values()))[0].image_size
        if self.records.info.count(folds) < 2:
            return None
        measure = tf.function(statistics, autograph=False, reduce_retracing=True)
        batches = self.records.held_out_batches(folds, size, self.batch_size)
        return Likeness.fit(np.concatenate([measure(images) for images, _ in batches]), size)
