"""Explores a data folder before training: report.html, figures, statistics.json and rows.csv.

python tools/explore.py --data_dir=D --output_dir=O
"""

import os

import cli

from absl import flags

from clouds_tf.data.sources import Source
from clouds_tf.exploration import report
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with annotations and images.", required=True)
flags.DEFINE_string("output_dir", None, "Folder for the report.", required=True)
cli.DEFINE_dataset_of_a_folder()
cli.DEFINE_dataclass(Source)
flags.DEFINE_integer(
    "max_images", None, "Number of images to measure, drawn at random; default: all.", lower_bound=1
)
flags.DEFINE_integer("seed", 0, "Seed of all random draws.", lower_bound=0)


def main() -> None:
    cli.refuse_unused(("mask_layout", "--masks_dir", FLAGS.masks_dir))
    cli.check_inputs("data_dir masks_dir coco")
    with cli.progress_bar("image") as progress:
        summary = report.write_report(
            FLAGS.data_dir,
            FLAGS.output_dir,
            cli.dataset_of_a_folder(),
            source=cli.dataclass_from_flags(Source),
            max_images=FLAGS.max_images,
            seed=FLAGS.seed,
            progress=progress,
        )
    print(
        f"Wrote the report on {counted(summary['num_images'], 'image')}, with "
        f"{counted(len(summary['problems']), 'problem')}, to "
        f"{os.path.join(FLAGS.output_dir, 'report.html')}"
    )


if __name__ == "__main__":
    cli.run(main)
