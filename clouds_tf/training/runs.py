"""Whole training runs: one held-out fold, or every fold in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import filelock
import tensorflow as tf

from clouds_tf.data import input_pipeline, shards
from clouds_tf.data.reading import first_files
from clouds_tf.dataset import Dataset
from clouds_tf.models import weights
from clouds_tf.models.unet import unet
from clouds_tf.training import distribution
from clouds_tf.training import workdir as workdirs
from clouds_tf.training import workers
from clouds_tf.training.checkpoints import BEST
from clouds_tf.training.checks import check_memory, check_start
from clouds_tf.training.fit import SCORE, Feed, StepProgress, fit
from clouds_tf.training.progress import as_table, best_row, say
from clouds_tf.training.recipe import Execution, Recipe
from clouds_tf.training.trainer import Trainer
from clouds_tf.training.workdir import LOCK_FILE, Run


@dataclasses.dataclass(frozen=True)
class TrainingResult:
    """What a training run achieved, and where its files are.

    Attributes:
        run: the settings of the run.
        history: one dict per epoch, with loss, dice, val_loss, val_dice and so on.
        best_score: held-out Dice of the weights that are kept. They were chosen by this score, so
            it is slightly too good.
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
        """Loads the best model, as `clouds_tf.training.workdir.load_model` does."""
        return workdirs.load_model(self.run.path)

    def __str__(self) -> str:
        whose = f"in epoch {self.best_epoch}"
        if self.best_epoch is None:
            whose = f"by the mean of the last {self.run.recipe.average_last} epochs' weights"
        blank = "" if self.blank_score is None else f"; all blank: {self.blank_score:.4f}"
        return (
            f"Trained {len(self.history)} epochs; best held-out Dice {self.best_score:.4f} {whose} "
            f"(chosen on these held-out images{blank}); workdir {self.run.path}"
        )


def train(
    records_dir: str,
    workdir: str,
    recipe: Recipe = Recipe(),
    fold: int = 0,
    execution: Execution = Execution(),
    *,
    on_start: Optional[Callable[[str], None]] = None,
    progress: Optional[StepProgress] = None,
    report: Callable[[str], None] = say,
) -> TrainingResult:
    """Trains a U-Net on all folds but one; the same call resumes an interrupted run.

    Args:
        records_dir: folder of shards, of `shards.write_records`.
        workdir: folder for settings, checkpoints, history and pictures: a new one, or that of the
            same run, whose recipe may have grown in epochs.
        recipe: settings of the training.
        fold: the held-out fold.
        execution: devices, caches and tracing. With distribute="multi_worker" the call blocks until
            all workers are there, and restarts the program when one of them is lost.
        on_start: called by the chief with the workdir, once that exists.
        progress: called as (steps done, steps of the whole run).
        report: called with each line of text for the user; prints by default.

    Returns:
        A TrainingResult.

    Raises:
        FileNotFoundError, ValueError: records, fold, weights or workdir are missing or do not fit,
            or the training failed; the message says what to do.
        SystemExit: SIGTERM stopped the run, and its state is saved; the status is 143.
    """
    check_folds(records_dir, [fold])
    with _session(recipe, execution):
        return _train(records_dir, workdir, recipe, fold, execution, on_start, progress, report)


def train_folds(
    records_dir: str,
    workdir: str,
    recipe: Recipe = Recipe(),
    execution: Execution = Execution(),
    *,
    on_start: Optional[Callable[[str], None]] = None,
    progress: Optional[StepProgress] = None,
    report: Callable[[str], None] = say,
) -> list[TrainingResult]:
    """Trains one model per fold, each in its own folder workdir/fold_<number>.

    Args:
        records_dir: folder of shards.
        workdir: parent folder of the workdirs.
        recipe: as for `train`.
        execution: as for `train`.
        on_start: as for `train`; called for every fold.
        progress: as for `train`.
        report: as for `train`.

    Returns:
        One TrainingResult per fold.

    Raises:
        FileNotFoundError, ValueError: as `train` does; all folds are checked before any training.
    """
    folds = range(_num_folds(records_dir))
    check_folds(records_dir, folds)
    results = []
    with _session(recipe, execution):
        for fold in folds:
            folder = os.path.join(workdir, f"fold_{fold}")
            result = _train(
                records_dir, folder, recipe, fold, execution, on_start, progress, report
            )
            report(str(result))
            results.append(result)
    report(folds_table(results))
    return results


def folds_table(results: Sequence[TrainingResult]) -> str:
    """Tabulates the scores of several folds and their mean, beside those of predicting nothing."""
    names = [*(str(result.run.fold) for result in results), "mean"]
    scores = [result.best_score for result in results]
    blanks = [float("nan") if r.blank_score is None else r.blank_score for r in results]
    for values in (scores, blanks):
        values.append(sum(values) / len(values))
    lines = [["fold", "val_dice", "all blank", "gain"]]
    for name, score, blank in zip(names, scores, blanks):
        lines.append([name, f"{score:.4f}", f"{blank:.4f}", f"{score - blank:+.4f}"])
    return as_table(lines)


