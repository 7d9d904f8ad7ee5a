"""Writes the submission of a folder of images.

python tools/predict.py --saved_model=E/1 --images_dir=T --sample_submission=S.csv \
    --output=submission.csv

Exits with status 2 if images were unreadable. Killed, the same command resumes where it stopped.
Several processes share the work with --shard=0/3, --shard=1/3, --shard=2/3; when they have
finished, the command without --shard predicts missing images and merges the parts. --num_workers
and --runner predict in several processes, or in a pipeline of Apache Beam.
"""

import sys
import time
from collections.abc import Sequence

import cli

from absl import flags

from clouds_tf import serving
from clouds_tf.data.runners import Runner
from clouds_tf.messages import counted
from clouds_tf.prediction.engine import ENGINES
from clouds_tf.prediction.stretch import MODES
from clouds_tf.serving.prediction import ON_ERROR
from clouds_tf.settings import parse_shard

FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "SavedModel from export, such as E/1.", required=True)
flags.DEFINE_string("images_dir", None, "Folder of the images.", required=True)
flags.DEFINE_string(
    "sample_submission", None, "CSV with the rows to fill in; default: all images, sorted by name."
)
flags.DEFINE_string("output", None, "Submission to write: CSV, or NAME.parquet.", required=True)
flags.DEFINE_integer("batch_size", 16, "Images in a batch.", lower_bound=1)
flags.DEFINE_integer("num_devices", None, "Number of GPUs; default: all.", lower_bound=1)
flags.DEFINE_enum(
    "engine", "tensorflow", ENGINES, "Library that runs the network; openvino runs on the CPU."
)
flags.DEFINE_string("shard", "0/1", "Part of the work to do: 0/3, 1/3 or 2/3 for three processes.")
flags.DEFINE_enum(
    "on_error", "blank", ON_ERROR, "Leave the rows of an unreadable image blank, or stop at it."
)
flags.DEFINE_string("stretch", "none", f"Brightness curve to apply to the images: {MODES}.")
flags.DEFINE_string("table", None, "CSV for presence and areas of every image and class.")
flags.DEFINE_string("masks_dir", None, "Folder for masks as PNG, at the size of each image.")
flags.DEFINE_string("overlay_dir", None, "Folder for a picture of each image with its masks.")
flags.DEFINE_string("picture", None, "PNG of the first six images with their masks.")
cli.DEFINE_dataclass(Runner)

_LISTED = 20  # remarks of a kind


def main() -> None:
    start, shard = time.time(), parse_shard(FLAGS.shard)
    runner = cli.dataclass_from_flags(Runner)
    cli.refuse_unused(
        ("num_devices", "--engine=tensorflow", FLAGS.engine == "tensorflow"),
        ("num_devices", "one process, which --num_workers=1 is", runner == Runner()),
        ("num_workers", "--runner=local", FLAGS.runner == "local"),
        ("table picture", "the merge, without --shard", shard[1] == 1),
    )
    cli.check_inputs("saved_model images_dir sample_submission")
    with cli.progress_bar("image") as progress:
        result = serving.predict(
            FLAGS.saved_model,
            FLAGS.images_dir,
            FLAGS.output,
            FLAGS.sample_submission,
            batch_size=FLAGS.batch_size,
            num_devices=FLAGS.num_devices,
            engine=FLAGS.engine,
            shard=shard,
            on_error=FLAGS.on_error,
            stretch=FLAGS.stretch,
            table=FLAGS.table,
            masks_dir=FLAGS.masks_dir,
            overlay_dir=FLAGS.overlay_dir,
            picture=FLAGS.picture,
            runner=runner,
            progress=progress,
        )
    show("warning: {}", result.warnings)
    show("warning: {}", result.squeezed)
    show("{}", [result.curves] if result.curves else [])
    show("skipped {}", result.skipped)
    show("unreadable, its rows are blank: {}", result.unreadable)
    counts = f"{len(result.unreadable)} unreadable"
    if result.skipped:
        counts += f", {counted(len(result.skipped), 'other file')} skipped"
    target = result.output or f"{FLAGS.output}.parts"
    minutes = (time.time() - start) / 60
    images = counted(result.num_images, "image")
    print(f"Wrote {images} ({counts}) to {target} in {minutes:.1f} min")
    if result.unreadable:
        sys.exit(2)


def show(text: str, remarks: Sequence[object]) -> None:
    """Prints a line for each of the first remarks."""
    for remark in remarks[:_LISTED]:
        print(text.format(remark), file=sys.stderr)
    if len(remarks) > _LISTED:
        print(text.format(f"{len(remarks) - _LISTED} more"), file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
