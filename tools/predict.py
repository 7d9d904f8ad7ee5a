"""Writes the submission of a folder of images.

python tools/predict.py --saved_model=E/1 --images_dir=T --sample_submission=S.csv \
    --output=submission.csv
"""

from absl import flags
from tqdm import tqdm

import cli
from clouds_tf import figures
from clouds_tf.data import annotations
from clouds_tf.schema import NUM_CLASSES
from clouds_tf.serving import predictor

FLAGS = flags.FLAGS
flags.DEFINE_string("saved_model", None, "A version that export wrote.", required=True)
flags.DEFINE_string("images_dir", None, "Folder of the images.", required=True)
flags.DEFINE_string("sample_submission", None, "CSV with the rows to fill in.", required=True)
flags.DEFINE_string("output", None, "The CSV to write.", required=True)
flags.DEFINE_integer("batch_size", 16, "Images in a batch.", lower_bound=1)
flags.DEFINE_string("picture", None, "PNG of the first images with their masks (needs matplotlib).")


def main():
    order = predictor.read_order(FLAGS.sample_submission, FLAGS.images_dir)
    predict = predictor.load(FLAGS.saved_model)
    rows = predictor.predict_rows(predict, FLAGS.images_dir, order, FLAGS.batch_size)
    total = sum(len(class_names) for _, class_names in order)
    count = annotations.write_rows(FLAGS.output, tqdm(rows, total=total, unit="row", disable=None))
    if FLAGS.picture:
        figures.save(predictor.draw(FLAGS.output, FLAGS.images_dir), FLAGS.picture)
    print(f"Wrote {count} rows for {count // NUM_CLASSES} images to {FLAGS.output}")


if __name__ == "__main__":
    cli.run(main)
