"""Trains a U-Net on all folds but one; the same command resumes an interrupted run.

python tools/train.py --records_dir=R --workdir=W --fold=0
"""

import contextlib
import os

import cli

from absl import flags

from clouds_tf import files, training
from clouds_tf.models.encoders.imagenet import IMAGENET
from clouds_tf.progress import Bar
from clouds_tf.training import Execution, Recipe

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of records from make_tfrecords.", required=True)
flags.DEFINE_string("workdir", None, "Folder for checkpoints, history and pictures.", required=True)
flags.DEFINE_string(
    "fold", "0", "Fold to hold out; all trains one model per fold, in W/fold_0, W/fold_1, ..."
)
cli.DEFINE_dataclass(Recipe)
cli.DEFINE_dataclass(Execution)


def _write_flags(workdir: str) -> None:
    files.write_text(os.path.join(workdir, "flags.txt"), FLAGS.flags_into_string())


def main() -> None:
    if FLAGS.fold != "all" and not FLAGS.fold.isdecimal():
        raise ValueError(f"fold: got {FLAGS.fold!r}, expected a number or all")
    whole = FLAGS.init_checkpoint or FLAGS.init_weights
    decays = FLAGS.optimizer.startswith(("adamw", "lamb", "addons:"))
    cli.refuse_unused(
        ("weight_decay", "--optimizer=adamw, lamb or addons:NAME", decays),
        ("encoder_weights", "a model that does not start from whole weights", not whole),
        ("allow_seen_images", "--init_checkpoint or --init_weights", whole),
        ("encoder_learning_rate_factor", "an encoder that learns", not FLAGS.freeze_encoder),
        ("num_devices", "--distribute=mirrored", FLAGS.distribute == "mirrored"),
        ("cache_dir", "--cache=disk", FLAGS.cache == "disk"),
        ("soft_weight", "--soft_targets", FLAGS.soft_targets),
    )
    recipe, execution = cli.dataclass_from_flags(Recipe), cli.dataclass_from_flags(Execution)
    cli.check_inputs("records_dir init_weights sample_weights soft_targets")
    if FLAGS.encoder_weights != IMAGENET:
        cli.check_inputs("encoder_weights")
    arguments = (FLAGS.records_dir, FLAGS.workdir, recipe)
    # Without a bar where nobody watches: train has lines of its own.
    with contextlib.closing(Bar("step")) as progress:
        if FLAGS.fold == "all":
            results = training.train_folds(
                *arguments, execution, on_start=_write_flags, progress=progress
            )
            mean = sum(result.best_score for result in results) / len(results)
            closing = (
                f"Trained {len(results)} folds; mean held-out {recipe.monitor} "
                f"{recipe.shown(mean):.4f}; workdirs {FLAGS.workdir}/fold_*"
            )
        else:
            fold = int(FLAGS.fold)
            closing = str(
                training.train(
                    *arguments, fold, execution, on_start=_write_flags, progress=progress
                )
            )
    print(closing)


if __name__ == "__main__":
    cli.run(main)
