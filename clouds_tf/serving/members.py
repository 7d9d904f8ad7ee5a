"""The trained models of an export: workdirs of runs, or files of weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from clouds_tf import files
from clouds_tf.dataset import Dataset
from clouds_tf.models import weights as model_weights
from clouds_tf.models.encoders import find_encoder
from clouds_tf.prediction.postprocessing import Postprocessing
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Member:
    """One trained model.

    Attributes:
        path: its workdir, or its file of weights.
        dataset: the Dataset that it was trained on.
        image_size: (height, width) of its input.
        encoder: name of its encoder.
        training: JSON-like description of its training.
        load: builds the Keras model in the global precision policy.
    """

    path: str
    dataset: Dataset
    image_size: tuple[int, int]
    encoder: str
    training: dict[str, Any] = dataclasses.field(repr=False)
    load: Callable[[], Any] = dataclasses.field(repr=False)


def read_members(workdirs: Sequence[str], weights: Sequence[str]) -> tuple[Member, ...]:
    """Describes the models of workdirs or of files of weights.

    Args:
        workdirs: folders of training runs, if any.
        weights: .safetensors files of `models.weights.save_model_weights`, if any; their metadata
            must have the fields "dataset" and "image_size", and may have "training".

    Raises:
        FileNotFoundError: there is no such run or file.
        ValueError: neither or both are given, one is given twice, they are damaged, or they were
            trained on different data sets.
    """
    if bool(workdirs) == bool(weights):
        raise ValueError("expected either workdirs of training runs or files of weights")
    files.check_distinct([*workdirs, *weights])
    members = [*map(_of_workdir, workdirs), *map(_of_weights, weights)]
    for member in members:
        find_encoder(member.encoder)  # a user's encoder may be missing
    for member in members[1:]:
        if member.dataset != members[0].dataset:
            raise ValueError(
                f"{member.path}: trained on another data set than {members[0].path}: "
                f"{member.dataset}, expected {members[0].dataset}"
            )
    return tuple(members)


def _of_workdir(path: str) -> Member:
    run = workdirs.Run.open(path)
    training = {key: value for key, value in run.to_json().items() if key != "dataset"}
    recipe = run.recipe
    return Member(path, run.dataset, recipe.image_size, recipe.encoder, training, run.load_model)


def _of_weights(path: str) -> Member:
    metadata, _ = model_weights.read_model_weights(path)
    for name in ("dataset", "image_size"):
        if name not in metadata:
            raise ValueError(f"{path}: its metadata lacks {name!r}, so it cannot be exported")
    try:
        dataset = Dataset.from_json(metadata["dataset"])
        height, width = metadata["image_size"]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged metadata: {error}") from None
    model = metadata["model"]
    training = dict(metadata.get("training") or {}, model=model)
    encoder = model.get("encoder", Recipe.encoder)

    def load() -> Any:
        return model_weights.load_model(path)[0]

    return Member(path, dataset, (height, width), encoder, training, load)


def tuned_weights(members: Sequence[Member], postprocessing: Postprocessing) -> tuple[float, ...]:
    """The member weights of the post-processing; none if equal, or if for other models."""
    by_name = dict(zip(map(_name, postprocessing.workdirs), postprocessing.member_weights))
    found = tuple(by_name.get(_name(member.path), 0.0) for member in members)
    return found if all(found) else ()


def _name(path: str) -> str:
    return os.path.basename(os.path.normpath(path))


def _shares(weights: Sequence[float], num_models: int) -> list[float]:
    weights = weights or [1.0] * num_models
    return [round(weight / sum(weights), 6) for weight in weights]


def find_mismatches(
    members: Sequence[Member],
    postprocessing: Postprocessing,
    test_time_augmentation: str,
    member_weights: Sequence[float] = (),
) -> list[str]:
    """Describes differences between these models and those of the post-processing."""
    found = []
    tuned_with = postprocessing.test_time_augmentation
    if tuned_with not in (None, test_time_augmentation):
        found.append(
            f"its rules were tuned with --test_time_augmentation={tuned_with}, got "
            f"{test_time_augmentation}"
        )
    expected = sorted(map(_name, postprocessing.workdirs))
    got = sorted(_name(member.path) for member in members)
    # Files of weights do not name the run that they come from.
    comparable = all("records" in member.training for member in members)
    if expected and comparable and expected != got:
        found.append(f"its rules were tuned with {', '.join(expected)}, got {', '.join(got)}")
    weights, known = postprocessing.member_weights, tuned_weights(members, postprocessing)
    shares = [_shares(some, len(members)) for some in (known, member_weights)]
    if expected and (shares[0] != shares[1] or bool(weights) != bool(known)):
        tuned, now = (",".join(map(str, x)) or "equal ones" for x in (weights, member_weights))
        found.append(f"its rules were tuned with the member weights {tuned}, got {now}")
    for member in members:
        records = member.training.get("records")
        if None not in (records, postprocessing.records) and records != postprocessing.records:
            found.append(
                f"its rules were tuned on records with the fingerprint {postprocessing.records}, "
                f"but {member.path} was trained on {records}"
            )
    return found
