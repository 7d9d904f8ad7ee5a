"""Loads the models that held out each fold, for inference."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Sequence
from typing import Any

from clouds_tf import files
from clouds_tf.data.records import Records
from clouds_tf.dataset import Dataset
from clouds_tf.keras import Model
from clouds_tf.models import weights as model_weights
from clouds_tf.prediction import engine
from clouds_tf.prediction.engine import Network, as_network
from clouds_tf.prediction.fusing import fuse
from clouds_tf.training import distribution
from clouds_tf.training.workdir import Run


@dataclasses.dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    Attributes:
        network: the model with batch norm fused, as a Network of either engine.
        image_size: (height, width) of the images that it takes.
    """

    network: Network
    image_size: tuple[int, int]


def load_members(
    records: Records, workdirs: Sequence[str], precision: str = "float32"
) -> dict[int, list[Member]]:
    """Loads the models of workdirs, by the fold that each held out.

    Args:
        records: the records that the workdirs were trained on.
        workdirs: workdirs of `train`.
        precision: "float32", "bfloat16" or "float16", of the computation.

    Returns:
        A dict of fold -> Members, with batch norm fused as in serving, in the order of the folds.

    Raises:
        FileNotFoundError: a workdir without a run.
        ValueError: a workdir was trained on other records or is given twice.
    """
    if not workdirs:
        raise ValueError("workdirs: got none, expected at least one workdir of train")
    files.check_distinct(workdirs)
    runs = [Run.open(folder) for folder in workdirs]
    for run in runs:
        run.check_records(records)
    by_fold: dict[int, list[Member]] = {}
    with distribution.precision(precision):
        for run in runs:
            member = _member(run.load_model(), run.recipe.image_size)
            by_fold.setdefault(run.fold, []).append(member)
    return dict(sorted(by_fold.items()))


def load_weights(path: str, precision: str = "float32") -> tuple[Member, dict[str, Any]]:
    """Loads the model of a .safetensors file.

    Args:
        path: a file of `save_model_weights`, whose metadata has the image size.
        precision: as `load_members` takes it.

    Returns:
        The Member, and the metadata of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is altered, of another kind, or does not say for which image size it is.
    """
    with distribution.precision(precision):
        model, metadata = model_weights.load_model(path)
    size = metadata.get("image_size")
    if size is None:
        raise ValueError(f"{path}: its metadata has no image_size, (height, width) of the input")
    return _member(model, (int(size[0]), int(size[1]))), metadata


def _member(model: Model, image_size: tuple[int, int]) -> Member:
    return Member(as_network(fuse(model), image_size), image_size)


def on_openvino(
    by_fold: dict[int, list[Member]], dataset: Dataset
) -> tuple[dict[int, list[Member]], list[str]]:
    """Converts the networks of members to OpenVINO.

    Args:
        by_fold: members that TensorFlow computes.
        dataset: the Dataset of the records.

    Returns:
        The members with their networks converted, and no remark; or, where OpenVINO cannot take
        the place of TensorFlow, the members as they are, and a remark that says why.
    """
    networks: dict[Network, Network] = {}  # a member may predict several folds
    with tempfile.TemporaryDirectory() as folder:
        for member in itertools.chain.from_iterable(by_fold.values()):
            if member.network not in networks:
                path = os.path.join(folder, f"{len(networks)}.xml")
                try:
                    converted = engine.convert(member.network, member.image_size, dataset, path)
                except engine.UnusableError as error:
                    return by_fold, [f"OpenVINO {error}; TensorFlow computed instead."]
                networks[member.network] = converted
    return {
        fold: [dataclasses.replace(member, network=networks[member.network]) for member in members]
        for fold, members in by_fold.items()
    }, []
