"""Writes a synthetic data folder, in the layout of the competition or of another data set.

    python tools/make_sample_data.py --output_dir=D [--num_train=48 --num_test=12]

It has procedural cloud textures, train.csv, test.csv (the true masks) and sample_submission.csv,
with the names and formats of --dataset.
"""

import cli

from absl import flags

from clouds_tf.data import sample_data
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("output_dir", None, "Folder to write: a new or an empty one.", required=True)
cli.DEFINE_dataset()
flags.DEFINE_integer("num_train", 48, "Number of training images.", lower_bound=1)
flags.DEFINE_integer("num_test", 12, "Number of test images.", lower_bound=1)
cli.DEFINE_size(
    "image_size",
    None,
    "Size of the images; default: the data set's mask_size, at which the RLE always is.",
)
flags.DEFINE_integer(
    "seed", 0, "Seed of the images; the same seed gives the same bytes.", lower_bound=0
)


def main() -> None:
    with cli.progress_bar("image") as progress:
        sample_data.write_sample_data(
            FLAGS.output_dir,
            FLAGS.num_train,
            FLAGS.num_test,
            FLAGS.image_size,
            FLAGS.seed,
            FLAGS.dataset,
            progress,
        )
    height, width = FLAGS.image_size or FLAGS.dataset.mask_size
    print(
        f"Wrote {FLAGS.num_train} training and {counted(FLAGS.num_test, 'test image')} "
        f"of {height}x{width} to {FLAGS.output_dir}"
    )


if __name__ == "__main__":
    cli.run(main)
