"""Converts a data folder to TFRecord shards.

python tools/make_tfrecords.py --data_dir=D --output_dir=R

If a run was killed, the same command finishes it. With --verify, the shards in R are only checked.
"""

import dataclasses

import cli

from absl import flags

from clouds_tf.data import shards
from clouds_tf.data.planning import Conversion
from clouds_tf.data.records import Records
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder with annotations and images.")
flags.DEFINE_string("output_dir", None, "Folder for the shards.", required=True)
cli.DEFINE_dataset_of_a_folder()
cli.DEFINE_dataclass(Conversion)
flags.DEFINE_boolean("verify", False, "Check the shards in --output_dir and write nothing.")


def main() -> None:
    settings = " ".join(field.name for field in dataclasses.fields(Conversion))
    converting = f"data_dir dataset mask_size {settings}"
    cli.refuse_unused(
        (converting, "a run without --verify", not FLAGS.verify),
        ("num_folds group_csv", "new folds, without --folds_csv", not FLAGS.folds_csv),
        ("jpeg_quality", "--image_size", FLAGS.image_size),
        ("num_workers", "--runner=local", FLAGS.runner == "local"),
        ("mask_layout", "--masks_dir", FLAGS.masks_dir),
        ("rle_size", "--pseudo_labels", FLAGS.pseudo_labels),
    )
    cli.check_inputs("data_dir folds_csv group_csv pseudo_labels masks_dir coco")
    if FLAGS.verify:
        records = Records.open(FLAGS.output_dir)
        records.verify()
        info = records.info
        images, parts = counted(info.num_examples, "image"), counted(len(info.shards), "shard")
        print(f"{images} in {parts} are as written")
        return
    if FLAGS.data_dir is None:
        raise ValueError("--data_dir: got nothing, expected a folder")
    with cli.progress_bar("image") as progress:
        info = shards.write_records(
            FLAGS.data_dir,
            FLAGS.output_dir,
            cli.dataset_of_a_folder(),
            **dataclasses.asdict(cli.dataclass_from_flags(Conversion)),
            progress=progress,
        )
    faults = counted(info.num_rejected, "fault")
    rejected = f", {faults} in rejected.csv" if info.num_rejected else ""
    only_trained_on = f", {info.count(info.extra_folds):,} of them for training only"
    print(
        f"Wrote {counted(info.num_examples, 'image')} in {counted(len(info.shards), 'shard')} "
        f"and {info.num_folds} folds{only_trained_on if info.extra_folds else ''} "
        f"to {FLAGS.output_dir}{rejected}"
    )


if __name__ == "__main__":
    cli.run(main)
