"""Trains for some steps while the learning rate rises, draws the loss and proposes a rate.

python tools/find_learning_rate.py --records_dir=R --output=rates.csv
"""

import os

import cli

from absl import flags

from clouds_tf import figures, files
from clouds_tf.training import Recipe

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of records from make_tfrecords.", required=True)
flags.DEFINE_string("output", "rates.csv", "CSV to write; the curve is drawn next to it, as PNG.")
flags.DEFINE_integer("fold", 0, "Fold to hold out.", lower_bound=0)
flags.DEFINE_float("lowest", 1e-7, "Learning rate of the first step.")
flags.DEFINE_float("highest", 1.0, "Learning rate of the last step.")
flags.DEFINE_integer("num_steps", 100, "Number of steps.", lower_bound=10)
cli.DEFINE_dataclass(Recipe)

_UNUSED = "epochs learning_rate schedule warmup_epochs patience monitor metrics average_last ema"


def main() -> None:
    cli.refuse_unused((_UNUSED, "a whole training", False))
    cli.check_inputs("records_dir init_weights sample_weights soft_targets")
    picture = f"{os.path.splitext(FLAGS.output)[0]}.png"
    for path in [FLAGS.output, picture] if figures.AVAILABLE else [FLAGS.output]:
        files.check_output(path)
    from clouds_tf.training import rates  # which needs Keras

    with cli.progress_bar("step") as progress:
        found = rates.find_learning_rate(
            FLAGS.records_dir,
            cli.dataclass_from_flags(Recipe),
            FLAGS.fold,
            lowest=FLAGS.lowest,
            highest=FLAGS.highest,
            num_steps=FLAGS.num_steps,
            progress=progress,
        )
    found.write(FLAGS.output)
    if figures.AVAILABLE:
        figures.save(found.draw(), picture)
    where = f"{len(found.rates)} steps up to {found.rates[-1]:.3g}; wrote {FLAGS.output}"
    if found.proposal is None:
        print(f"No proposal: the loss does not fall in {where}")
    else:
        print(f"--learning_rate={found.proposal:.2g}: there the loss falls fastest, in {where}")


if __name__ == "__main__":
    cli.run(main)
