"""Checkpoints of a run: the best weights, those of its last epochs, and the state to resume."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from clouds_tf import files, gfile
from clouds_tf.keras import Model
from clouds_tf.messages import counted

BEST = "checkpoints/best"
_EPOCHS = "checkpoints/epochs"
_TOP = "checkpoints/top"
_LAST = "checkpoints/last"
_ORDER = "order/.ATTRIBUTES/VARIABLE_VALUE"


def restore_best(model: Model, workdir: str) -> None:
    """Sets a model to the best weights of a run.

    Raises:
        FileNotFoundError: no epoch has ended.
        ValueError: the checkpoint is damaged, or that of another model.
    """
    folder = os.path.join(workdir, BEST)
    files.check_loadable(folder)
    path = tf.train.latest_checkpoint(folder)
    if path is None:
        raise FileNotFoundError(f"{folder}: no checkpoint yet; train first")
    restored = _restore(tf.train.Checkpoint(model=model), path)
    try:
        restored.assert_existing_objects_matched().expect_partial()
    except AssertionError:
        raise ValueError(f"{path}: not a checkpoint of the model in settings.json") from None


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> Any:
    try:
        return checkpoint.restore(path)
    except (tf.errors.OpError, IndexError, ValueError) as error:
        reason = getattr(error, "message", None) or error
        raise ValueError(
            f"{path}: damaged checkpoint ({reason}); restore it from a copy, or train again in a "
            "new workdir"
        ) from None


class Checkpoints:
    """Writes and restores the checkpoints of a run; never changes an existing checkpoint.

    Args:
        workdir: a folder that all workers see.
        model: a Keras model.
        state: the Trainer state to save for resuming; None if the run is never resumed.
        num_epochs: number of last epochs whose weights are kept.
        num_top: number of best epochs whose weights are kept, in addition to `save_best`.
        chief: whether this worker's files are kept. The other workers must also save, since some
            variables are sums over all workers, but their files are deleted.
    """

    def __init__(
        self,
        workdir: str,
        model: Model,
        state: Any = None,
        num_epochs: int = 0,
        num_top: int = 0,
        chief: bool = True,
    ) -> None:
        self._workdir, self._chief = workdir, chief
        self._num_epochs, self._num_top = num_epochs, num_top
        self._state = state
        weights = tf.train.Checkpoint(model=model)
        self._last = tf.train.Checkpoint(
            model=model, **({"state": state, "order": state.order} if state else {})
        )
        self._scratch = None if chief else tempfile.mkdtemp()
        self._managers = {
            name: tf.train.CheckpointManager(
                checkpoint, os.path.join(self._scratch or workdir, name), max_to_keep=num_kept
            )
            for name, checkpoint, num_kept in (
                (BEST, weights, 1),
                (_EPOCHS, weights, num_epochs or 1),
                (_TOP, weights, None),
                (_LAST, self._last, 1),
            )
        }

    def restore_last(self, history: list[dict[str, float]]) -> None:
        """Restores the state of the last save, if there is one.

        Args:
            history: the rows of history.csv.

        Raises:
            ValueError: the checkpoint is missing or damaged, or does not fit the history.
        """
        folder = os.path.join(self._workdir, _LAST)
        path = tf.train.latest_checkpoint(folder)
        if path:
            self._restore_state(path)
        # A run that was killed during its very first save has one epoch, and starts again.
        elif len(history) > 1 or gfile.exists(os.path.join(folder, "checkpoint")):
            raise ValueError(
                f"{folder}: no checkpoint to resume from, but history.csv has "
                f"{counted(len(history), 'epoch')}; restore the folder, or start again in a new "
                "workdir"
            )

    def _restore_state(self, path: str) -> None:
        try:
            keys = set(tf.train.load_checkpoint(path).get_variable_to_dtype_map())
        except (tf.errors.OpError, ValueError, IndexError):
            keys = {_ORDER}  # restoring tells what is wrong
        order = self._state.order.numpy()
        is_resumable = _ORDER in keys
        if is_resumable:
            try:
                _restore(self._last, path).assert_consumed()
                is_resumable = self._state.order.numpy() == order
            except AssertionError:
                is_resumable = False
        if not is_resumable:
            raise ValueError(
                f"{path}: saved by another version of clouds_tf, which this one cannot resume; "
                f"start a new workdir with --init_checkpoint={os.path.join(self._workdir, BEST)}"
            )

    def save_best(self) -> None:
        """Saves the weights as the best."""
        self._save(BEST, self._next_number(BEST))

    def save_epoch(self, epoch: int) -> None:
        """Saves the weights of an epoch, unless `num_epochs` is 0."""
        if self._num_epochs:
            self._remove(_EPOCHS, epoch)  # left by a run that was killed in this epoch
            self._save(_EPOCHS, epoch)

    def save_top(self, scores: Sequence[float]) -> None:
        """Saves the weights of the last epoch if it is among the best, and removes the others.

        Args:
            scores: a number for every epoch so far; higher is better, and of equal scores the
                earlier one.
        """
        if not self._num_top:
            return
        ranked = sorted(range(1, len(scores) + 1), key=lambda epoch: -scores[epoch - 1])
        best = ranked[: self._num_top]
        for epoch in range(1, len(scores) + 1):
            if epoch not in best or epoch == len(scores):  # the last may be half-written
                self._remove(_TOP, epoch)
        if len(scores) in best:
            self._save(_TOP, len(scores))

    def _remove(self, name: str, number: int) -> None:
        """Removes a checkpoint of a folder, complete or partial."""
        if self._chief:
            for path in gfile.glob(os.path.join(self._workdir, name, f"ckpt-{number}.*")):
                gfile.remove(path)

    def save_last(self) -> None:
        """Saves the weights and the state."""
        self._save(_LAST, self._next_number(_LAST))

    def last_epochs(self) -> list[int]:
        """Lists the epochs whose weights are kept."""
        state = tf.train.get_checkpoint_state(os.path.join(self._workdir, _EPOCHS))
        paths = state.all_model_checkpoint_paths if state else []
        return [int(path.rsplit("-", 1)[1]) for path in paths]

    def epoch_paths(self, epochs: list[int]) -> list[str]:
        """Paths of the checkpoints of epochs."""
        return [os.path.join(self._workdir, _EPOCHS, f"ckpt-{epoch}") for epoch in epochs]

    def _next_number(self, name: str) -> int:
        """A number that no checkpoint in a folder has, including partial ones."""
        folder = os.path.join(self._workdir, name)
        names = gfile.listdir(folder) if gfile.exists(folder) else []
        found = [re.match(r"ckpt-(\d+)", name) for name in names]
        return max((int(match[1]) for match in found if match), default=0) + 1

    def _save(self, name: str, number: int) -> None:
        try:
            self._managers[name].save(number)
        except (tf.errors.OpError, OSError) as error:
            raise ValueError(
                f"{os.path.join(self._workdir, name)}: the checkpoint was not written "
                f"({getattr(error, 'message', error)}); the one before it is kept"
            ) from error
        if self._scratch:
            shutil.rmtree(self._scratch)
