"""Writes a synthetic folder in the layout of the competition.

    python tools/make_sample_data.py --output_dir=D [--num_train=48 --num_test=12]

Four procedural cloud textures, train.csv, test.csv (the truth) and sample_submission.csv.
"""

import cli

from absl import flags

from clouds_tf import schema
from clouds_tf.data import sample_data

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "Folder to write: a new or an empty one.", required=True)
flags.DEFINE_integer("num_train", 48, "Number of training images.")
flags.DEFINE_integer("num_test", 12, "Number of test images.")
cli.DEFINE_size(
    "image_size", schema.IMAGE_SIZE, "Height,width of the JPEG files; the RLE stays at 1400,2100."
)
flags.DEFINE_integer("seed", 0, "The same seed writes the same bytes.")


def main():
    sample_data.write_sample_data(
        output_dir=FLAGS.output_dir,
        num_train=FLAGS.num_train,
        num_test=FLAGS.num_test,
        image_size=FLAGS.image_size,
        seed=FLAGS.seed,
    )
    height, width = FLAGS.image_size
    print(
        f"Wrote {FLAGS.num_train} training and {FLAGS.num_test} test images of {height}x{width} "
        f"to {FLAGS.output_dir}"
    )


if __name__ == "__main__":
    cli.run(main)
