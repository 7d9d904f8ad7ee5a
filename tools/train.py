"""Trains a U-Net on all folds but one; the same command goes on with a run that was interrupted.

python tools/train.py --records_dir=R --workdir=W --fold=0
"""

import functools
import os

from absl import flags

import cli
from clouds_tf import files, schema
from clouds_tf.data import examples, input_pipeline
from clouds_tf.data.augmentation import AUGMENTATIONS, MIXES
from clouds_tf.models import losses, pretrained
from clouds_tf.models.unet import ENCODERS, unet
from clouds_tf.training import distribution, workdir
from clouds_tf.training.fit import SCORE, compile_model, fit

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of shards, of make_tfrecords.", required=True)
flags.DEFINE_string("workdir", None, "Folder for checkpoints, history, curves.", required=True)
flags.DEFINE_integer("fold", 0, "The fold to hold out.", lower_bound=0)
flags.DEFINE_integer("epochs", 25, "Times that every image is shown.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Images in a step, over all devices.", lower_bound=1)
cli.DEFINE_size("image_size", (320, 480), "Size of the images that the network sees.")
flags.DEFINE_string(
    "loss", "bce_dice", "A sum such as 0.75*bce+0.25*dice of " + ", ".join(losses.LOSSES)
)
flags.DEFINE_float("learning_rate", 2e-4, "Learning rate of Nadam.", lower_bound=0)
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
flags.DEFINE_enum("distribute", "none", ["none", "mirrored"], "Devices to train on.")
flags.DEFINE_integer("num_devices", None, "How many, under mirrored.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, order and augmentation.", lower_bound=0)


def main():
    strategy = distribution.strategy(FLAGS.distribute, FLAGS.num_devices)
    folds, held_out = input_pipeline.split_folds(FLAGS.records_dir, FLAGS.fold)
    settings = {
        "model": {
            "num_classes": schema.NUM_CLASSES,
            **{name: FLAGS[name].value for name in ("width", "encoder", "classification_head")},
        },
        "records": examples.fingerprint(FLAGS.records_dir),
        "image_size": list(FLAGS.image_size),
        **{
            name: FLAGS[name].value
            for name in ("fold", "epochs", "batch_size", "loss", "learning_rate")
            + ("augmentation", "mix", "precision", "seed", "encoder_weights", "init_checkpoint")
            + ("freeze_encoder", "encoder_learning_rate_factor", "xla")
        },
    }
    distribution.set_precision(FLAGS.precision)
    distribution.set_seed(FLAGS.seed)
    with strategy.scope():
        model = unet(**settings["model"])
        if FLAGS.encoder_weights:
            pretrained.load_encoder_weights(model, FLAGS.encoder_weights)
        if FLAGS.init_checkpoint:
            pretrained.load_checkpoint(model, FLAGS.init_checkpoint)
        compile_model(
            model,
            FLAGS.loss,
            FLAGS.learning_rate,
            FLAGS.freeze_encoder,
            FLAGS.encoder_learning_rate_factor,
            FLAGS.xla,
        )
    # Not before, so that a wrong file of weights leaves no workdir behind.
    workdir.start(FLAGS.workdir, settings)
    files.write_text(os.path.join(FLAGS.workdir, "flags.txt"), FLAGS.flags_into_string())
    history = fit(
        model,
        functools.partial(
            input_pipeline.training_batches,
            FLAGS.records_dir,
            folds,
            FLAGS.image_size,
            FLAGS.batch_size,
            FLAGS.epochs,
            FLAGS.seed,
            augmentation=FLAGS.augmentation,
            mix=FLAGS.mix,
            cache=FLAGS.cache,
            cache_dir=FLAGS.cache_dir,
            data_service=FLAGS.data_service,
        ),
        input_pipeline.validation_batches(
            FLAGS.records_dir, held_out, FLAGS.image_size, FLAGS.batch_size
        ),
        FLAGS.workdir,
        FLAGS.epochs,
        input_pipeline.steps_per_epoch(FLAGS.records_dir, folds, FLAGS.batch_size),
    )
    best = max(history, key=lambda row: row[SCORE])
    print(
        f"Trained {len(history)} epochs; best held-out Dice {best[SCORE]:.4f} "
        f"in epoch {best['epoch']:.0f}; workdir {FLAGS.workdir}"
    )


if __name__ == "__main__":
    cli.run(main)
