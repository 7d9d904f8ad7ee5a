"""Writes one SavedModel, from JPEG bytes to RLE, of one or several trained models.

python tools/export.py --workdirs=W0,W1 --export_dir=E --postprocessing=postprocessing.json
"""

from absl import flags

import cli
from clouds_tf.serving import ensemble, postprocessing, untrusted
from clouds_tf.serving.export import CloudModel, export
from clouds_tf.training import distribution, workdir

FLAGS = flags.FLAGS
flags.DEFINE_list("workdirs", None, "Workdirs of train; several are averaged.", required=True)
flags.DEFINE_string("export_dir", None, "Folder of all versions of the SavedModel.", required=True)
flags.DEFINE_string("postprocessing", None, "JSON of evaluate; without it, a cut at 1/2.")
flags.DEFINE_enum(
    "test_time_augmentation", "none", sorted(ensemble.FLIPS), "Mirror images to average over."
)
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "Of computations.")
flags.DEFINE_integer(
    "max_image_pixels", untrusted.MAX_IMAGE_PIXELS, "Larger images are refused.", lower_bound=1
)


def main():
    distribution.set_precision(FLAGS.precision)
    rules = postprocessing.PLAIN
    if FLAGS.postprocessing:
        rules = postprocessing.read_rules(FLAGS.postprocessing)
    training = [workdir.read_settings(folder) for folder in FLAGS.workdirs]
    module = CloudModel(
        [workdir.load_model(folder) for folder in FLAGS.workdirs],
        [run["image_size"] for run in training],
        rules,
        FLAGS.test_time_augmentation,
        FLAGS.max_image_pixels,
        training,
    )
    path = export(module, FLAGS.export_dir)
    cut = FLAGS.postprocessing or "a cut at 1/2"
    print(f"Exported {len(FLAGS.workdirs)} model(s) with {cut} to {path}")


if __name__ == "__main__":
    cli.run(main)
