"""Writes a folder of data as shards of TFRecords.

python tools/make_tfrecords.py --data_dir=D --output_dir=R

A run that was killed is finished by the same command. With --verify, R is only checked.
"""

import cli

from absl import flags

from clouds_tf import schema
from clouds_tf.data import shards

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with train.csv and train_images/.")
flags.DEFINE_string("output_dir", None, "Folder for the shards.", required=True)
flags.DEFINE_integer(
    "num_shards", None, "Number of files; default: 16, or fewer for fewer images.", lower_bound=1
)
flags.DEFINE_integer("num_folds", 5, "Number of folds.", lower_bound=2)
cli.DEFINE_size("image_size", None, "Reduce the images to this size; without it, as they are.")
cli.DEFINE_size("mask_size", schema.IMAGE_SIZE, "Size of the masks that the RLE encodes.")
flags.DEFINE_integer("seed", 0, "Seed of folds and order.", lower_bound=0)
flags.DEFINE_integer("num_workers", 2, "Number of processes.", lower_bound=1)
flags.DEFINE_integer("jpeg_quality", 95, "Of reduced images.", lower_bound=1, upper_bound=100)
flags.DEFINE_string("folds_csv", None, "Takes the folds from here: columns filename and fold.")
flags.DEFINE_string("exclude", None, "Text file with the names of images to leave out.")
flags.DEFINE_enum("on_error", "fail", ["fail", "skip"], "What to do about faulty images and rows.")
flags.DEFINE_enum(
    "runner", "local", ["local", "direct", "flink", "spark", "dataflow"], "Who writes the shards."
)
flags.DEFINE_list("beam_options", [], "Options of that runner: --project=P,--region=R.")
flags.DEFINE_boolean("verify", False, "Only checks the shards in output_dir.")


def main():
    if FLAGS.verify:
        info = shards.verify_records(FLAGS.output_dir)
        print(f"{info['num_examples']} images in {len(info['shards'])} shards are as written")
        return
    if FLAGS.data_dir is None:
        raise ValueError("--data_dir: got nothing, expected a folder")
    with cli.progress_bar("image") as progress:
        info = shards.write_records(
            FLAGS.data_dir,
            FLAGS.output_dir,
            num_shards=FLAGS.num_shards,
            num_folds=FLAGS.num_folds,
            image_size=FLAGS.image_size,
            mask_size=FLAGS.mask_size,
            seed=FLAGS.seed,
            num_workers=FLAGS.num_workers,
            jpeg_quality=FLAGS.jpeg_quality,
            folds_csv=FLAGS.folds_csv,
            exclude=FLAGS.exclude,
            on_error=FLAGS.on_error,
            runner=FLAGS.runner,
            beam_options=FLAGS.beam_options,
            progress=progress,
        )
    rejected = f", {info['num_rejected']} faults in rejected.csv" if info["num_rejected"] else ""
    print(
        f"Wrote {info['num_examples']} images in {len(info['shards'])} shards "
        f"and {info['num_folds']} folds to {FLAGS.output_dir}{rejected}"
    )


if __name__ == "__main__":
    cli.run(main)
