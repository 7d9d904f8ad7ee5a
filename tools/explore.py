"""Looks at a folder of data before training: report.html, figures, statistics.json and rows.csv.

python tools/explore.py --data_dir=D --output_dir=O
"""

import functools
import os

import cli

from absl import flags
from tqdm import tqdm

from clouds_tf import schema
from clouds_tf.exploration import report

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with train.csv and train_images/.", required=True)
flags.DEFINE_string("output_dir", None, "Folder for the report.", required=True)
flags.DEFINE_integer("max_images", None, "Look at so many images, drawn at random.", lower_bound=1)
cli.DEFINE_size("mask_size", schema.IMAGE_SIZE, "Size of the masks that the RLE encodes.")
flags.DEFINE_integer("seed", 0, "Seed of what is drawn at random.", lower_bound=0)


def main():
    summary = report.write_report(
        FLAGS.data_dir,
        FLAGS.output_dir,
        max_images=FLAGS.max_images,
        mask_size=FLAGS.mask_size,
        seed=FLAGS.seed,
        progress=functools.partial(tqdm, unit="batch", disable=None),
    )
    print(
        f"Wrote the report on {summary['num_images']} images, with {len(summary['problems'])} "
        f"problems, to {os.path.join(FLAGS.output_dir, 'report.html')}"
    )


if __name__ == "__main__":
    cli.run(main)
