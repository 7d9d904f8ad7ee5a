"""Prints the competition's Dice of a submission, per class and mean.

python tools/score.py --submission=submission.csv --annotations=train.csv
"""

import cli

from absl import flags

from clouds_tf import files
from clouds_tf.evaluation.score import compare, table, worst_images
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("submission", None, "CSV of predict, or NAME.parquet.", required=True)
flags.DEFINE_string("annotations", None, "CSV with the true RLE of the same images.", required=True)
cli.DEFINE_size(
    "annotations_size", None, "Size of the masks of the true RLE; default: the data set's."
)
flags.DEFINE_string(
    "per_image", None, "Output CSV with the score and main error of each image, worst first."
)
cli.DEFINE_dataset()


def main() -> None:
    cli.check_inputs("submission annotations")
    if FLAGS.per_image:
        files.check_output(FLAGS.per_image)
    found = compare(FLAGS.submission, FLAGS.annotations, FLAGS.dataset, FLAGS.annotations_size)
    if FLAGS.per_image:
        files.write_table(FLAGS.per_image, *worst_images(found))
    scores = {"all_blank": found.all_blank, "submission": found.dice}
    print(table(scores, found.class_names, interval_of="submission", baseline="all_blank"))
    print(
        f"Dice {found.dice.mean():.4f} over {counted(len(found.filenames), 'image')} "
        f"(all blank: {found.all_blank.mean():.4f})"
        + (f"; wrote {FLAGS.per_image}" if FLAGS.per_image else "")
    )


if __name__ == "__main__":
    cli.run(main)
