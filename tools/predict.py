"""Writes the submission of a folder of images.

python tools/predict.py --saved_model=E/1 --images_dir=T --sample_submission=S.csv \
    --output=submission.csv

Exits with status 2 when images were unreadable. Killed, the same command goes on where it stopped.
Several processes share the work with --shard=0/3, --shard=1/3, --shard=2/3; when they have
finished, the command without --shard does what is missing and merges the parts.
"""

import functools
import sys
import time

import cli

from absl import flags
from tqdm import tqdm

from clouds_tf import figures
from clouds_tf.serving import predictor

FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "A version that export wrote.", required=True)
flags.DEFINE_string("images_dir", None, "Folder of the images.", required=True)
flags.DEFINE_string(
    "sample_submission", None, "CSV with the rows to fill in; without it, all images by name."
)
flags.DEFINE_string("output", None, "The CSV to write, or NAME.parquet.", required=True)
flags.DEFINE_integer("batch_size", 16, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("num_devices", None, "GPUs to use; all by default.", lower_bound=1)
flags.DEFINE_string("shard", "0/1", "Which share of the work to do: 0/3, 1/3 or 2/3 of three.")
flags.DEFINE_enum("on_error", "blank", ["blank", "fail"], "What to do with unreadable images.")
flags.DEFINE_string("overlay_dir", None, "Folder for pictures of the masks (needs matplotlib).")
flags.DEFINE_string("picture", None, "PNG of the first images with their masks (needs matplotlib).")


def main():
    start = time.time()
    shard = predictor.parse_shard(FLAGS.shard)
    devices = predictor.devices(FLAGS.num_devices)
    predictors = [predictor.load(FLAGS.saved_model, device) for device in devices]
    count, unreadable = predictor.predict_folder(
        predictors,
        FLAGS.images_dir,
        FLAGS.output,
        FLAGS.sample_submission,
        batch_size=FLAGS.batch_size,
        shard=shard,
        on_error=FLAGS.on_error,
        overlay_dir=FLAGS.overlay_dir,
        model=predictor.fingerprint(FLAGS.saved_model),
        progress=functools.partial(tqdm, unit="image", disable=None),
    )
    whole = shard[1] == 1
    if FLAGS.picture and whole:
        figures.save(predictor.draw(FLAGS.output, FLAGS.images_dir), FLAGS.picture)
    for filename in unreadable:
        print(f"{filename}: unreadable, its rows are blank", file=sys.stderr)
    target = FLAGS.output if whole else f"{FLAGS.output}.parts"
    minutes = (time.time() - start) / 60
    print(f"Wrote {count} images ({len(unreadable)} unreadable) to {target} in {minutes:.1f} min")
    if unreadable:
        sys.exit(2)


if __name__ == "__main__":
    cli.run(main)
