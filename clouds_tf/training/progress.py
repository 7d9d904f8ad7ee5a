"""Reports training progress: a line per epoch, a table, and pictures."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Optional

import tensorflow as tf

from clouds_tf import figures
from clouds_tf.progress import Pace, duration, is_watched, say
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.callbacks import Callbacks
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.workdir import History

_NUM_PICTURES = 4


def epoch_line(history: History, epochs: int) -> str:
    """Describes the last epoch of a history in one line.

    Args:
        history: one dict per epoch, as `fit` gives it.
        epochs: number of epochs of the whole run.

    Returns:
        Losses, Dice, speed, the fraction of the time in which the device waited for input, and the
        time that is left at the mean pace so far.
    """
    row = history[-1]
    pace = sum(row["seconds"] for row in history) / len(history)
    return (
        f"epoch {row['epoch']:3.0f}/{epochs}  loss {row['loss']:.4f}  Dice {row['dice']:.4f}  "
        f"held out: loss {row['val_loss']:.4f}  Dice {row['val_dice']:.4f} "
        f"(tuned {row['val_tuned_dice']:.4f})  "
        f"{row['images_per_second']:.1f} images/s, input wait {row['input_wait']:.0%}, "
        f"{duration(pace * (epochs - row['epoch']))} left"
    )


def summary_table(history: History, recipe: Recipe, class_names: Sequence[str]) -> str:
    """Tabulates the best and the last epoch, with the held-out Dice of every class."""
    scores = ["loss", "val_loss", "val_dice"]
    if all("val_tuned_dice" in row for row in history):  # not in those of earlier versions
        scores.append("val_tuned_dice")
    lines = [["epoch", *scores, *class_names]]
    for name, row in (("best", max(history, key=recipe.score)), ("last", history[-1])):
        columns = [*scores, *(f"val_dice_{c}" for c in class_names)]
        lines.append(
            [f"{row['epoch']:.0f} ({name})", *(f"{row[column]:.4f}" for column in columns)]
        )
    return as_table(lines)


def as_table(lines: Sequence[Sequence[str]]) -> str:
    """Aligns rows of cells at the right, in columns of at least 9 characters."""
    widths = [max(9, *map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths)) for line in lines
    )


class Reporter:
    """Writes the history and pictures of a run; only the chief writes.

    Args:
        workdir: folder for history.csv, curves.png and predictions.png.
        trainer: the Trainer of the run.
        held_out: distributed batches (images, masks); the first images of the first are pictured.
        chief: whether this worker writes.
        report: called with each line of text for the user.
        names: a function (number) -> names of the first held-out images, or none.
        callbacks: the callbacks of the run, which get the pictures.
    """

    def __init__(
        self,
        workdir: str,
        trainer: Any,
        held_out: Any,
        chief: bool = True,
        report: Callable[[str], None] = say,
        names: Callable[[int], list[str]] = lambda number: [],
        callbacks: Callbacks = Callbacks(),
    ) -> None:
        self._callbacks = callbacks
        self._workdir, self._trainer, self._chief, self._report = workdir, trainer, chief, report
        self._images, self._masks = next(iter(held_out))
        self._names = names(_NUM_PICTURES) if chief else []

    def begin(self, first_step: int) -> None:
        """Notes the start of an epoch for `step`."""
        self._pace = Pace(first_step)

    def step(self, epoch: int, done: int, loss: float) -> None:
        """Reports a step, once a minute and where no progress bar shows it."""
        if not self._chief or is_watched() or not self._pace.is_due():
            return
        steps, each = self._trainer.steps_per_epoch, self._pace.seconds_each(done)
        self._report(
            f"epoch {epoch + 1:3}, step {done} of {steps}: loss {loss:.4f}, "
            f"{self._trainer.recipe.batch_size / each:.1f} images/s, "
            f"{duration(each * (steps - done))} left in the epoch"
        )

    def epoch(self, history: History) -> None:
        """Reports and writes the last epoch."""
        if not self._chief:
            return
        self._report(epoch_line(history, self._trainer.recipe.epochs))
        workdirs.write_history(self._workdir, history)

    def pictures(self, history: History, found: Optional[tf.Tensor]) -> None:
        """Draws the curves and the predictions; what fails is reported, and does not end the run.

        Args:
            history: one dict per epoch.
            found: what `predictions` gave.
        """
        if not self._chief or found is None:
            return
        try:
            picture = self._draw(found)
            epoch = int(history[-1]["epoch"])
            self._callbacks.call("on_picture", epoch, figures.pixels(picture))
            curves = figures.curves(history, self._trainer.class_names)
            figures.save(curves, os.path.join(self._workdir, "curves.png"))
            figures.save(picture, os.path.join(self._workdir, "predictions.png"))
        except (OSError, ValueError, tf.errors.OpError) as error:
            print(f"{self._workdir}: pictures were not written: {error}", file=sys.stderr)

    def mean(self, score: float, best: float) -> None:
        """Reports the score of the mean of the last epochs' weights."""
        if self._chief:
            recipe = self._trainer.recipe
            beaten = f"not kept, as the best has {recipe.shown(best):.4f}"
            self._report(
                f"mean of the last {recipe.average_last} epochs' weights: {recipe.monitor} "
                f"{recipe.shown(score):.4f}, {'kept' if score > best else beaten}"
            )

    def end(self, history: History) -> None:
        """Reports the best and the last epoch."""
        if self._chief:
            self._report(summary_table(history, self._trainer.recipe, self._trainer.class_names))

    def predictions(self) -> Optional[tf.Tensor]:
        """Masks of the first held-out images, for `pictures`; None where nothing can be drawn.

        Call it on all workers.
        """
        if not figures.AVAILABLE:
            return None
        return self._first(self._trainer.predict(self._images))

    def _first(self, values: Any) -> tf.Tensor:
        parts = self._trainer.strategy.experimental_local_results(values)
        return tf.concat(parts, axis=0)[:_NUM_PICTURES]

    def _draw(self, found: tf.Tensor) -> Any:
        """A figure of truth and prediction side by side."""
        images, masks = self._first(self._images).numpy(), self._first(self._masks).numpy()
        names = [f"{name}: " for name in self._names] or [""] * len(images)
        return figures.overlays(
            [image for image in images for _ in range(2)],
            [mask for pair in zip(masks, found.numpy()) for mask in pair],
            [f"{name}{kind}" for name in names for kind in ("truth", "prediction")],
            self._trainer.class_names,
            num_columns=2,
        )
