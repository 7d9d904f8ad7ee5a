"""Learning-rate range test: proposes a learning rate from the losses at a rising rate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf

from clouds_tf import figures, files
from clouds_tf.data.batching import Position
from clouds_tf.data.records import Records
from clouds_tf.progress import Progress, shown
from clouds_tf.training import distribution
from clouds_tf.training.checks import check_memory, check_start
from clouds_tf.training.recipe import Recipe
from clouds_tf.training.runs import make_feed, make_trainer
from clouds_tf.training.workdir import Run

_SMOOTHING = 0.9  # of the running mean of the loss; the rate rises by half in ten steps
_DIVERGED = 4.0  # times the lowest loss


@dataclasses.dataclass(frozen=True)
class RateCurve:
    """Result of a range test: the loss of each step.

    Attributes:
        rates: learning rates, ascending.
        losses: loss of the batch of each step.
        smoothed: their running mean.
        proposal: the rate at which the smoothed loss falls fastest; None if it does not fall.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...] = dataclasses.field(repr=False)
    smoothed: tuple[float, ...] = dataclasses.field(repr=False)
    proposal: Optional[float]

    def write(self, path: str) -> None:
        """Writes a CSV with the columns step, learning_rate, loss and smoothed_loss."""
        steps = range(1, len(self.rates) + 1)
        rows = zip(steps, self.rates, self.losses, self.smoothed)
        files.write_table(path, ["step", "learning_rate", "loss", "smoothed_loss"], rows)

    def draw(self) -> Any:
        """Draws the curve; a matplotlib Figure."""
        return figures.learning_rates(self.rates, self.losses, self.smoothed, self.proposal)


def rising(share: tf.Tensor, ratio: float) -> tf.Tensor:
    """Factor on the highest rate, which rises exponentially from `ratio` to 1."""
    return tf.pow(tf.constant(ratio), 1 - share)


def smooth(losses: Sequence[float], weight: float = _SMOOTHING) -> tuple[float, ...]:
    """Exponential running mean without the bias of its start: Kingma and Ba, 2015, section 3."""
    result, mean = [], 0.0
    for number, loss in enumerate(losses, start=1):
        mean = weight * mean + (1 - weight) * loss
        result.append(mean / (1 - weight**number))
    return tuple(result)


def propose(rates: Sequence[float], smoothed: Sequence[float]) -> Optional[float]:
    """The rate at which a smoothed loss falls fastest per factor of the rate, before its minimum.

    Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3, uses the
    range in which the loss falls. The first tenth of the steps, where the running mean is noisy,
    is left out.
    """
    first, last = len(rates) // 10, int(np.argmin(smoothed))
    if last - first < 2:
        return None
    slopes = np.gradient(smoothed[first : last + 1], np.log(rates[first : last + 1]))
    return float(rates[first + int(np.argmin(slopes))])


def find_learning_rate(
    records_dir: str,
    recipe: Recipe = Recipe(),
    fold: int = 0,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    num_steps: int = 100,
    progress: Progress | bool = True,
) -> RateCurve:
    """Trains for some steps while the learning rate rises; only the losses are kept.

    The steps are those of `train` on one device, with all settings of the recipe except learning
    rate, schedule, warm-up and number of epochs.

    Args:
        records_dir: folder of shards.
        recipe: settings of the training.
        fold: the fold that the training holds out.
        lowest: learning rate of the first step.
        highest: learning rate of the last step. The test ends earlier if the smoothed loss exceeds
            4 times its lowest value, or is not finite.
        num_steps: number of steps, at least 10.
        progress: called with (steps done, num_steps); True shows a bar in a terminal or notebook.

    Raises:
        FileNotFoundError, ValueError: as `train` does, or an argument is out of its range.
    """
    if not 0 < lowest < highest:
        raise ValueError(f"lowest: got {lowest}, expected more than 0 and less than {highest}")
    if num_steps < 10:
        raise ValueError(f"num_steps: got {num_steps}, expected at least 10")
    records, tell = Records.open(records_dir), shown(progress, "step")
    steps = records.steps_per_epoch(records.split(fold)[0], recipe.batch_size)
    recipe = dataclasses.replace(
        recipe,
        epochs=math.ceil(num_steps / steps),
        learning_rate=highest,
        schedule=f"{__name__}:rising(ratio={lowest / highest!r})",
        warmup_epochs=0.0,
    )
    run = Run("", recipe, records.dataset, fold, records.identity)
    strategy = distribution.strategy("none")
    with distribution.precision(recipe.precision):
        check_start(run)
        check_memory(recipe)
        trainer = make_trainer(records, run, strategy)
        trainer.schedule.num_steps = num_steps - 1  # so that the last one has the highest rate
        batches = make_feed(records, run).training(Position())
        losses: list[float] = []
        for step, batch in enumerate(batches.take(num_steps), start=1):
            loss = float(trainer.step(*batch, tf.constant(0.0))[0])
            smoothed = smooth([*losses, loss])
            if not math.isfinite(loss) or smoothed[-1] > _DIVERGED * min(smoothed):
                break
            losses.append(loss)
            tell(step, num_steps)
    if not losses:
        raise ValueError(f"lowest: the loss is not finite in the first step, at rate {lowest}")
    smoothed = smooth(losses)
    rates = tuple(np.geomspace(lowest, highest, num_steps)[: len(losses)].tolist())
    return RateCurve(rates, tuple(losses), smoothed, propose(rates, smoothed))
