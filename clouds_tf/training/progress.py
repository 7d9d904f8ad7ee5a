"""Training reports: a line per epoch, a table, pictures, and a profile of steps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional

import tensorflow as tf

from clouds_tf import figures
from clouds_tf.messages import aligned
from clouds_tf.progress import Pace, duration, is_watched
from clouds_tf.training import workdir as workdirs
from clouds_tf.training.callbacks import Callbacks
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.workdir import History

_NUM_PICTURES = 4
_FIRST_PROFILED_STEP = 5  # the first ones are slower
_PROFILED_STEPS = 5


def epoch_line(history: History, epochs: int) -> str:
    """Describes the last epoch of a history in one line.

    It has losses, Dice, speed, the share of time spent waiting for input, and the estimated
    remaining time of all `epochs`.
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
    return aligned(lines)


@dataclasses.dataclass
class Reporter:
    """Writes the history and pictures of a run; only the chief writes.

    Attributes:
        workdir: folder for history.csv, curves.png and predictions.png.
        trainer: the Trainer of the run.
        held_out: distributed batches (images, masks); the first images of the first are pictured.
        chief: whether this worker writes.
        report: called with each line of text for the user; does nothing if not chief.
        names: a function (number) -> names of the first held-out images, or none.
        callbacks: the callbacks of the run, which get the pictures.
    """

    workdir: str
    trainer: Any
    held_out: Any
    chief: bool
    report: Callable[[str], None]
    names: Callable[[int], "list[str]"]
    callbacks: Callbacks

    def __post_init__(self) -> None:
        self._images, self._masks = next(iter(self.held_out))
        self._names = self.names(_NUM_PICTURES) if self.chief else []

    def begin(self, first_step: int) -> None:
        """Notes the start of an epoch for `step`."""
        self._pace = Pace(first_step)

    def step(self, epoch: int, done: int, loss: float) -> None:
        """Reports a step once a minute, unless a progress bar shows it."""
        if is_watched() or not self._pace.is_due():
            return
        steps, each = self.trainer.steps_per_epoch, self._pace.seconds_each(done)
        self.report(
            f"epoch {epoch + 1:3}, step {done} of {steps}: loss {loss:.4f}, "
            f"{self.trainer.recipe.batch_size / each:.1f} images/s, "
            f"{duration(each * (steps - done))} left in the epoch"
        )

    def epoch(self, history: History) -> None:
        """Reports and writes the last epoch."""
        self.report(epoch_line(history, self.trainer.recipe.epochs))
        if self.chief:
            workdirs.write_history(self.workdir, history)

    def pictures(self, history: History, found: Optional[tf.Tensor]) -> None:
        """Draws the curves and the predictions; a failure is reported but does not end the run.

        Args:
            history: one dict per epoch.
            found: result of `predictions`.
        """
        if not self.chief or found is None:
            return
        try:
            picture = self._draw(found)
            epoch = int(history[-1]["epoch"])
            self.callbacks.call("on_picture", epoch, figures.pixels(picture))
            curves = figures.curves(history, self.trainer.class_names)
            figures.save(curves, os.path.join(self.workdir, "curves.png"))
            figures.save(picture, os.path.join(self.workdir, "predictions.png"))
        except (OSError, ValueError, tf.errors.OpError) as error:
            print(f"{self.workdir}: pictures were not written: {error}", file=sys.stderr)

    def mean(self, score: float, best: float) -> None:
        """Reports the score of the mean of the last epochs' weights."""
        recipe = self.trainer.recipe
        beaten = f"not kept, as the best has {recipe.shown(best):.4f}"
        self.report(
            f"mean of the last {recipe.average_last} epochs' weights: {recipe.monitor} "
            f"{recipe.shown(score):.4f}, {'kept' if score > best else beaten}"
        )

    def end(self, history: History) -> None:
        """Reports the best and the last epoch."""
        self.report(summary_table(history, self.trainer.recipe, self.trainer.class_names))

    def predictions(self) -> Optional[tf.Tensor]:
        """Masks of the first held-out images, for `pictures`; None if matplotlib is missing.

        Call it on all workers.
        """
        if not figures.AVAILABLE:
            return None
        return self._first(self.trainer.predict(self._images))

    def _first(self, values: Any) -> tf.Tensor:
        parts = self.trainer.strategy.experimental_local_results(values)
        return tf.concat(parts, axis=0)[:_NUM_PICTURES]

    def _draw(self, found: tf.Tensor) -> Any:
        """Draws the true and predicted masks side by side."""
        images, masks = self._first(self._images).numpy(), self._first(self._masks).numpy()
        names = [f"{name}: " for name in self._names] or [""] * len(images)
        return figures.overlays(
            [image for image in images for _ in range(2)],
            [mask for pair in zip(masks, found.numpy()) for mask in pair],
            [f"{name}{kind}" for name in names for kind in ("truth", "prediction")],
            self.trainer.class_names,
            num_columns=2,
        )


@contextlib.contextmanager
def profiling(folder: Optional[str], steps: range) -> Iterator[Callable[[int], None]]:
    """Profiles a few steps of an epoch; in a short epoch, the last ones.

    Args:
        folder: folder of the TensorBoard events; None for no profile.
        steps: numbers of the steps of the epoch.

    Yields:
        A function to call before each step, with its number.
    """
    first = min(steps.start + _FIRST_PROFILED_STEP, max(steps.stop - 1, steps.start))
    with contextlib.ExitStack() as running:

        def before(step: int) -> None:
            if folder and step == first:
                running.enter_context(tf.profiler.experimental.Profile(folder))
            elif step == first + _PROFILED_STEPS:
                running.close()

        yield before
