"""Writes a SavedModel of one or several trained models: JPEG bytes in, RLE out.

python tools/export.py --workdirs=W0,W1 --export_dir=E --postprocessing=postprocessing.json
python tools/export.py --weights=models/clouds_unet.safetensors --export_dir=E \
    --postprocessing=models/postprocessing.json
"""

import sys

import cli

from absl import flags

from clouds_tf import files, serving
from clouds_tf.messages import counted
from clouds_tf.prediction.ensemble import AUGMENTATIONS
from clouds_tf.prediction.untrusted import MAX_IMAGE_PIXELS

FLAGS = flags.FLAGS
flags.DEFINE_list("workdirs", [], "Workdirs of train, or patterns; several models are averaged.")
flags.DEFINE_list("weights", [], "Weights of whole models (.safetensors), instead of workdirs.")
flags.DEFINE_string("export_dir", None, "Folder of all versions of the SavedModel.", required=True)
flags.DEFINE_string("postprocessing", None, "JSON file of evaluate; default: a threshold of 0.5.")
flags.DEFINE_enum(
    "test_time_augmentation",
    None,
    AUGMENTATIONS,
    "Test-time augmentation; default: the one that the post-processing was tuned with, or none.",
)
flags.DEFINE_string(
    "member_weights",
    None,
    "Weight of each model, or pattern of models, in the average, such as 0.7,0.3; default: those "
    "that the post-processing was tuned with, or equal weights.",
)
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "bfloat16", "float16"],
    "Numeric precision of the computation.",
)
flags.DEFINE_integer(
    "max_image_pixels", MAX_IMAGE_PIXELS, "Images with more pixels are refused.", lower_bound=1
)
flags.DEFINE_string(
    "records_dir", None, "Records whose held-out images are checked; default: synthetic images."
)
flags.DEFINE_string("onnx", None, "Also write the model to this ONNX file, in float32.")
flags.DEFINE_integer("check_images", 16, "Number of images for the check.", lower_bound=1)


def main() -> None:
    cli.check_inputs("workdirs weights postprocessing records_dir")
    result = serving.export(
        files.expand(FLAGS.workdirs),
        FLAGS.export_dir,
        weights=files.expand(FLAGS.weights),
        postprocessing=FLAGS.postprocessing,
        test_time_augmentation=FLAGS.test_time_augmentation,
        member_weights=cli.member_weights(FLAGS.workdirs or FLAGS.weights),
        precision=FLAGS.precision,
        max_image_pixels=FLAGS.max_image_pixels,
        records_dir=FLAGS.records_dir,
        check_images=FLAGS.check_images,
        onnx=FLAGS.onnx,
    )
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"Exported against trained: {result.difference}")
    if result.onnx_difference is not None:
        error = result.onnx_difference
        print(f"{FLAGS.onnx}: in ONNX Runtime, probabilities differ by at most {error:.2g}")
    if not result.has_warmup:
        print("No warm-up requests; these need pip install -e '.[serving]'")
    print(f"Checksums of its files: {result.manifest}")
    cut = FLAGS.postprocessing or "a threshold of 0.5"
    way = result.test_time_augmentation
    views = "" if way == "none" else f" and {way}"
    print(f"Exported {counted(result.num_models, 'model')} with {cut}{views} to {result.path}")


if __name__ == "__main__":
    cli.run(main)
