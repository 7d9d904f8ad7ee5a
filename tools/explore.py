"""Explores a data folder before training: report.html, figures, statistics.json and rows.csv.

python tools/explore.py --data_dir=D --output_dir=O
"""

import dataclasses
import os

import cli

from absl import flags

from clouds_tf.exploration import report

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with train.csv and train_images/.", required=True)
flags.DEFINE_string("output_dir", None, "Folder for the report.", required=True)
cli.DEFINE_dataset()
cli.DEFINE_size(
    "mask_size", None, "Size of the masks that the RLE encodes; default: the data set's mask_size."
)
flags.DEFINE_integer(
    "max_images", None, "Number of images to measure, drawn at random; default: all.", lower_bound=1
)
flags.DEFINE_integer("seed", 0, "Seed of all random draws.", lower_bound=0)


def main() -> None:
    dataset = FLAGS.dataset
    if FLAGS.mask_size:
        dataset = dataclasses.replace(dataset, mask_size=FLAGS.mask_size)
    with cli.progress_bar("image") as progress:
        summary = report.write_report(
            FLAGS.data_dir,
            FLAGS.output_dir,
            dataset,
            max_images=FLAGS.max_images,
            seed=FLAGS.seed,
            progress=progress,
        )
    print(
        f"Wrote the report on {summary['num_images']} images, with {len(summary['problems'])} "
        f"problems, to {os.path.join(FLAGS.output_dir, 'report.html')}"
    )


if __name__ == "__main__":
    cli.run(main)
