"""What one lane does for the tests of both: records, a run, rules, a SavedModel, predictions.

lane_program.py DATA OUT OTHER: writes all into the folder OUT, then goes on from what the other
lane has written into OTHER meanwhile.
"""

import dataclasses
import os
import shutil
import sys
import time

import numpy as np
import tensorflow as tf
import tiny  # noqa: F401

from clouds_tf import evaluation, serving, training
from clouds_tf.data import shards
from clouds_tf.dataset import CLOUDS
from clouds_tf.prediction.postprocessing import read_postprocessing
from clouds_tf.training import Recipe

EPOCHS = 4
# Not Adam, which divides by the size of gradients: else the last bits of convolutions, in which
# the lanes differ, grow from step to step.
RECIPE = Recipe(
    width=0.125,
    encoder="tiny",
    image_size=(48, 72),
    batch_size=4,
    epochs=EPOCHS,
    learning_rate=3e-3,
    optimizer="sgd",
)


def first(data, out):
    """Everything from the data on; gives the numbers of its run."""
    records, whole, half = (os.path.join(out, name) for name in ("records", "whole", "half"))
    shards.write_records(data, records, CLOUDS, num_shards=4, num_folds=3, num_workers=1)

    def keep_half(done, total):
        if done == total // 2 + 1:  # the first half is saved by now
            shutil.copytree(whole, half)

    result = training.train(records, whole, RECIPE, progress=keep_half, report=str)
    rules = os.path.join(out, "postprocessing.json")
    evaluation.evaluate(records, [whole], rules, settings=evaluation.Settings(batch_size=4))
    serving.export([whole], os.path.join(out, "E"), postprocessing=rules, check_images=2)
    predict(out, data, os.path.join(out, "own.csv"))
    return numbers(result, rules)


def second(data, out, other):
    """Goes on from what the other lane left; gives the numbers of its run, ended here."""
    half = shutil.copytree(os.path.join(other, "half"), os.path.join(out, "half_of_other"))
    result = training.train(os.path.join(other, "records"), half, RECIPE, report=str)
    predict(other, data, os.path.join(out, "other.csv"))
    return numbers(result, os.path.join(other, "postprocessing.json"))


def predict(folder, data, output):
    """Writes the submission of the SavedModel in a lane's folder."""
    images = os.path.join(data, "test_images")
    serving.predict(os.path.join(folder, "E", "1"), images, output)


def numbers(result, rules):
    """Losses, held-out Dice and rules as arrays."""
    rules = read_postprocessing(rules, CLOUDS).rules
    return {
        "losses": [row["loss"] for row in result.history],
        "dice": [row["val_dice"] for row in result.history],
        "rules": [dataclasses.astuple(rule) for rule in rules],
        "version": tf.__version__,
    }


def wait_for(path, seconds=300):
    """Waits for a file of the other lane."""
    for _ in range(10 * seconds):
        if os.path.exists(path):
            return
        time.sleep(0.1)
    sys.exit(f"{path}: the other lane has not written it")


def main():
    data, out, other = sys.argv[1:]
    os.makedirs(out)
    np.savez(os.path.join(out, "first.npz"), **first(data, out))
    open(os.path.join(out, "ready"), "w").close()
    wait_for(os.path.join(other, "ready"))
    np.savez(os.path.join(out, "second.npz"), **second(data, out, other))


if __name__ == "__main__":
    main()
