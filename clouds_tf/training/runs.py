"""Whole training runs: one held-out fold, or every fold in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

import clouds_tf
from clouds_tf import gfile, locks
from clouds_tf.data.batching import Position
from clouds_tf.data.records import Records
from clouds_tf.data.sample_weights import read_sample_weights
from clouds_tf.data.soft_targets import SoftTargets
from clouds_tf.keras import keras
from clouds_tf.lazy import uncollected
from clouds_tf.messages import aligned, counted
from clouds_tf.models import weights
from clouds_tf.models.unet import unet
from clouds_tf.progress import Progress, say
from clouds_tf.training import distribution
from clouds_tf.training import workdir as workdirs
from clouds_tf.training import workers
from clouds_tf.training.callbacks import Callbacks, make_callback
from clouds_tf.training.checkpoints import BEST
from clouds_tf.training.checks import check_memory, check_start
from clouds_tf.training.distribution import Feed
from clouds_tf.training.fit import fit
from clouds_tf.training.recipe import Execution, Recipe
from clouds_tf.training.schedules import Schedule
from clouds_tf.training.trainer import Trainer
from clouds_tf.training.workdir import Run


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """Scores of a training run, and the location of its files.

    Attributes:
        run: the settings of the run.
        history: one dict per epoch, with loss, dice, val_loss, val_dice and so on.
        best_score: held-out `recipe.monitor` of the best weights, or minus it if it is the loss.
            As the weights were chosen by this score, it is slightly optimistic.
        best_epoch: epoch of these weights; None for the mean of the last epochs' weights.
        blank_score: Dice of predicting nothing on the held-out images; None if it is unknown.
    """

    run: Run
    history: tuple[dict[str, float], ...] = dataclasses.field(repr=False)
    best_score: float
    best_epoch: Optional[int]
    blank_score: Optional[float]

    @property
    def workdir(self) -> str:
        """Folder of the run."""
        return self.run.path

    @property
    def checkpoint(self) -> str:
        """Folder of the best checkpoint, for `init_checkpoint`."""
        return os.path.join(self.run.path, BEST)

    def load_model(self) -> Any:
        """Loads the best model: `Run.load_model`."""
        return self.run.load_model()

    def __str__(self) -> str:
        whose = f"in epoch {self.best_epoch}"
        if self.best_epoch is None:
            whose = f"by the mean of the last {self.run.recipe.average_last} epochs' weights"
        blank = ""
        if self.blank_score is not None and self.run.recipe.monitors_dice:
            blank = f"; all blank: {self.blank_score:.4f}"
        monitor = {"dice": "Dice", "tuned_dice": "tuned Dice"}.get(
            self.run.recipe.monitor, self.run.recipe.monitor
        )
        return (
            f"Trained {counted(len(self.history), 'epoch')}; best held-out {monitor} "
            f"{self.run.recipe.shown(self.best_score):.4f} {whose} "
            f"(chosen on the same held-out images{blank}); workdir {self.run.path}"
        )


def train(
    records_dir: str,
    workdir: str,
    recipe: Recipe = Recipe(),
    fold: int = 0,
    execution: Execution = Execution(),
    *,
    on_start: Optional[Callable[[str], None]] = None,
    progress: Progress | bool = True,
    report: Callable[[str], None] = say,
) -> TrainingResult:
    """Trains a U-Net on all folds but one; the same call resumes an interrupted run.

    Args:
        records_dir: folder of shards that `shards.write_records` wrote.
        workdir: folder for settings, checkpoints, history and pictures: a new one, or that of the
            run to resume, whose number of epochs may change, but not below the finished ones.
        recipe: settings of the training.
        fold: the held-out fold.
        execution: devices, caches, callbacks. With distribute="multi_worker", the call waits for
            all workers, and restarts the program when one of them is lost.
        on_start: called by the chief with the workdir, once the folder exists.
        progress: called with (steps done, steps of the whole run); True shows a bar in a terminal
            or notebook, False nothing.
        report: called with each line of text for the user; prints by default.

    Returns:
        A TrainingResult.

    Raises:
        FileNotFoundError, ValueError: records, fold, weights or workdir are missing or do not fit,
            or the training failed; the message says what to do.
        SystemExit: SIGTERM, Ctrl-C or a callback stopped the run within an epoch, and its state is
            saved; the status is 143, 130 or 0.
    """
    records = Records.open(records_dir)
    records.split(fold)
    with _session(recipe, execution):
        return _train(records, workdir, recipe, fold, execution, on_start, progress, report)


def train_folds(
    records_dir: str,
    workdir: str,
    recipe: Recipe = Recipe(),
    execution: Execution = Execution(),
    *,
    on_start: Optional[Callable[[str], None]] = None,
    progress: Progress | bool = True,
    report: Callable[[str], None] = say,
) -> list[TrainingResult]:
    """Trains one model per fold, each in its own folder workdir/fold_<number>.

    Other arguments are those of `train`; on_start is called for every fold.

    Returns:
        One TrainingResult per fold.

    Raises:
        FileNotFoundError, ValueError: as `train` does; all folds are checked before any training.
    """
    records = Records.open(records_dir)
    folds = range(records.info.num_folds)
    for fold in folds:
        records.split(fold)
    results = []
    with _session(recipe, execution):
        for fold in folds:
            folder = os.path.join(workdir, f"fold_{fold}")
            result = _train(records, folder, recipe, fold, execution, on_start, progress, report)
            report(str(result))
            results.append(result)
    report(folds_table(results))
    return results


def folds_table(results: Sequence[TrainingResult]) -> str:
    """Tabulates the scores of several folds and their mean, next to those of blank masks."""
    names = [*(str(result.run.fold) for result in results), "mean"]
    scores = [result.best_score for result in results]
    blanks = [float("nan") if r.blank_score is None else r.blank_score for r in results]
    for values in (scores, blanks):
        values.append(sum(values) / len(values))
    recipe = results[0].run.recipe
    lines = [["fold", f"val_{recipe.monitor}", "all blank", "gain"]]
    for name, score, blank in zip(names, scores, blanks):
        lines.append([name, f"{recipe.shown(score):.4f}", f"{blank:.4f}", f"{score - blank:+.4f}"])
    # The score of blank masks is known for the Dice only.
    return aligned(lines if recipe.monitors_dice else [line[:2] for line in lines])


@contextlib.contextmanager
def _session(recipe: Recipe, execution: Execution) -> Iterator[None]:
    """Context with the precision, determinism and restarts of a call."""
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()
    with distribution.precision(recipe.precision):
        with workers.restarting(execution.distribute):
            yield


def _train(
    records: Records,
    workdir: str,
    recipe: Recipe,
    fold: int,
    execution: Execution,
    on_start: Optional[Callable[[str], None]],
    progress: Progress | bool,
    report: Callable[[str], None],
) -> TrainingResult:
    strategy = distribution.strategy(execution.distribute, execution.num_devices)
    chief = distribution.is_chief(strategy)
    with workers.together(strategy):
        run = Run(workdir, recipe, records.dataset, fold, records.identity, recipe.code())
        callbacks = Callbacks(run, map(make_callback, execution.callbacks), chief)
    workers.check_agreement(strategy, {**run.to_json(), **_versions()})
    with workers.together(strategy):
        workdirs.check_startable(run)
        check_start(run)
        check_memory(recipe, workers.num_workers(strategy))
        if execution.deterministic:
            distribution.check_deterministic(recipe.freeze_encoder, strategy.num_replicas_in_sync)
        feed = make_feed(records, run, execution, report if chief else str)
    trainer = make_trainer(records, run, strategy)
    with contextlib.ExitStack() as stack:
        with workers.together(strategy):
            # Not earlier, so that a wrong file of weights leaves no workdir behind.
            if chief:
                stack.enter_context(locks.reserved(workdir))
                _tell_new_rate(trainer, workdir, report)
                workdirs.start(run)
                if on_start:
                    on_start(workdir)
        history = fit(
            trainer,
            feed,
            workdir,
            profile=execution.profile,
            progress=progress,
            report=report,
            callbacks=callbacks,
            keep_best=execution.keep_best,
        )
    score, best = float(trainer.best_score.numpy()), max(history, key=recipe.score)
    return TrainingResult(
        run=run,
        history=tuple(history),
        best_score=score,
        best_epoch=None if score > recipe.score(best) else int(best["epoch"]),
        blank_score=history[-1].get("val_blank_dice"),
    )


def _tell_new_rate(trainer: Trainer, workdir: str, report: Callable[[str], None]) -> None:
    """Reports a jump of the learning rate if a run resumes with another number of epochs."""
    if not gfile.exists(os.path.join(workdir, workdirs.SETTINGS_FILE)):
        return
    epochs, schedule = workdirs.Run.open(workdir).recipe.epochs, trainer.schedule
    step = len(workdirs.read_history(workdir)) * trainer.steps_per_epoch
    now = float(schedule(step))
    earlier = schedule.get_config() | {"num_steps": epochs * trainer.steps_per_epoch}
    before = float(Schedule(**earlier)(max(step - 1, 0)))
    if epochs != trainer.recipe.epochs and not 0.5 < now / max(before, 1e-30) < 2:
        report(
            f"the schedule now spans {trainer.recipe.epochs} epochs instead of {epochs}: the "
            f"learning rate goes from {before:.3g} to {now:.3g}"
        )


def _versions() -> dict[str, str]:
    """Versions of the packages that influence the results of a training."""
    return {
        "clouds_tf": clouds_tf.__version__,
        "TensorFlow": tf.__version__,
        "numpy": np.__version__,
        "Python": platform.python_version(),
    }


@uncollected()
def make_trainer(records: Records, run: Run, strategy: tf.distribute.Strategy) -> Trainer:
    """Builds the model, with its initial weights, and the trainer."""
    recipe = run.recipe
    steps = records.steps_per_epoch(records.split(run.fold)[0], recipe.batch_size)
    keras.utils.set_random_seed(recipe.seed)  # so that the new weights are repeatable
    with strategy.scope():
        model = unet(**run.dataset.model_arguments(), **recipe.model_arguments())
        if recipe.encoder_weights:
            weights.load_encoder_weights(model, recipe.encoder_weights)
        if recipe.init_checkpoint:
            weights.load_checkpoint(model, recipe.init_checkpoint)
        if recipe.init_weights:
            weights.load_weights(model, recipe.init_weights)
        return Trainer(model, recipe, steps, run.dataset.class_names)


def _soft_targets(records: Records, run: Run, report: Callable[[str], Any]) -> SoftTargets | None:
    """Opens the soft targets of a run; reports the number of images without any."""
    if not run.recipe.soft_targets:
        return None
    found = SoftTargets.open(run.recipe.soft_targets, run.recipe.soft_weight, run.dataset)
    for remark in found.check(records.first_names(records.split(run.fold)[0])):
        report(remark)
    return found


def make_feed(
    records: Records,
    run: Run,
    execution: Execution = Execution(),
    report: Callable[[str], Any] = say,
) -> Feed:
    """The batches of a run; `report` is called with remarks about them."""
    recipe = run.recipe
    folds, held_out = records.split(run.fold)
    soft_targets = _soft_targets(records, run, report)
    sample_weights = None
    if recipe.sample_weights:
        sample_weights = read_sample_weights(recipe.sample_weights)
        records.weights_of(folds, sample_weights)  # which checks them

    def training(start: Position) -> tf.data.Dataset:
        return records.training_batches(
            folds,
            recipe.image_size,
            recipe.batch_size,
            recipe.epochs,
            recipe.seed,
            start,
            augmentation=recipe.augmentation,
            mix=recipe.mix,
            sample_weights=sample_weights,
            cache=execution.cache,
            cache_dir=execution.cache_dir,
            data_service=execution.data_service,
            soft_targets=soft_targets,
        )

    def validation(worker: int, num_workers: int) -> tf.data.Dataset:
        return records.held_out_batches(
            held_out,
            recipe.image_size,
            recipe.batch_size,
            worker=worker,
            num_workers=num_workers,
        )

    return Feed(
        training,
        validation,
        functools.partial(records.batch_names, folds, recipe.batch_size, recipe.seed),
        functools.partial(records.first_names, held_out),
        execution.data_service,
    )
