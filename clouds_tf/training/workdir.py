"""The folder of one training run: its settings, checkpoints and history."""

import csv
import io
import json
import os

import tensorflow as tf

from clouds_tf import files
from clouds_tf.data import examples
from clouds_tf.models.unet import unet

SETTINGS_FILE = "settings.json"
HISTORY_FILE = "history.csv"
_BEST = "checkpoints/best"
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
    expected, got = read_settings(workdir)["records"], examples.fingerprint(records_dir)
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


def checkpoint_managers(workdir, model, **state):
    """Two tf.train.CheckpointManager: (best, of the model; last, of the model and the state)."""
    best = tf.train.Checkpoint(model=model)
    last = tf.train.Checkpoint(model=model, **state)
    return tuple(
        tf.train.CheckpointManager(checkpoint, os.path.join(workdir, folder), max_to_keep=1)
        for checkpoint, folder in ((best, _BEST), (last, _LAST))
    )


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
