"""Prints the competition's Dice of a submission, per class and mean.

python tools/score.py --submission=submission.csv --annotations=train.csv
"""

import cli

from absl import flags

from clouds_tf import schema
from clouds_tf.data import annotations
from clouds_tf.evaluation.score import compare, table, worst_images

FLAGS = flags.FLAGS
flags.DEFINE_string("submission", None, "CSV with RLE at 350x525.", required=True)
flags.DEFINE_string("annotations", None, "CSV with the true RLE.", required=True)
cli.DEFINE_size("annotations_size", schema.IMAGE_SIZE, "Size of the masks of the true RLE.")
flags.DEFINE_string("per_image", None, "CSV to write: the images, the worst first, and why.")


def main():
    found = compare(FLAGS.submission, FLAGS.annotations, FLAGS.annotations_size)
    blank = found.true_areas == 0
    if FLAGS.per_image:
        annotations.write_table(FLAGS.per_image, *worst_images(found))
    print(table({"submission": found.dice, "all blank": blank}, interval_of="submission"))
    print(
        f"Dice {found.dice.mean():.4f} over {len(blank)} images (all blank: {blank.mean():.4f})"
        + (f"; wrote {FLAGS.per_image}" if FLAGS.per_image else "")
    )


if __name__ == "__main__":
    cli.run(main)
