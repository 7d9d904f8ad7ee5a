"""The folder of one training run: its settings and its history."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from typing import Any, Mapping, Sequence

from clouds_tf import files, gfile
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.training.checkpoints import restore_best
from clouds_tf.training.recipe import Recipe

SETTINGS_FILE = "settings.json"
HISTORY_FILE = "history.csv"
_LOCKS = re.compile(r"\.?lock|alone-.*\.lease")  # of this and of earlier versions

History = Sequence["dict[str, float]"]


@dataclasses.dataclass(frozen=True)
class Run:
    """Identity of a training run: its recipe and its data.

    Attributes:
        path: the workdir.
        recipe: all settings of the training.
        dataset: the data set that the records hold.
        fold: the held-out fold.
        records: fingerprint of the records.
        code: checksums of the user's functions and files in the recipe, see `Recipe.code`.
    """

    path: str
    recipe: Recipe
    dataset: Dataset
    fold: int
    records: str
    code: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, workdir: str) -> Run:
        """Reads the settings of the run in a workdir, as this or an earlier version wrote them.

        Raises:
            FileNotFoundError: the folder does not hold a run.
            ValueError: settings.json is damaged, or not that of a training run.
        """
        path = os.path.join(workdir, SETTINGS_FILE)
        try:
            settings = files.parse_json(files.read_text(path))
        except ValueError as error:
            raise ValueError(f"{path}: damaged, not valid JSON ({error})") from None
        if not isinstance(settings, dict):
            raise ValueError(f"{path}: not the settings of a training run")
        try:
            # Version 0.1 had one data set, which it did not record, and the arguments of `unet` in
            # "model".
            fields = {**settings, **settings.get("model", {})}
            dataset = Dataset.from_json(settings["dataset"]) if "dataset" in settings else CLOUDS
            recipe = Recipe.from_json(fields)
            fold, records = int(settings["fold"]), str(settings["records"])
            return cls(workdir, recipe, dataset, fold, records, settings.get("code", {}))
        except KeyError as error:
            raise ValueError(f"{path}: lacks {error}, so it is not of a training run") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not the settings of a training run: {error}") from None

    @property
    def history(self) -> list[dict[str, float]]:
        """One dict of numbers per finished epoch; see `read_history`."""
        return read_history(self.path)

    def load_model(self) -> Any:
        """Loads the model of the best epoch.

        Returns:
            A keras.Model of `unet`, from images to a dict of logits. It computes in the global
            precision policy of Keras, which is float32 by default.

        Raises:
            FileNotFoundError: no epoch has ended.
            ValueError: the checkpoint is damaged.
        """
        from clouds_tf.models.unet import unet  # which needs Keras

        model = unet(**self.dataset.model_arguments(), **self.recipe.model_arguments())
        restore_best(model, self.path)
        return model

    def check_records(self, records: Records) -> None:
        """Checks that the run was trained on the given records.

        Raises:
            ValueError: it was trained on others, so it may have seen their held-out images.
        """
        if records.identity != self.records:
            raise ValueError(
                f"{self.path}: trained on records with the fingerprint {self.records}, but "
                f"{records.path} has {records.identity}, so it may have seen their held-out images"
            )

    def to_json(self) -> dict[str, Any]:
        """The content of settings.json, which `Run.open` reads."""
        data = {"dataset": self.dataset.to_json(), "fold": self.fold, "records": self.records}
        return {**self.recipe.to_json(), **data, **({"code": self.code} if self.code else {})}


def check_startable(run: Run) -> None:
    """Checks that a run can start, or resume, in its workdir; writes nothing.

    Raises:
        ValueError: the folder holds other files, or a run with other settings, which are named;
            only `patience` may differ, and `epochs`, down to the number of finished ones.
    """
    files.check_loadable(run.path)
    path = os.path.join(run.path, SETTINGS_FILE)
    if gfile.exists(path):
        earlier, now = Run.open(run.path).to_json(), run.to_json()
        finished = len(read_history(run.path))
        _check_code(run, earlier.get("code", {}))
        for key in sorted({*now} - {"dataset", "code"}):  # the fingerprint covers the data set
            longer = key == "epochs" and now[key] >= max(1, finished)
            if earlier[key] == now[key] or longer or key == "patience":
                continue
            advice = f"at least {finished} epochs" if key == "epochs" else "the same settings"
            raise ValueError(
                f"workdir: {run.path} holds a run with {key}={earlier[key]}, got {key}={now[key]}; "
                f"use {advice} to resume it, or a new workdir"
            )
    elif gfile.exists(run.path):
        names = gfile.listdir(run.path)
        if any(not _LOCKS.fullmatch(x) and not files.is_unfinished(x) for x in names):
            raise ValueError(
                f"workdir: {run.path} has files, but no run to resume ({SETTINGS_FILE} is missing)"
            )


def _check_code(run: Run, earlier: Mapping[str, str]) -> None:
    """Raises ValueError if functions or files of the user have changed since the run started."""
    changed = [x for x, code in run.code.items() if code and earlier.get(x) not in (None, "", code)]
    if changed:
        raise ValueError(
            f"workdir: {run.path} holds a run in which {', '.join(changed)} had other source code "
            "or content; restore it to resume, or use a new workdir"
        )


def start(run: Run) -> None:
    """Creates the workdir of a run, unless it exists.

    Raises:
        ValueError: as `check_startable` does.
    """
    check_startable(run)
    text = json.dumps(run.to_json(), indent=1) + "\n"
    files.write_text(os.path.join(run.path, SETTINGS_FILE), text)


def pack_weights(workdir: str, path: str, kernels: str = "float16") -> None:
    """Writes the model of the best epoch to one file of weights, for sharing.

    Args:
        workdir: the folder of a run.
        path: the .safetensors file to write. It also stores the arguments of `unet`, the data set,
            the image size, the recipe, the held-out fold and the fingerprint of the records.
        kernels: "float16", or "int8" for half of the size; see `models.packing.packed`.

    Raises:
        FileNotFoundError, ValueError: as `Run.load_model`, or the path has another ending.
    """
    from clouds_tf.models.weights import save_model_weights  # which needs Keras

    run = Run.open(workdir)
    model = run.load_model()
    metadata = {
        "training": run.recipe.to_json(),
        "fold": run.fold,
        "records": run.records,
    }
    size = run.recipe.image_size
    save_model_weights(
        model, path, metadata, dataset=run.dataset, image_size=size, kernels=kernels
    )


def read_history(workdir: str) -> list[dict[str, float]]:
    """Reads history.csv: a dict of numbers per finished epoch; none if there is no file.

    Raises:
        ValueError: the file is damaged; the message names the line.
    """
    path = os.path.join(workdir, HISTORY_FILE)
    if not gfile.exists(path):
        return []
    history: list[dict[str, float]] = []
    for row in csv.DictReader(io.StringIO(files.read_text(path))):
        try:
            values = {key: float(value) for key, value in row.items() if value != ""}
        except (TypeError, ValueError, AttributeError):
            values = {}
        if values.get("epoch") != len(history) + 1 or "val_dice" not in values:
            raise ValueError(
                f"{path}, line {len(history) + 2}: damaged, expected the numbers of epoch "
                f"{len(history) + 1}; restore the file, or start again in a new workdir"
            )
        history.append(values)
    return history


def write_history(workdir: str, history: History) -> None:
    """Writes history.csv, which `read_history` reads."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    rows = [{**row, "epoch": int(row["epoch"])} for row in history]
    cells = [[row.get(column, "") for column in columns] for row in rows]
    files.write_table(os.path.join(workdir, HISTORY_FILE), columns, cells)
