"""Predicts georeferenced scenes of any size: NetCDF, GeoTIFF and GeoJSON with coordinates.

python tools/predict_scenes.py --saved_model=E/1 --scenes=FOLDER_OR_PATTERN --output_dir=S

Exits with status 2 when scenes could not be predicted. Killed, the same command continues where it
stopped. Several processes share the work with --shard=0/3, --shard=1/3, --shard=2/3; when they have
finished, the command without --shard predicts missing scenes and writes S/scenes.csv.
"""

import dataclasses
import sys
import time

import cli

from absl import flags

from clouds_tf.data.runners import Runner
from clouds_tf.messages import counted
from clouds_tf.prediction.engine import ENGINES
from clouds_tf.scenes.jobs import Options
from clouds_tf.scenes.predict import predict_scenes
from clouds_tf.scenes.scene import Reading
from clouds_tf.settings import parse_shard

FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "SavedModel from export, such as E/1.", required=True)
flags.DEFINE_string(
    "scenes",
    None,
    "Folder of scenes, one file, or a quoted pattern with * or ?: GeoTIFF, COG, JPEG, PNG, JPEG "
    "2000, WebP, NetCDF, zarr.",
    required=True,
)
flags.DEFINE_string("output_dir", None, "Folder of the results.", required=True)
flags.DEFINE_boolean("pictures", False, "Also draw each scene with its masks (needs matplotlib).")
flags.DEFINE_enum(
    "engine", "tensorflow", ENGINES, "Library that runs the network; openvino runs on the CPU."
)
flags.DEFINE_string("shard", "0/1", "Part of the scenes to predict: 0/3, 1/3 or 2/3 for three.")
flags.DEFINE_enum(
    "on_error", "skip", ["skip", "fail"], "Skip unusable scenes, or stop at the first."
)
cli.DEFINE_dataclass(Reading)
cli.DEFINE_dataclass(Options)
cli.DEFINE_dataclass(Runner)
flags.DEFINE_multi_string("beam_option", [], "One of --beam_options; may be repeated.")


def _options() -> Options:
    reading = cli.dataclass_from_flags(Reading)
    options = cli.dataclass_from_flags(Options, reading=reading)
    pictures = ("picture",) * FLAGS.pictures
    return dataclasses.replace(options, formats=(*options.formats, *pictures))


def main() -> None:
    start = time.time()
    cli.refuse_unused(("num_workers", "--runner=local", FLAGS.runner == "local"))
    options = _options()
    cli.check_inputs("saved_model scenes")
    with cli.progress_bar("scene") as progress:
        result = predict_scenes(
            FLAGS.saved_model,
            FLAGS.scenes,
            FLAGS.output_dir,
            options,
            shard=parse_shard(FLAGS.shard),
            on_error=FLAGS.on_error,
            engine=FLAGS.engine,
            runner=Runner(
                FLAGS.runner, FLAGS.num_workers, (*FLAGS.beam_options, *FLAGS.beam_option)
            ),
            progress=progress,
        )
    for line in result.warnings:
        print(f"warning: {line}", file=sys.stderr)
    if result.curves:
        print(result.curves, file=sys.stderr)
    for name in result.skipped:
        print(f"{name}: skipped, not a kind of file that holds scenes", file=sys.stderr)
    for line in result.failed:
        print(f"{line} (skipped)", file=sys.stderr)
    minutes = (time.time() - start) / 60
    print(
        f"Wrote {counted(result.num_scenes - len(result.failed), 'scene')} "
        f"({result.num_predicted} now, of {counted(result.num_windows, 'window')}; "
        f"{len(result.failed)} failed) to "
        f"{result.path or FLAGS.output_dir} in {minutes:.1f} min"
    )
    if result.failed:
        sys.exit(2)


if __name__ == "__main__":
    cli.run(main)
