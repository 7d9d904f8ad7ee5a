"""Fits a model to batches, in a workdir from which the same command goes on."""

import contextlib
import math
import signal
import sys
import threading
import time

import tensorflow as tf
from tqdm import tqdm

from clouds_tf.training import averaging, distribution
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.progress import Progress

SCORE = "val_dice"  # decides which epoch is the best
STOPPED = 128 + signal.SIGTERM  # the exit status of a run that was told to stop, and did
_PROFILED_STEPS = (5, 10)  # from, to; the first ones trace the graph


@contextlib.contextmanager
def _told_to_stop():
    """Gives an event that SIGTERM sets: clusters send it a while before they take a machine."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # where Python handles no signals
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def _train(trainer, batches, steps, stop, where, profile_dir):
    """Shows the batches of some steps of an epoch, or fewer if one worker is told to stop.

    Returns:
        (the number of steps of this epoch that are done, the seconds that it waited for input).
    """
    waited, done, earlier = 0.0, steps.start, None

    def check(step, loss):
        if not math.isfinite(loss):
            rate = trainer.learning_rate(steps_ago=done - step)
            raise ValueError(
                f"loss is {float(loss)} in {where(step)}, at learning rate {rate:.3g}; the last "
                "checkpoint is kept, and with a lower rate another workdir can start from it"
            )

    for step in tqdm(steps, unit="step", leave=False, disable=None, mininterval=1):
        if profile_dir and step == _PROFILED_STEPS[0]:
            tf.profiler.experimental.start(profile_dir)
        asked = time.monotonic()
        images, masks = next(batches)
        waited += time.monotonic() - asked
        loss, stops = trainer.step(images, masks, tf.constant(float(stop.is_set())))
        done = step + 1
        # What is looked at is the step before, so that a GPU always has one more to go on with.
        if earlier:
            check(*earlier[:2])
            if earlier[2] > 0:
                break
        earlier = step, loss, stops
        if profile_dir and step == _PROFILED_STEPS[1]:
            tf.profiler.experimental.stop()
    check(step, loss)
    return done, waited


def fit(
    trainer,
    training_batches,
    validation_batches,
    workdir,
    epochs,
    steps_per_epoch,
    batch_files,
    average_last=0,
    profile=False,
):
    """Trains, going on where the last run in this workdir came to an end, or was stopped.

    Args:
        trainer: a Trainer.
        training_batches: a function (initial_epoch, worker, num_workers) -> tf.data.Dataset of that
            worker's part of every batch of all epochs from there.
        validation_batches: a function (worker, num_workers) -> its part of the held-out batches.
        workdir: where history.csv, checkpoints/, tensorboard/ and pictures go.
        epochs: the number of epochs of the whole run.
        steps_per_epoch: batches in an epoch.
        batch_files: a function (epoch, step), both from 0 on, -> the names of the images in that
            batch, for the message that tells where a loss was not finite.
        average_last: after the last epoch, the mean of the weights of this many last ones is
            validated as well, and kept if it is better than the best; 0 does not.
        profile: whether to write a trace of some steps of the first epoch, for TensorBoard.

    Returns:
        The history: a list of dicts, one per epoch, with loss, dice, val_dice and so on.

    Raises:
        ValueError: a loss is not finite, or a checkpoint cannot be written; the last one before it
            is kept.
        SystemExit: it was told to stop (SIGTERM), and has saved where it was; the status is 143.
    """
    strategy = trainer.strategy
    chief = distribution.is_chief(strategy)
    checkpoints = workdirs.Checkpoints(workdir, trainer.model, trainer, average_last, chief)
    checkpoints.restore_last()
    first_epoch, first_step = trainer.epoch.numpy(), trainer.epoch_step.numpy()
    history = workdirs.read_history(workdir)[:first_epoch]
    if first_epoch >= epochs:
        return history

    def batches_to_come(worker, num_workers):
        return training_batches(first_epoch, worker, num_workers).skip(first_step)

    def keep_if_best(score):
        if score > trainer.best_score.numpy():
            trainer.best_score.assign(score)
            checkpoints.save_best()

    batches = iter(distribution.distribute_batches(strategy, batches_to_come))
    held_out = distribution.distribute_batches(strategy, validation_batches)
    progress = Progress(workdir, trainer, held_out, epochs, chief)
    with _told_to_stop() as stop:
        for epoch in range(first_epoch, epochs):
            trainer.begin_epoch([row[SCORE] for row in history])

            def where(step, epoch=epoch):
                names = ", ".join(batch_files(epoch, step))
                return f"epoch {epoch + 1}, step {step + 1} ({names})"

            started = time.monotonic()
            steps = range(trainer.epoch_step.numpy(), steps_per_epoch)
            profile_dir = progress.folder if profile and epoch == first_epoch else None
            done, waited = _train(trainer, batches, steps, stop, where, profile_dir)
            trained = time.monotonic() - started
            if done < steps_per_epoch:
                trainer.epoch_step.assign(done)
                checkpoints.save_last()
                if chief:
                    print(f"Stopped in epoch {epoch + 1} after step {done}; run it again to go on")
                sys.exit(STOPPED)
            row = {"epoch": epoch + 1, "seconds": 0.0, "learning_rate": trainer.learning_rate()}
            row["images_per_second"] = round(trainer.meter.num_images() / trained, 2)
            row["input_wait"] = round(waited / trained, 4)
            row.update(trainer.meter.result())
            with trainer.average_applied():
                row.update(trainer.validate(held_out))
                row["seconds"] = round(time.monotonic() - started, 1)
                history.append(row)
                progress.epoch(history)
                keep_if_best(row[SCORE])
                checkpoints.save_epoch(epoch + 1)
            if epoch + 1 == epochs and average_last:
                with averaging.mean_applied(trainer.model, checkpoints.last_epochs()):
                    score = trainer.validate(held_out)[SCORE]
                    progress.mean(average_last, score, trainer.best_score.numpy())
                    keep_if_best(score)
            # Last of all: whatever is killed before this line is done again.
            trainer.epoch.assign(epoch + 1)
            trainer.epoch_step.assign(0)
            checkpoints.save_last()
    progress.end(history)
    return history
