"""Prints the competition's Dice of a submission, per class and mean.

python tools/score.py --submission=submission.csv --annotations=train.csv
"""

from absl import flags

import cli
from clouds_tf import schema
from clouds_tf.evaluation.score import score, table

FLAGS = flags.FLAGS
flags.DEFINE_string("submission", None, "CSV with RLE at 350x525.", required=True)
flags.DEFINE_string("annotations", None, "CSV with the true RLE.", required=True)
cli.DEFINE_size("annotations_size", schema.IMAGE_SIZE, "Size of the masks of the true RLE.")


def main():
    scores = score(FLAGS.submission, FLAGS.annotations, FLAGS.annotations_size)
    print(table(scores))
    means = {name: values.mean() for name, values in scores.items()}
    print(
        f"Dice {means['submission']:.4f} over {len(scores['submission'])} images "
        f"(all blank: {means['all blank']:.4f})"
    )


if __name__ == "__main__":
    cli.run(main)
