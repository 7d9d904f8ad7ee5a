"""The folder of one training run: its settings, checkpoints and history."""

import csv
import io
import json
import os
import shutil
import tempfile

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import shards
from clouds_tf.models.unet import unet

SETTINGS_FILE = "settings.json"
HISTORY_FILE = "history.csv"
_BEST = "checkpoints/best"
_EPOCHS = "checkpoints/epochs"
_LAST = "checkpoints/last"


def start(workdir, settings):
    """Makes a workdir for a run with these settings, or finds that it is this run's already.

    Args:
        workdir: a folder that is new, empty, or of a run with the same settings; only `epochs` may
            differ, so that a run can be made longer.
        settings: a JSON-like dict. `model` holds the arguments of `unet`, `image_size` is a list.

    Raises:
        ValueError: the folder holds something else, or a run with other settings, which are named.
    """
    path = os.path.join(workdir, SETTINGS_FILE)
    if tf.io.gfile.exists(path):
        earlier = read_settings(workdir)
        for key in sorted({*earlier, *settings} - {"epochs"}):
            if earlier.get(key) != settings.get(key):
                raise ValueError(
                    f"workdir: {workdir} holds a run with {key}={earlier.get(key)}, got "
                    f"{key}={settings.get(key)}; give the same flags to resume it, or a new workdir"
                )
    elif tf.io.gfile.exists(workdir) and tf.io.gfile.listdir(workdir):
        raise ValueError(f"workdir: {workdir} holds files, but no run ({SETTINGS_FILE}) to resume")
    files.write_text(path, json.dumps(settings, indent=1) + "\n")


def read_settings(workdir):
    """The settings of the run in a workdir; FileNotFoundError if there is none."""
    return json.loads(files.read_text(os.path.join(workdir, SETTINGS_FILE)))


def check_records(workdir, records_dir):
    """Raises ValueError unless the run of a workdir was trained on these very records."""
    expected, got = read_settings(workdir)["records"], shards.fingerprint(records_dir)
    if got != expected:
        raise ValueError(
            f"{workdir}: trained on records with the fingerprint {expected}, but {records_dir} has "
            f"{got}, so it may have seen what is held out there"
        )


def load_model(workdir):
    """Builds the model of a workdir with the weights of its best epoch.

    It computes in float32, or in the precision that was set before.

    Raises:
        FileNotFoundError: there is no run, or none of its epochs has ended.
    """
    model = unet(**read_settings(workdir)["model"])
    path = tf.train.latest_checkpoint(os.path.join(workdir, _BEST))
    if path is None:
        raise FileNotFoundError(f"{os.path.join(workdir, _BEST)}: no checkpoint yet; train first")
    restored = tf.train.Checkpoint(model=model).restore(path)
    restored.assert_existing_objects_matched().expect_partial()
    return model


class Checkpoints:
    """The checkpoints of a run: the best weights, those of the last epochs, and the last state.

    Args:
        workdir: a folder that all workers see.
        model: a Keras model.
        state: what else it takes to go on, a trackable object; None where nobody will.
        num_epochs: of how many last epochs the weights are kept.
        chief: whether this is the worker whose files are kept. The others must save as well, as
            some variables are sums over all of them, but what they write is thrown away.
    """

    def __init__(self, workdir, model, state=None, num_epochs=0, chief=True):
        self._workdir, self._chief, self._num_epochs = workdir, chief, num_epochs
        weights = tf.train.Checkpoint(model=model)
        self._last = tf.train.Checkpoint(model=model, **({"state": state} if state else {}))
        self._scratch = None if chief else tempfile.mkdtemp()
        self._managers = {
            name: tf.train.CheckpointManager(
                checkpoint, os.path.join(self._scratch or workdir, name), max_to_keep=num_kept
            )
            for name, checkpoint, num_kept in (
                (_BEST, weights, 1),
                (_EPOCHS, weights, num_epochs or 1),
                (_LAST, self._last, 1),
            )
        }

    def restore_last(self):
        """Brings back the last state, if there is one."""
        path = tf.train.latest_checkpoint(os.path.join(self._workdir, _LAST))
        if path:
            self._last.restore(path).assert_consumed()

    def save_best(self):
        """Keeps the weights as the best."""
        self._save(_BEST)

    def save_epoch(self, epoch):
        """Keeps the weights as those of an epoch, if those of any are wanted."""
        if self._num_epochs:
            self._save(_EPOCHS, epoch)

    def save_last(self):
        """Keeps the weights and the state."""
        self._save(_LAST)

    def last_epochs(self):
        """The paths of the checkpoints of the last epochs."""
        folder = os.path.join(self._workdir, _EPOCHS)
        return list(tf.train.get_checkpoint_state(folder).all_model_checkpoint_paths)

    def _save(self, name, number=None):
        try:
            self._managers[name].save(number)
        except (tf.errors.OpError, OSError) as error:
            raise ValueError(
                f"{os.path.join(self._workdir, name)}: the checkpoint was not written "
                f"({getattr(error, 'message', error)}); the one before it is kept"
            ) from error
        if self._scratch:
            shutil.rmtree(self._scratch)


def read_history(workdir):
    """The rows of history.csv: a list of dicts of numbers, one per epoch that has ended."""
    path = os.path.join(workdir, HISTORY_FILE)
    if not tf.io.gfile.exists(path):
        return []
    rows = csv.DictReader(io.StringIO(files.read_text(path)))
    return [{key: float(value) for key, value in row.items()} for row in rows]


def write_history(workdir, rows):
    """Writes what `read_history` reads."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    files.write_text(os.path.join(workdir, HISTORY_FILE), text.getvalue())
