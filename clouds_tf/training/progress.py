"""What a person sees of a run: a line per epoch, a table, TensorBoard, pictures."""

import os

import numpy as np
import tensorflow as tf

from clouds_tf import figures
from clouds_tf.schema import CLASS_NAMES
from clouds_tf.training import workdir as workdirs

_NUM_PICTURES = 4


def epoch_line(history, epochs):
    """One line on the last epoch of a history.

    Args:
        history: a list of dicts, as `fit` gives it.
        epochs: the number of epochs of the whole run.

    Returns:
        A string: losses, Dice, speed, the share of time in which the device waited for input, and
        the time that is left at the mean pace so far.
    """
    row = history[-1]
    pace = sum(row["seconds"] for row in history) / len(history)
    return (
        f"epoch {row['epoch']:3.0f}/{epochs}  loss {row['loss']:.4f}  Dice {row['dice']:.4f}  "
        f"held out: loss {row['val_loss']:.4f}  Dice {row['val_dice']:.4f}  "
        f"{row['images_per_second']:.1f} images/s, input wait {row['input_wait']:.0%}, "
        f"{_duration(pace * (epochs - row['epoch']))} left"
    )


def _duration(seconds):
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _best_epoch(history):
    return max(history, key=lambda row: row["val_dice"])


def summary_table(history):
    """A table of the best and of the last epoch, with the Dice of every class held out."""
    lines = [["epoch", "loss", "val_loss", "val_dice", *CLASS_NAMES]]
    for name, row in (("best", _best_epoch(history)), ("last", history[-1])):
        columns = ["loss", "val_loss", "val_dice", *(f"val_dice_{c}" for c in CLASS_NAMES)]
        lines.append(
            [f"{row['epoch']:.0f} ({name})", *(f"{row[column]:.4f}" for column in columns)]
        )
    return "\n".join("  ".join(f"{cell:>9}" for cell in line) for line in lines)


def best_line(history, best_score, average_last):
    """What the weights that were kept are worth, and which they are: a line of text.

    Args:
        history: dicts with epoch and val_dice, one per epoch.
        best_score: the held-out Dice of the weights that were kept, a float32.
        average_last: the number of epochs at the end whose weights had their mean tried.
    """
    best = _best_epoch(history)
    whose = f"in epoch {best['epoch']:.0f}"
    if best_score > np.float32(best["val_dice"]):
        whose = f"by the mean of the last {average_last} epochs' weights"
    return f"best held-out Dice {best_score:.4f} {whose}"


class Progress:
    """Writes what a run has come to; on workers that are not the chief it is silent.

    Args:
        workdir: where history.csv, curves.png, predictions.png and tensorboard/ go.
        trainer: a Trainer.
        held_out: distributed batches (images, masks); the first images of the first are pictured.
        epochs: the number of epochs of the whole run.
        chief: whether this worker writes.
    """

    def __init__(self, workdir, trainer, held_out, epochs, chief=True):
        self.folder = os.path.join(workdir, "tensorboard")
        self._workdir, self._trainer, self._epochs, self._chief = workdir, trainer, epochs, chief
        self._images, self._masks = next(iter(held_out))
        if chief:
            self._writers = {
                name: tf.summary.create_file_writer(os.path.join(self.folder, name))
                for name in ("training", "held_out")
            }

    def epoch(self, history):
        """Says and writes how an epoch went; call it on all workers."""
        picture = self._predictions()
        if not self._chief:
            return
        print(epoch_line(history, self._epochs), flush=True)
        workdirs.write_history(self._workdir, history)
        row = history[-1]
        for name, value in row.items():
            held_out = name.startswith("val_")
            with self._writers["held_out" if held_out else "training"].as_default(row["epoch"]):
                tf.summary.scalar(name[len("val_") :] if held_out else name, value)
        if picture:
            with self._writers["held_out"].as_default(row["epoch"]):
                tf.summary.image("predictions", figures.pixels(picture)[None])
            figures.save(figures.curves(history), os.path.join(self._workdir, "curves.png"))
            figures.save(picture, os.path.join(self._workdir, "predictions.png"))

    def mean(self, num_epochs, score, best):
        """Says what the mean of the last weights is worth."""
        if self._chief:
            kept = "kept" if score > best else f"not kept, as the best has {best:.4f}"
            print(f"mean of the last {num_epochs} epochs' weights: Dice {score:.4f}, {kept}")

    def end(self, history):
        """Says how the run went."""
        if self._chief:
            print(summary_table(history))

    def _predictions(self):
        """Truth and prediction side by side; None where nothing can be drawn."""
        if not figures.AVAILABLE:
            return None
        found = self._trainer.predict(self._images)

        def here(values):
            parts = self._trainer.strategy.experimental_local_results(values)
            return tf.concat(parts, axis=0)[:_NUM_PICTURES].numpy()

        images, masks, found = here(self._images), here(self._masks), here(found)
        if not self._chief:
            return None
        return figures.overlays(
            [image for image in images for _ in range(2)],
            [mask for pair in zip(masks, found) for mask in pair],
            ["truth", "prediction"] * len(images),
            num_columns=2,
        )
