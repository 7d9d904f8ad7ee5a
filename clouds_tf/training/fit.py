"""The training loop: trains, validates, saves, and resumes where the last call stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Optional

import tensorflow as tf

from clouds_tf.data.batching import Position
from clouds_tf.data.records_info import TRIES
from clouds_tf.messages import about_the_data, counted
from clouds_tf.progress import Progress, say, shown
from clouds_tf.training import averaging, distribution
from clouds_tf.training import workdir as workdirs
from clouds_tf.training import workers
from clouds_tf.training.callbacks import Callbacks
from clouds_tf.training.checkpoints import Checkpoints
from clouds_tf.training.distribution import Feed
from clouds_tf.training.progress import Reporter, profiling
from clouds_tf.training.stopping import StopRequest, limited_wait, listening
from clouds_tf.training.trainer import Trainer

# Seconds for which a stopping worker waits for others; clusters announce the end of a machine at
# least 30 seconds before.
_STOP_GRACE = 20.0
_INPUT_ERRORS = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.UnknownError,
    tf.errors.FailedPreconditionError,
)


def fit(
    trainer: Trainer,
    feed: Feed,
    workdir: str,
    profile: bool = False,
    progress: Progress | bool = True,
    report: Callable[[str], None] = say,
    callbacks: Callbacks = Callbacks(),
    keep_best: int = 0,
) -> list[dict[str, float]]:
    """Trains, and resumes where the last call in this workdir ended or was stopped.

    Args:
        trainer: a new Trainer; its recipe has the number of epochs.
        feed: the batches.
        workdir: folder for history.csv, checkpoints/, tensorboard/ and pictures.
        profile: see `Execution`.
        progress: called with (steps done, steps of the whole run); True shows a bar.
        report: called with each line of text for the user.
        callbacks: the callbacks of the run.
        keep_best: see `Execution`.

    Returns:
        The history: a list of dicts, one per epoch, with loss, dice, val_dice and so on.

    Raises:
        ValueError: a loss is not finite, a checkpoint cannot be written (the previous one is
            kept), or files that are needed to resume are missing from the workdir.
        SystemExit: SIGTERM, Ctrl-C or a callback stopped the run, and its state is saved; the
            status is 143, 130 or 0. With a data service, whose batches have no fixed order, the
            epoch is repeated.
    """
    loop = _Loop(trainer, feed, workdir, shown(progress, "step"), report, callbacks, keep_best)
    first_epoch = loop.resume()
    if first_epoch < trainer.recipe.epochs and not trainer.recipe.is_over(loop.history):
        with contextlib.ExitStack() as stack:
            grace = _STOP_GRACE if workers.num_workers(trainer.strategy) > 1 else None
            loop.stop = stack.enter_context(listening(grace))
            loop.begin()
            stack.callback(callbacks.call, "on_end")
            with workers.together(trainer.strategy):
                done = first_epoch * loop.steps + int(trainer.epoch_step.numpy())
                callbacks.call("on_start", done)
            for epoch in range(first_epoch, trainer.recipe.epochs):
                loop.run_epoch(epoch, profile and epoch == first_epoch)
                if loop.is_over:
                    break
        loop.reporter.end(loop.history)
    return loop.history


@dataclasses.dataclass
class _Loop:
    """State shared by the epochs of one call of `fit`, whose arguments it has."""

    trainer: Trainer
    feed: Feed
    workdir: str
    progress: Progress
    report: Callable[[str], None]
    callbacks: Callbacks
    keep_best: int

    reporter: Reporter = dataclasses.field(init=False)
    stop: StopRequest = dataclasses.field(init=False)
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    is_over: bool = False
    is_stopping: bool = False

    def __post_init__(self) -> None:
        trainer = self.trainer
        self.epochs, self.steps = trainer.recipe.epochs, trainer.steps_per_epoch
        self.average_last = trainer.recipe.average_last
        self.strategy = trainer.strategy
        self.chief = distribution.is_chief(self.strategy)
        self.report = self.report if self.chief else lambda line: None
        self.checkpoints = Checkpoints(
            self.workdir, trainer.model, trainer, self.average_last, self.keep_best, self.chief
        )

    def resume(self) -> int:
        """Restores the last state; returns the number of finished epochs."""
        history = workdirs.read_history(self.workdir)
        self.checkpoints.restore_last(history)
        finished = int(self.trainer.epoch.numpy())
        if len(history) < finished:
            raise ValueError(
                f"{self.workdir}/{workdirs.HISTORY_FILE}: has "
                f"{counted(len(history), 'epoch')}, but "
                f"the checkpoint has {finished}; restore the file, or start again in a new workdir"
            )
        self.history = history[:finished]
        return finished

    def begin(self) -> None:
        """Opens the streams of batches."""
        epoch, step = int(self.trainer.epoch.numpy()), int(self.trainer.epoch_step.numpy())

        def batches_to_come(worker: int, num_workers: int) -> tf.data.Dataset:
            return self.feed.training(Position(epoch, step, worker, num_workers))

        self.batches = iter(distribution.distribute_batches(self.strategy, batches_to_come))
        self.held_out = distribution.distribute_batches(self.strategy, self.feed.validation)
        self.report(self.trainer.describe(epoch))
        self.trainer.trace(self.batches, self.held_out)
        self.reporter = Reporter(
            self.workdir,
            self.trainer,
            self.held_out,
            self.chief,
            self.report,
            self.feed.held_out_names,
            self.callbacks,
        )

    def run_epoch(self, epoch: int, profile: bool) -> None:
        """Trains the rest of an epoch, validates and saves."""
        trainer = self.trainer
        trainer.begin_epoch([trainer.recipe.score(row) for row in self.history])
        started, shown = time.monotonic(), trainer.meter.num_images()
        profile_dir = os.path.join(self.workdir, "tensorboard") if profile else None
        done, waited = self._train(epoch, profile_dir)
        trained = time.monotonic() - started
        if done < self.steps:
            self._stop(epoch, done)
        row = {"epoch": epoch + 1, "seconds": 0.0, "learning_rate": trainer.learning_rate()}
        row["images_per_second"] = round((trainer.meter.num_images() - shown) / trained, 2)
        row["input_wait"] = round(waited / trained, 4)
        row.update(trainer.meter.result())
        with trainer.average_applied():
            row.update(self._validate())
            row["seconds"] = round(time.monotonic() - started, 1)
            self.history.append(row)
            pictured = self.reporter.predictions()
            with workers.together(self.strategy):
                self.reporter.epoch(self.history)
            self._keep_if_best(trainer.recipe.score(row))
            with workers.together(self.strategy):
                self.checkpoints.save_epoch(epoch + 1)
                self.checkpoints.save_top([trainer.recipe.score(row) for row in self.history])
        self._end_epoch(row)
        if (epoch + 1 == self.epochs or self.is_over) and self.average_last:
            self._try_mean()
        # Last of all: if the run is killed before this line, the epoch is repeated.
        trainer.epoch.assign(epoch + 1)
        trainer.epoch_step.assign(0)
        with workers.together(self.strategy):
            self.checkpoints.save_last()
        self.reporter.pictures(self.history, pictured)
        if self.is_stopping and not self.is_over and epoch + 1 < self.epochs:
            self.report(f"Stopped after epoch {epoch + 1}; the same command resumes")
            sys.exit(self.stop.status)

    def _end_epoch(self, row: dict[str, float]) -> None:
        """Calls the callbacks, and decides for all workers whether the run is over."""
        with workers.together(self.strategy):
            asked = self.callbacks.call("on_epoch_end", row)
        asked = workers.gather(self.strategy, "stop" if asked else "")[0] == "stop"
        recipe = self.trainer.recipe
        exhausted = recipe.is_over(self.history)
        self.is_over = asked or exhausted
        if exhausted:
            waited = counted(recipe.patience or 0, "epoch")
            self.report(f"no better {recipe.monitor} in {waited}: the run ends early")
        elif asked:
            self.report("a callback ended the run; the same command continues it")

    def _tell_step(self, epoch: int, done: int, loss: float) -> None:
        """Reports a step; a callback may ask for a stop."""
        self.reporter.step(epoch, done, loss)
        if self.callbacks.call("on_step", epoch * self.steps + done, loss):
            if not self.stop.requested.is_set():
                self.stop.status = 0
            self.stop.requested.set()

    def _train(self, epoch: int, profile_dir: Optional[str]) -> tuple[int, float]:
        """Runs the remaining steps of an epoch, or fewer if one worker is told to stop.

        Returns the number of finished steps of this epoch, and the seconds spent waiting for input.
        """
        waited, earlier = 0.0, None
        steps = range(int(self.trainer.epoch_step.numpy()), self.steps)
        done = steps.start
        self.reporter.begin(done)
        with profiling(profile_dir, steps) as before_step, self._limit():
            for step in steps:
                before_step(step)
                asked = time.monotonic()
                batch = self._next(epoch, step)
                waited += time.monotonic() - asked
                stop = tf.constant(float(self.stop.requested.is_set()))
                loss, stops = self.trainer.step(*batch, stop)
                done = step + 1
                self.stop.alive()
                self.progress(epoch * self.steps + done, self.epochs * self.steps)
                # Checks the previous step, so that a GPU always has another step in its queue.
                if earlier:
                    self._tell_step(epoch, step, self._check(epoch, done, *earlier[:2]))
                    if earlier[2] > 0:
                        break
                earlier = step, loss, stops
        self._tell_step(epoch, done, self._check(epoch, done, step, loss))
        self.is_stopping = float(stops) > 0
        return done, waited

    def _limit(self) -> contextlib.AbstractContextManager[None]:
        """Context that ends the process if a data service no longer sends batches."""
        if not self.feed.data_service:
            return contextlib.nullcontext()
        return limited_wait(
            self.stop,
            f"no batches from the data service at {self.feed.data_service}; check its workers; the "
            "last checkpoint is kept, and the same command resumes",
        )

    def _next(self, epoch: int, step: int) -> Any:
        """Returns the next batch; raises ValueError with the reason if that fails."""
        try:
            return next(self.batches)
        except _INPUT_ERRORS as error:
            is_damaged = isinstance(error, tf.errors.InvalidArgumentError)
            tries = "" if is_damaged else f" after {TRIES} tries"
            raise ValueError(
                f"epoch {epoch + 1}, step {step + 1}: an image cannot be read{tries}: "
                f"{about_the_data(error.message)}; the last checkpoint is kept, and the same "
                "command resumes"
            ) from error

    def _check(self, epoch: int, done: int, step: int, loss: Any) -> float:
        """Returns the loss of a step; raises ValueError if it is not finite."""
        if not math.isfinite(loss):
            rate = self.trainer.learning_rate(steps_ago=done - step)
            names = ", ".join(self.feed.names(epoch, step))
            with workers.together(self.strategy):
                raise ValueError(
                    f"loss is {float(loss)} in epoch {epoch + 1}, step {step + 1} ({names}), at "
                    f"learning rate {rate:.3g}; the last checkpoint is kept; a run with a lower "
                    "learning rate in another workdir can start from it"
                )
        return float(loss)

    def _stop(self, epoch: int, done: int) -> None:
        """Saves the state within an epoch and ends the process."""
        if self.feed.data_service:  # which could not show the rest of the epoch alone
            where = f"; the same command resumes at the start of epoch {epoch + 1}"
        else:
            where = f" after step {done}; the same command resumes"
            self.trainer.epoch_step.assign(done)
        with workers.together(self.strategy):
            if not self.feed.data_service:
                self.checkpoints.save_last()
        self.report(f"Stopped in epoch {epoch + 1}{where}")
        sys.exit(self.stop.status)

    def _validate(self) -> dict[str, float]:
        def batches() -> Any:
            for batch in self.held_out:
                self.stop.alive()
                yield batch

        return self.trainer.validate(batches())

    def _keep_if_best(self, score: float) -> None:
        if score > self.trainer.best_score.numpy():
            self.trainer.best_score.assign(score)
            with workers.together(self.strategy):
                self.checkpoints.save_best()

    def _try_mean(self) -> None:
        """Validates the mean of the last epochs' weights, and keeps it if it is the best."""
        # The chief names the epochs, as the others may not see its last file yet.
        epochs = json.dumps(self.checkpoints.last_epochs() if self.chief else [])
        paths = self.checkpoints.epoch_paths(json.loads(workers.gather(self.strategy, epochs)[0]))
        with averaging.mean_applied(self.trainer.model, paths):
            score = self.trainer.recipe.score(self._validate())
            self.reporter.mean(score, float(self.trainer.best_score.numpy()))
            self._keep_if_best(score)
