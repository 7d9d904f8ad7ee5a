"""Trains a U-Net on all folds but one; the same command goes on with a run that was interrupted.

python tools/train.py --records_dir=R --workdir=W --fold=0
"""

import functools
import os

import cli

from absl import flags

from clouds_tf import files, schema
from clouds_tf.data import input_pipeline, shards
from clouds_tf.data.augmentation import AUGMENTATIONS, MIXES
from clouds_tf.models import losses, weights
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.models.unet import unet
from clouds_tf.training import distribution, workdir
from clouds_tf.training.fit import fit
from clouds_tf.training.optimizers import OPTIMIZERS
from clouds_tf.training.progress import best_line
from clouds_tf.training.schedules import SCHEDULES
from clouds_tf.training.trainer import Trainer

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of shards, of make_tfrecords.", required=True)
flags.DEFINE_string("workdir", None, "Folder for checkpoints, history, pictures.", required=True)
flags.DEFINE_string("fold", "0", "The fold to hold out; all: one after the other, in W/fold_0, ...")
flags.DEFINE_integer("epochs", 25, "Times that every image is shown.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", lower_bound=1)
cli.DEFINE_size("image_size", (320, 480), "Size of the images that the network sees.")
flags.DEFINE_string(
    "loss", "bce_dice", "A sum such as 0.75*bce+0.25*dice of " + ", ".join(losses.LOSSES)
)
flags.DEFINE_enum("optimizer", "nadam", sorted(OPTIMIZERS), "What changes the weights.")
flags.DEFINE_float("learning_rate", 2e-4, "The highest learning rate.", lower_bound=0)
flags.DEFINE_enum("schedule", "constant", sorted(SCHEDULES), "Of the learning rate.")
flags.DEFINE_float("warmup_epochs", 0, "In which the learning rate grows from 0.", lower_bound=0)
flags.DEFINE_float("weight_decay", 0.01, "Of adamw; not of biases and norms.", lower_bound=0)
flags.DEFINE_float("clip_norm", None, "The largest length of the gradients.", lower_bound=0)
flags.DEFINE_float(
    "ema", None, "Decay of a moving average of the weights, to keep.", lower_bound=0, upper_bound=1
)
flags.DEFINE_integer("average_last", 0, "Epochs whose mean weights are tried.", lower_bound=0)
flags.DEFINE_float("width", 1.0, "Multiplies the channels of the network.", lower_bound=0.05)
flags.DEFINE_enum("encoder", "resnet34", sorted(ENCODERS), "The encoder of the network.")
flags.DEFINE_string("encoder_weights", None, "Published weights, .safetensors or .h5.")
flags.DEFINE_string("init_checkpoint", None, "To start from: W/checkpoints/best of a workdir W.")
flags.DEFINE_boolean("freeze_encoder", False, "Whether the encoder keeps its weights.")
flags.DEFINE_float(
    "encoder_learning_rate_factor", 1, "Of the encoder's learning rate.", lower_bound=0
)
flags.DEFINE_boolean("classification_head", False, "Whether to learn presence beside the masks.")
flags.DEFINE_boolean("xla", False, "Whether XLA compiles the step.")
flags.DEFINE_enum("augmentation", "flips", sorted(AUGMENTATIONS), "What happens to each image.")
flags.DEFINE_enum("mix", "none", sorted(MIXES), "What happens to each batch.")
flags.DEFINE_enum("cache", "none", ["none", "memory", "disk"], "Where decoded images are kept.")
flags.DEFINE_string("cache_dir", None, "Folder for --cache=disk.")
flags.DEFINE_string("data_service", None, "grpc://host:port of tools/data_service.py.")
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "Of computations.")
flags.DEFINE_enum("distribute", "none", ["none", "mirrored", "multi_worker"], "Devices.")
flags.DEFINE_integer("num_devices", None, "How many, under mirrored.", lower_bound=1)
flags.DEFINE_boolean("deterministic", False, "Whether every run gives the same bits.")
flags.DEFINE_boolean("profile", False, "Whether to write a trace for TensorBoard.")
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", lower_bound=0)


