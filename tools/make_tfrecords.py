"""Writes a folder of data as shards of TFRecords.

python tools/make_tfrecords.py --data_dir=D --output_dir=R
"""

import functools

from absl import flags
from tqdm import tqdm

import cli
from clouds_tf import schema
from clouds_tf.data import examples

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with train.csv and train_images/.", required=True)
flags.DEFINE_string("output_dir", None, "Folder for the shards.", required=True)
flags.DEFINE_integer("num_shards", 16, "Number of files.", lower_bound=1)
flags.DEFINE_integer("num_folds", 5, "Number of folds.", lower_bound=2)
cli.DEFINE_size("image_size", None, "Reduce the images to this size; without it, as they are.")
cli.DEFINE_size("mask_size", schema.IMAGE_SIZE, "Size of the masks that the RLE encodes.")
flags.DEFINE_integer("seed", 0, "Seed of folds and order.", lower_bound=0)
flags.DEFINE_integer("num_workers", 2, "Number of processes.", lower_bound=1)


def main():
    info = examples.write_records(
        FLAGS.data_dir,
        FLAGS.output_dir,
        num_shards=FLAGS.num_shards,
        num_folds=FLAGS.num_folds,
        image_size=FLAGS.image_size,
        mask_size=FLAGS.mask_size,
        seed=FLAGS.seed,
        num_workers=FLAGS.num_workers,
        progress=functools.partial(tqdm, total=FLAGS.num_shards, unit="shard", disable=None),
    )
    print(
        f"Wrote {info['num_examples']} images in {FLAGS.num_shards} shards "
        f"and {FLAGS.num_folds} folds to {FLAGS.output_dir}"
    )


if __name__ == "__main__":
    cli.run(main)
