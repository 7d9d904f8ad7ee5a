"""Draws one image and its masks under each augmentation.

python tools/show_augmentation.py --records_dir=R --output=augmentation.png
"""

import cli

from absl import flags

from clouds_tf import figures, files
from clouds_tf.data.records import Records

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of records from make_tfrecords.", required=True)
flags.DEFINE_string("output", "augmentation.png", "Picture to write.")
cli.DEFINE_size("image_size", (320, 480), "Size of the images.")
flags.DEFINE_integer("seed", 0, "Seed of the augmentations.", lower_bound=0)
flags.DEFINE_integer("num_columns", 3, "Number of examples of each augmentation.", lower_bound=1)
flags.DEFINE_multi_string(
    "augmentation", [], "Layers of keras-cv to draw as well, as train.py takes them; repeatable."
)


def main() -> None:
    cli.check_inputs("records_dir")
    files.require("matplotlib", "plots", "--output")
    files.check_output(FLAGS.output)
    records = Records.open(FLAGS.records_dir)
    from clouds_tf.data import showcase  # which needs TensorFlow

    figure = showcase.draw_augmentations(
        records, FLAGS.image_size, FLAGS.seed, FLAGS.num_columns, FLAGS.augmentation
    )
    figures.save(figure, FLAGS.output)
    print(f"Wrote pictures of the augmentations to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
