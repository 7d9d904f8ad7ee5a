"""Writes one SavedModel, from JPEG bytes to RLE, of one or several trained models.

python tools/export.py --workdirs=W0,W1 --export_dir=E --postprocessing=postprocessing.json
"""

import itertools

import cli

from absl import flags

from clouds_tf.data import input_pipeline, sample_data
from clouds_tf.inference import ensemble, postprocessing
from clouds_tf.schema import CLOUDS, NUM_CLASSES, SUBMISSION_SIZE
from clouds_tf.serving import check, server, untrusted
from clouds_tf.serving.cloud_model import CloudModel
from clouds_tf.serving.versions import write_version
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


flags.DEFINE_string(
    "records_dir", None, "Shards whose held-out images it is checked on; else on drawn ones."
)
flags.DEFINE_integer("check_images", 16, "How many images to check it on.", lower_bound=1)


def main():
    rules = postprocessing.plain_rules(NUM_CLASSES)
    if FLAGS.postprocessing:
        rules = postprocessing.read_rules(FLAGS.postprocessing, CLOUDS)
    training = [workdir.read_run(folder).to_json() for folder in FLAGS.workdirs]

    def load(precision, fused):
        distribution.set_precision(precision)
        return CloudModel(
            [workdir.load_model(folder) for folder in FLAGS.workdirs],
            [run["image_size"] for run in training],
            CLOUDS,
            rules,
            FLAGS.test_time_augmentation,
            FLAGS.max_image_pixels,
            training=training,
            fused=fused,
        )

    def finish(path):
        trained = load("float32", fused=False).serve_pixels
        difference = check.compare(trained, path, check_batches(training[0]["fold"]))
        print(
            "Exported against trained, on {0.num_images} images: probabilities differ by at most "
            "{0.probability:.2g}, Dice by {0.dice:+.4f} (standard error {0.error:.4f})".format(
                difference
            )
        )
        check.check(difference, FLAGS.precision)
        try:
            server.write_warmup(path, sample_data.render_images(1, SUBMISSION_SIZE)[0][0])
        except ImportError:
            print("No warm-up requests, for these need pip install -e '.[serving]'")

    path = write_version(load(FLAGS.precision, fused=True), FLAGS.export_dir, finish)
    server.write_config(FLAGS.export_dir)
    cut = FLAGS.postprocessing or "a cut at 1/2"
    print(f"Exported {len(FLAGS.workdirs)} model(s) with {cut} to {path}")


def check_batches(fold, batch_size=4):
    """Batches of images and masks: of the fold that the first model held out, or drawn ones."""
    starts = range(0, FLAGS.check_images, batch_size)
    if FLAGS.records_dir is None:
        images, masks = sample_data.render_images(FLAGS.check_images, SUBMISSION_SIZE)
        return [(images[i : i + batch_size], masks[i : i + batch_size]) for i in starts]
    batches = input_pipeline.validation_batches(
        FLAGS.records_dir, [fold], SUBMISSION_SIZE, batch_size
    )
    return itertools.islice(batches, len(starts))


if __name__ == "__main__":
    cli.run(main)