def train(fold, folder):
    """Trains on all folds but one."""
    strategy = distribution.strategy(FLAGS.distribute, FLAGS.num_devices)
    folds, held_out = input_pipeline.split_folds(FLAGS.records_dir, fold)
    steps = input_pipeline.steps_per_epoch(FLAGS.records_dir, folds, FLAGS.batch_size)
    settings = {
        "model": {
            "num_classes": schema.NUM_CLASSES,
            **{name: FLAGS[name].value for name in ("width", "encoder", "classification_head")},
        },
        "records": shards.fingerprint(FLAGS.records_dir),
        "image_size": list(FLAGS.image_size),
        "fold": fold,
        **{
            name: FLAGS[name].value
            for name in ("epochs", "batch_size", "loss", "optimizer", "learning_rate", "schedule")
            + ("warmup_epochs", "weight_decay", "clip_norm", "ema", "average_last", "augmentation")
            + ("mix", "precision", "seed", "encoder_weights", "init_checkpoint", "freeze_encoder")
            + ("encoder_learning_rate_factor", "xla")
        },
    }
    distribution.set_seed(FLAGS.seed)
    with strategy.scope():
        model = unet(**settings["model"])
        if FLAGS.encoder_weights:
            weights.load_encoder_weights(model, FLAGS.encoder_weights)
        if FLAGS.init_checkpoint:
            weights.load_checkpoint(model, FLAGS.init_checkpoint)
        trainer = Trainer(
            model,
            losses.parse(FLAGS.loss),
            FLAGS.epochs * steps,
            optimizer=FLAGS.optimizer,
            learning_rate=FLAGS.learning_rate,
            schedule=FLAGS.schedule,
            warmup_steps=round(FLAGS.warmup_epochs * steps),
            weight_decay=FLAGS.weight_decay,
            clip_norm=FLAGS.clip_norm,
            ema=FLAGS.ema,
            freeze_encoder=FLAGS.freeze_encoder,
            encoder_learning_rate_factor=FLAGS.encoder_learning_rate_factor,
            xla=FLAGS.xla,
        )
    # Not before, so that a wrong file of weights leaves no workdir behind.
    if distribution.is_chief(strategy):
        workdir.start(folder, settings)
        files.write_text(os.path.join(folder, "flags.txt"), FLAGS.flags_into_string())

    def training_batches(initial_epoch, worker, num_workers):
        return input_pipeline.training_batches(
            FLAGS.records_dir,
            folds,
            FLAGS.image_size,
            FLAGS.batch_size,
            FLAGS.epochs,
            FLAGS.seed,
            initial_epoch=initial_epoch,
            augmentation=FLAGS.augmentation,
            mix=FLAGS.mix,
            cache=FLAGS.cache,
            cache_dir=FLAGS.cache_dir,
            data_service=FLAGS.data_service,
            worker=worker,
            num_workers=num_workers,
        )

    def validation_batches(worker, num_workers):
        return input_pipeline.validation_batches(
            FLAGS.records_dir,
            held_out,
            FLAGS.image_size,
            FLAGS.batch_size,
            worker=worker,
            num_workers=num_workers,
        )

    batch_files = functools.partial(
        input_pipeline.batch_files, FLAGS.records_dir, folds, FLAGS.batch_size, FLAGS.seed
    )
    history = fit(
        trainer,
        training_batches,
        validation_batches,
        folder,
        FLAGS.epochs,
        steps,
        functools.partial(batch_files, cache=FLAGS.cache),
        average_last=FLAGS.average_last,
        profile=FLAGS.profile,
    )
    best = best_line(history, trainer.best_score.numpy(), FLAGS.average_last)
    print(f"Trained {len(history)} epochs; {best}; workdir {folder}")


def main():
    if FLAGS.fold == "all":
        folds = range(shards.read_info(FLAGS.records_dir)["num_folds"])
        runs = [(fold, os.path.join(FLAGS.workdir, f"fold_{fold}")) for fold in folds]
    elif FLAGS.fold.isdecimal():
        runs = [(int(FLAGS.fold), FLAGS.workdir)]
    else:
        raise ValueError(f"fold: got {FLAGS.fold!r}, expected a number or all")
    distribution.set_precision(FLAGS.precision)
    if FLAGS.deterministic:
        distribution.set_deterministic()
    with distribution.restarting(FLAGS.distribute):
        for fold, folder in runs:
            train(fold, folder)


if __name__ == "__main__":
    cli.run(main)
