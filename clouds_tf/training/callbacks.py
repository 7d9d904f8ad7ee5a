"""Callbacks, which receive the numbers and pictures of a run while it trains, and may stop it.

Only the chief calls them; if one of them stops the run, all workers stop.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
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


class _OfFunction(Callback):
    """Calls a function of (run, row) at the end of every epoch."""

    def __init__(self, function: Callable[[Run, Row], Optional[bool]]) -> None:
        self._function = function

    def on_epoch_end(self, run: Run, row: Row) -> Optional[bool]:
        """Calls the function."""
        return self._function(run, row)


class TensorBoard(Callback):
    """Writes the numbers and pictures of every epoch to W/tensorboard/."""

    def on_start(self, run: Run, step: int) -> None:
        """Opens the files."""
        folder = os.path.join(run.path, "tensorboard")
        self._writers = {
            name: tf.summary.create_file_writer(os.path.join(folder, name))
            for name in ("training", "held_out")
        }

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """Writes each number."""
        for name, value in row.items():
            held_out = name.startswith("val_")
            writer = self._writers["held_out" if held_out else "training"]
            with writer.as_default(int(row["epoch"])):
                tf.summary.scalar(name[len("val_") :] if held_out else name, value)

    def on_picture(self, run: Run, epoch: int, pixels: np.ndarray) -> None:
        """Writes the picture."""
        with self._writers["held_out"].as_default(epoch):
            tf.summary.image("predictions", pixels[None])

    def on_end(self, run: Run) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()


class StepsCsv(Callback):
    """Writes the loss of every step to W/steps.csv."""

    def on_start(self, run: Run, step: int) -> None:
        """Opens the file, and removes steps that will be repeated."""
        path = os.path.join(run.path, "steps.csv")
        kept: list[list[str]] = []
        if gfile.exists(path):
            rows = list(csv.reader(files.read_text(path).splitlines()))[1:]
            kept = [row for row in rows if row and int(row[0]) <= step]
        files.write_table(path, ["step", "loss"], kept)
        self._file = tf.io.gfile.GFile(path, "a")

    def on_step(self, run: Run, step: int, loss: float) -> None:
        """Writes a row."""
        self._file.write(f"{step},{loss!r}\n")

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """Flushes the rows of the epoch."""
        self._file.flush()

    def on_end(self, run: Run) -> None:
        """Closes the file."""
        self._file.close()


def _run_name(run: Run) -> str:
    """Name of a run in an external system: the name of its workdir."""
    return os.path.basename(os.path.normpath(run.path))


def _id_path(run: Run, system: str) -> str:
    return os.path.join(run.path, f"{system}_id.txt")


def _read_id(run: Run, system: str) -> Optional[str]:
    """Id of a run in an external system, as its workdir stores it; None before the first start."""
    path = _id_path(run, system)
    return files.read_text(path).strip() if gfile.exists(path) else None


def _write_id(run: Run, system: str, value: str) -> None:
    """Stores the id of a run in an external system in its workdir."""
    files.write_text(_id_path(run, system), value + "\n")


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
        """Starts a run of Weights & Biases, or continues it."""
        import wandb

        run_id = _read_id(run, "wandb")
        if not run_id:
            run_id = uuid.uuid4().hex
            _write_id(run, "wandb", run_id)
        self._wandb = wandb
        self._run = wandb.init(
            id=run_id,
            resume="allow",
            dir=run.path,
            name=_run_name(run),
            config=run.to_json(),
            allow_val_change=True,  # a resumed run may have more epochs
            **self._settings,
        )

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """Sends the numbers."""
        self._run.log(dict(row), step=int(row["epoch"]))

    def on_picture(self, run: Run, epoch: int, pixels: np.ndarray) -> None:
        """Sends the picture."""
        self._run.log({"predictions": self._wandb.Image(pixels)}, step=epoch)

    def on_end(self, run: Run) -> None:
        """Ends the run of Weights & Biases."""
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
        """Starts a run of MLflow, or continues it."""
        import mlflow

        self._mlflow = mlflow
        mlflow.set_experiment(self._experiment)
        run_id = _read_id(run, "mlflow")
        if run_id:  # its parameters stay: MLflow refuses a second value, such as more epochs
            mlflow.start_run(run_id=run_id)
            return
        started = mlflow.start_run(run_name=_run_name(run))
        _write_id(run, "mlflow", started.info.run_id)
        mlflow.log_params({k: json.dumps(v)[:500] for k, v in run.recipe.to_json().items()})

    def on_epoch_end(self, run: Run, row: Row) -> None:
        """Sends the numbers."""
        self._mlflow.log_metrics(dict(row), step=int(row["epoch"]))

    def on_end(self, run: Run) -> None:
        """Ends the run of MLflow."""
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
        return _OfFunction(given)
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
