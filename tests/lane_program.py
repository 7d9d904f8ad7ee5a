"""What one lane does for the tests of both: records, a short training, a SavedModel, predictions.

lane_program.py first DATA OUT          everything from the data on
lane_program.py second DATA OUT OTHER   goes on from what the other lane left in OTHER
"""

import dataclasses
import os
import sys

import numpy as np
import tensorflow as tf
import tiny  # noqa: F401

from clouds_tf import serving, training
from clouds_tf.data import input_pipeline, shards
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS
from clouds_tf.models.unet import unet
from clouds_tf.training import Recipe, distribution
from clouds_tf.training.trainer import Trainer

SIZE = (48, 72)
STEPS = 30
RESUMED = 15  # step after which the checkpoint is written
# Small steps, and not of Adam, which divides by the size of gradients: else the last bits of
# convolutions, in which the lanes differ, grow from step to step.
RECIPE = Recipe(
    width=0.125,
    encoder="tiny",
    image_size=SIZE,
    batch_size=4,
    epochs=6,
    learning_rate=3e-4,
    optimizer="sgd",
)
# What is exported has learned something, so that few probabilities lie near the threshold.
EXPORTED = dataclasses.replace(RECIPE, learning_rate=3e-3, optimizer="adam")


class Interrupted(Exception):
    """Raised in the middle of a training."""


def interrupt(done, total):
    """A progress function that stops a run after half of its steps."""
    if done >= total // 2:
        raise Interrupted


def curve(records, out, start=None):
    """Losses of the steps up to STEPS, from the first one or from a checkpoint after RESUMED."""
    opened = Records.open(records)
    folds, _ = opened.split(0)
    distribution.set_seed(0)
    trainer = Trainer(unet(width=0.125, encoder="tiny"), RECIPE, STEPS, CLOUDS.class_names)
    checkpoint = tf.train.Checkpoint(state=trainer)
    if start:
        checkpoint.read(start).assert_consumed()
    epochs = -(-STEPS // opened.steps_per_epoch(folds, RECIPE.batch_size))
    batches = input_pipeline.training_batches(records, folds, SIZE, RECIPE.batch_size, epochs)
    losses = []
    for step, (images, masks) in enumerate(batches.take(STEPS)):
        if start and step < RESUMED:
            continue
        if step == RESUMED and not start:
            checkpoint.write(os.path.join(out, "state"))
        losses.append(float(trainer.step(images, masks, tf.constant(0.0))[0]))
    return losses


def predict(export_dir, data, output):
    """Writes the submission of a SavedModel."""
    serving.predict(os.path.join(export_dir, "1"), os.path.join(data, "test_images"), output)


def main():
    command, data, out, *other = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    if command == "first":
        records = os.path.join(out, "records")
        shards.write_records(data, records, CLOUDS, num_shards=4, num_folds=3, num_workers=1)
        losses = curve(records, out)
        result = training.train(records, os.path.join(out, "whole"), RECIPE, report=lambda _: None)
        exported = os.path.join(out, "exported")
        training.train(records, exported, EXPORTED, report=lambda _: None)
        serving.export([exported], os.path.join(out, "export"), check_images=2)
        predict(os.path.join(out, "export"), data, os.path.join(out, "own.csv"))
        workdir = os.path.join(out, "half")
        try:
            training.train(records, workdir, RECIPE, progress=interrupt, report=lambda _: None)
        except Interrupted:
            pass
    else:
        (other,) = other
        records = os.path.join(other, "records")
        losses = curve(records, out, os.path.join(other, "state"))
        predict(os.path.join(other, "export"), data, os.path.join(out, "other.csv"))
        workdir = os.path.join(other, "half")
        result = training.train(records, workdir, RECIPE, report=lambda _: None)
    np.savez(
        os.path.join(out, f"{command}.npz"),
        losses=losses,
        history=[row["loss"] for row in result.history],
        dice=[row["val_dice"] for row in result.history],
        version=tf.__version__,
    )


if __name__ == "__main__":
    main()
