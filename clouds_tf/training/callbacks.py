"""Callbacks, which receive the numbers and pictures of a run while it trains, and may stop it.

Only the chief calls them; if one of them stops the run, all workers stop.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from clouds_tf import files, gfile, own
from clouds_tf.training.workdir import Run

Row = Mapping[str, float]


class Callback:
    """Base class of callbacks; override the methods that you need."""

    def on_start(self, run: Run, step: int) -> None:
        """The run starts or resumes; `step` is the number of steps that are already done."""

    def on_step(self, run: Run, step: int, loss: float) -> Optional[bool]:
        """A step has ended; steps are counted from 1 over all epochs.

        The next step is already running. True stops the run after it, as SIGTERM does: the state
        is saved, and `train` raises SystemExit with status 0.
        """
        return None

    def on_epoch_end(self, run: Run, row: Row) -> Optional[bool]:
        """An epoch has ended, and the best checkpoint is written.

        If the run is killed before the last checkpoint of an epoch, the epoch is repeated, and so
        is this call.

        Args:
            run: the run; `run.load_model()` gives its best model so far.
            row: the row of history.csv.

        Returns:
            True to end the run here; the same call of `train` continues it.
        """
        return None

    def on_picture(self, run: Run, epoch: int, pixels: np.ndarray) -> None:
        """A picture of true and predicted masks was drawn: uint8 [height, width, 3]."""

    def on_end(self, run: Run) -> None:
        """The call of `train` ends, even if it fails or is stopped."""


_METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class TensorBoard(Callback):
    """Writes the numbers and pictures of every epoch to W/tensorboard/."""

    def on_start(self, run: Run, step: int) -> None:
        folder = os.path.join(run.path, "tensorboard")
        self._writers = {
            name: tf.summary.create_file_writer(os.path.join(folder, name))
            for name in ("training", "held_out")
        }

    def on_epoch_end(self, run: Run, row: Row) -> None:
        for name, value in row.items():
            held_out = name.startswith("val_")
            writer = self._writers["held_out" if held_out else "training"]
            with writer.as_default(int(row["epoch"])):
                tf.summary.scalar(name[len("val_") :] if held_out else name, value)

    def on_picture(self, run: Run, epoch: int, pixels: np.ndarray) -> None:
        with self._writers["held_out"].as_default(epoch):
            tf.summary.image("predictions", pixels[None])

    def on_end(self, run: Run) -> None:
        for writer in self._writers.values():
            writer.close()


class StepsCsv(Callback):
    """Writes the loss of every step to W/steps.csv."""

    def on_start(self, run: Run, step: int) -> None:
        # Steps that will be repeated are removed.
        path = os.path.join(run.path, "steps.csv")
        kept: list[list[str]] = []
        if gfile.exists(path):
            rows = list(csv.reader(files.read_text(path).splitlines()))[1:]
            kept = [row for row in rows if row and int(row[0]) <= step]
        files.write_table(path, ["step", "loss"], kept)
        self._file = tf.io.gfile.GFile(path, "a")

    def on_step(self, run: Run, step: int, loss: float) -> None:
        self._file.write(f"{step},{loss!r}\n")

    def on_epoch_end(self, run: Run, row: Row) -> None:
        self._file.flush()

    def on_end(self, run: Run) -> None:
        self._file.close()


def _run_name(run: Run) -> str:
    """Name of a run in an external system: the name of its workdir."""
    return os.path.basename(os.path.normpath(run.path))


def _id_of(run: Run, system: str, start: Callable[[], str]) -> tuple[str, bool]:
    """Id of a run in an external system, which its workdir keeps, and whether it is new.

    `start` makes the id of a new run.
    """
    path = os.path.join(run.path, f"{system}_id.txt")
    known = files.read_text(path).strip() if gfile.exists(path) else ""
    value = known or start()
    if not known:
        files.write_text(path, value + "\n")
    return value, not known


class WeightsAndBiases(Callback):
    """Sends a run to Weights & Biases, or to W/wandb/ with WANDB_MODE=offline.

    Args:
        project: name of the project.
        **settings: further arguments of wandb.init, such as entity or group.
    """

    def __init__(self, project: str = "clouds_tf", **settings: Any) -> None:
        files.require("wandb", "loggers", "callbacks: wandb")
        self._settings = {"project": project, **settings}

    def on_start(self, run: Run, step: int) -> None:
        import wandb

        self._wandb = wandb
        self._run = wandb.init(
            id=_id_of(run, "wandb", lambda: uuid.uuid4().hex)[0],
            resume="allow",
            dir=run.path,
            name=_run_name(run),
            config=run.to_json(),
            allow_val_change=True,  # a resumed run may have more epochs
            **self._settings,
        )

    def on_epoch_end(self, run: Run, row: Row) -> None:
        self._run.log(dict(row), step=int(row["epoch"]))

    def on_picture(self, run: Run, epoch: int, pixels: np.ndarray) -> None:
        self._run.log({"predictions": self._wandb.Image(pixels)}, step=epoch)

    def on_end(self, run: Run) -> None:
        self._run.finish()


class MLflow(Callback):
    """Sends a run to the MLflow server of MLFLOW_TRACKING_URI, or into mlruns/ without one.

    Args:
        experiment: name of the experiment.
    """

    def __init__(self, experiment: str = "clouds_tf") -> None:
        files.require("mlflow", "loggers", "callbacks: mlflow")
        self._experiment = experiment

    def on_start(self, run: Run, step: int) -> None:
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(self._experiment)

        def start() -> str:
            return mlflow.start_run(run_name=_run_name(run)).info.run_id

        run_id, is_new = _id_of(run, "mlflow", start)
        if is_new:
            mlflow.log_params({k: json.dumps(v)[:500] for k, v in run.recipe.to_json().items()})
        else:  # its parameters stay: MLflow refuses a second value, such as more epochs
            mlflow.start_run(run_id=run_id)

    def on_epoch_end(self, run: Run, row: Row) -> None:
        self._mlflow.log_metrics(dict(row), step=int(row["epoch"]))

    def on_end(self, run: Run) -> None:
        self._mlflow.end_run()


CALLBACKS: dict[str, Callable[..., Callback]] = {
    "tensorboard": TensorBoard,
    "csv": StepsCsv,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def make_callback(given: Any) -> Any:
    """Makes a callback from its name, class or function.

    Args:
        given: a key of CALLBACKS; a subclass of Callback, an instance of one, or a function of
            (run, row); or the "module:name" of one of these.

    Raises:
        ValueError: the name is unknown, or the package is missing.
    """
    if isinstance(given, str):
        if given not in CALLBACKS and not own.is_own(given):
            expected = f"one of {', '.join(CALLBACKS)}, or module:name"
            raise ValueError(f"callbacks: got {given!r}, expected {expected}")
        given = CALLBACKS.get(given) or own.find("callbacks", given)
    if inspect.isclass(getattr(given, "func", given)):  # or a functools.partial of one
        given = given()
    if any(hasattr(given, name) for name in _METHODS):
        return given
    if callable(given):
        return types.SimpleNamespace(on_epoch_end=given)
    raise ValueError(f"callbacks: got {given!r}, expected a name, a Callback or a function")


class Callbacks:
    """The callbacks of a run, which are called together; only the chief has any."""

    def __init__(
        self, run: Optional[Run] = None, callbacks: Iterable[Any] = (), chief: bool = True
    ) -> None:
        self._run, self._callbacks = run, list(callbacks) if chief else []
        self._started: list[Any] = []

    def call(self, method: str, *arguments: object) -> bool:
        """Calls a method of all started callbacks; returns whether one of them returned True."""
        answers = []
        for callback in self._callbacks if method == "on_start" else self._started:
            answer = getattr(callback, method, lambda *_: None)  # a method may be left out
            answers.append(answer(self._run, *arguments))
            if method == "on_start":
                self._started.append(callback)
        return True in answers
