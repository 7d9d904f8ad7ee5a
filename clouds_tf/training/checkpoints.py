"""Checkpoints of one run: the best weights, those of its last epochs, and the state to resume."""

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
_BEST_SCORE = "state/best_score/.ATTRIBUTES/VARIABLE_VALUE"  # key in a checkpoint


def restore_best(model: Model, workdir: str) -> None:
    """Sets a model to the best weights of a run.

    Raises:
        FileNotFoundError: no epoch has ended.
        ValueError: the checkpoint is damaged, or of another model.
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
    """Writes and restores the checkpoints of a run. No file of an earlier checkpoint is changed.

    Args:
        workdir: a folder that all workers see.
        model: a Keras model.
        state: the Trainer state to save for resuming; None if the run is never resumed.
        num_epochs: number of last epochs whose weights are kept.
        num_top: number of best epochs whose weights are kept, apart from those of `save_best`.
        chief: whether this is the worker whose files are kept. The others must save as well, as
            some variables are sums over all of them, but their files are thrown away.
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
        self._state, self._model = state, model
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
            self._restore_state(path, [row["val_dice"] for row in history])
        # A run that was killed in the first save of all has one epoch, and starts again.
        elif len(history) > 1 or gfile.exists(os.path.join(folder, "checkpoint")):
            raise ValueError(
                f"{folder}: no checkpoint to resume from, but history.csv has "
                f"{counted(len(history), 'epoch')}; restore the folder, or start again in a new "
                "workdir"
            )

    def _restore_state(self, path: str, scores: list[float]) -> None:
        try:
            older = tf.train.load_checkpoint(path).get_variable_to_dtype_map()
        except (tf.errors.OpError, ValueError, IndexError):
            older = {_ORDER: tf.int64}  # restoring tells what is wrong
        last, exact = self._last, self._state.best_score
        if _ORDER not in older:  # of earlier versions
            last = tf.train.Checkpoint(model=self._model, state=self._state)
            self._state.order.assign(0)
        rounded = older.get(_BEST_SCORE) == tf.float32  # of still earlier ones
        if rounded:
            with self._state.strategy.scope():
                self._state.best_score = tf.Variable(0.0, trainable=False)
        try:
            _restore(last, path).assert_consumed()
        except AssertionError:
            raise ValueError(
                f"{path}: the state in it does not fit: radam, lamb and lookahead of clouds_tf 2 "
                "kept another; start a new workdir with "
                f"--init_checkpoint={os.path.join(self._workdir, BEST)}"
            ) from None
        if rounded:
            found = self._state.best_score.numpy()
            same = [score for score in scores if found.dtype.type(score) == found]
            exact.assign(same[0] if same else float(found))
            self._state.best_score = exact

    def save_best(self) -> None:
        """Saves the weights as the best."""
        self._save(BEST, self._next_number(BEST))

    def save_epoch(self, epoch: int) -> None:
        """Saves the weights as those of an epoch, if those of any are kept."""
        if self._num_epochs:
            self._remove(_EPOCHS, epoch)  # left by a run that was killed in this epoch
            self._save(_EPOCHS, epoch)

    def save_top(self, scores: Sequence[float]) -> None:
        """Saves the weights of the last epoch if it is among the best, and removes all others.

        Args:
            scores: a number for every epoch so far; higher is better, and the earlier of two equal
                ones.
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
        """Removes a checkpoint of a folder, whole or half-written."""
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
        """A number that no checkpoint in a folder has, not even an unfinished one."""
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