def check_folds(records_dir: str, folds: Sequence[int]) -> None:
    """Checks that each of some folds can be held out.

    Raises:
        ValueError: the records have no such fold, or no image in it, or none outside of it.
    """
    count = functools.partial(input_pipeline.count_examples, records_dir)
    for fold in folds:
        others, held_out = input_pipeline.split_folds(records_dir, fold)
        if not count(held_out) or not count(others):
            where = f"fold {fold}" if not count(held_out) else f"the folds other than {fold}"
            raise ValueError(
                f"fold: got {fold}, but {records_dir} has no images in {where}; write the records "
                "again, with folds that all have images"
            )


def _num_folds(records_dir: str) -> int:
    return shards.read_info(records_dir).num_folds


def _dataset(records_dir: str) -> Dataset:
    return shards.read_info(records_dir).dataset


@contextlib.contextmanager
def _session(recipe: Recipe, execution: Execution) -> Iterator[None]:
    """Context with the precision, the determinism and the restarts of a call."""
    if execution.deterministic:
        distribution.set_deterministic()
    with distribution.precision(recipe.precision):
        with workers.restarting(execution.distribute):
            yield


def _train(
    records_dir: str,
    workdir: str,
    recipe: Recipe,
    fold: int,
    execution: Execution,
    on_start: Optional[Callable[[str], None]],
    progress: Optional[StepProgress],
    report: Callable[[str], None],
) -> TrainingResult:
    strategy = distribution.strategy(execution.distribute, execution.num_devices)
    run = Run(workdir, recipe, _dataset(records_dir), fold, shards.fingerprint(records_dir))
    chief = distribution.is_chief(strategy)
    with workers.together(strategy):
        workdirs.check_startable(run)
        check_start(run)
        check_memory(recipe, workers.num_workers(strategy))
        if execution.deterministic:
            distribution.check_deterministic(recipe.freeze_encoder, strategy.num_replicas_in_sync)
    trainer = _make_trainer(records_dir, run, strategy)
    with contextlib.ExitStack() as stack:
        with workers.together(strategy):
            # Not before, so that a wrong file of weights leaves no workdir behind.
            if chief:
                stack.enter_context(_locked(workdir))
                workdirs.start(run)
                if on_start:
                    on_start(workdir)
        feed = _feed(records_dir, run, execution)
        history = fit(trainer, feed, workdir, execution.profile, progress, report)
    score, best = float(trainer.best_score.numpy()), best_row(history)
    return TrainingResult(
        run=run,
        history=tuple(history),
        best_score=score,
        best_epoch=None if score > best[SCORE] else int(best["epoch"]),
        blank_score=history[-1].get("val_blank_dice"),
    )


def _make_trainer(records_dir: str, run: Run, strategy: tf.distribute.Strategy) -> Trainer:
    """Builds model and trainer, with the weights to start from."""
    recipe = run.recipe
    folds, _ = input_pipeline.split_folds(records_dir, run.fold)
    steps = input_pipeline.steps_per_epoch(records_dir, folds, recipe.batch_size)
    distribution.set_seed(recipe.seed)
    with strategy.scope():
        model = unet(num_classes=run.dataset.num_classes, **recipe.model_arguments())
        if recipe.encoder_weights:
            weights.load_encoder_weights(model, recipe.encoder_weights)
        if recipe.init_checkpoint:
            weights.load_checkpoint(model, recipe.init_checkpoint)
        if recipe.init_weights:
            weights.load_weights(model, recipe.init_weights)
        return Trainer(model, recipe, steps, run.dataset.class_names)


def _feed(records_dir: str, run: Run, execution: Execution) -> Feed:
    """The batches of a run."""
    recipe = run.recipe
    folds, held_out = input_pipeline.split_folds(records_dir, run.fold)

    def training(
        initial_epoch: int, initial_step: int, worker: int, num_workers: int
    ) -> tf.data.Dataset:
        return input_pipeline.training_batches(
            records_dir,
            folds,
            recipe.image_size,
            recipe.batch_size,
            recipe.epochs,
            recipe.seed,
            initial_epoch=initial_epoch,
            initial_step=initial_step,
            augmentation=recipe.augmentation,
            mix=recipe.mix,
            cache=execution.cache,
            cache_dir=execution.cache_dir,
            data_service=execution.data_service,
            worker=worker,
            num_workers=num_workers,
        )

    def validation(worker: int, num_workers: int) -> tf.data.Dataset:
        return input_pipeline.validation_batches(
            records_dir,
            held_out,
            recipe.image_size,
            recipe.batch_size,
            worker=worker,
            num_workers=num_workers,
        )

    def names(epoch: int, step: int) -> list[str]:
        return input_pipeline.batch_files(
            records_dir,
            folds,
            recipe.batch_size,
            recipe.seed,
            epoch,
            step,
            execution.cache,
            recipe.image_size,
        )

    return Feed(
        training, validation, names, functools.partial(first_files, records_dir, held_out)
    )


@contextlib.contextmanager
def _locked(workdir: str) -> Iterator[None]:
    """Context that keeps other processes from training in a workdir.

    Raises:
        ValueError: another process trains there.
    """
    if "://" in workdir:  # where there are no locks
        yield
        return
    os.makedirs(workdir, exist_ok=True)
    lock = filelock.FileLock(os.path.join(workdir, LOCK_FILE))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"workdir: another process trains in {workdir}; wait for it, or give a new workdir"
        ) from None
    try:
        yield
    finally:
        lock.release()
