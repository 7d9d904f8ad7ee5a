"""Turns boxes of several people into soft targets: the share of people who marked each pixel.

python tools/make_soft_targets.py --boxes=B.csv --records_dir=R --output_dir=S

B.csv has the columns image, person, label, x1, y1, x2, y2: a row for each box, in pixels, and for
each person who saw nothing, a row whose cells from label on are empty. train --soft_targets=S
learns from the maps; images without boxes are learned from their masks alone.
"""

import cli

from absl import flags

from clouds_tf.data.records import Records
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("boxes", None, "CSV with the boxes.", required=True)
flags.DEFINE_string("records_dir", None, "Folder of records from make_tfrecords.", required=True)
flags.DEFINE_string("output_dir", None, "New folder for the maps.", required=True)
cli.DEFINE_size(
    "box_size",
    None,
    "Size of the images in which the boxes were drawn; default: the mask size of the records.",
)


def main() -> None:
    cli.check_inputs("boxes records_dir")
    records = Records.open(FLAGS.records_dir)
    from clouds_tf.data import labellers  # which needs TensorFlow

    size = FLAGS.box_size or records.dataset.mask_size
    views = labellers.read_boxes(FLAGS.boxes, records.dataset, size)
    with cli.progress_bar("image") as progress:
        found = labellers.write_shares(records, views, FLAGS.output_dir, FLAGS.boxes, progress)
    unknown = f"; {counted(found.num_unknown, 'image')} of {FLAGS.boxes} are not in the records"
    print(
        f"Wrote {counted(found.num_maps, 'map')} to {FLAGS.output_dir}; "
        f"{counted(found.num_others, 'image')} without boxes keep their masks; "
        f"{found.outside:.1%} of what the boxes cover is outside the masks and counts as 0"
        f"{unknown if found.num_unknown else ''}"
    )


if __name__ == "__main__":
    cli.run(main)
