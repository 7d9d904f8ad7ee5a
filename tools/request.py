"""Sends images to a running server and writes its answers as rows of a submission.

python tools/request.py --url=http://localhost:8501/v1/models/clouds --images=a.jpg,b.png \
    --output=answers.csv
"""

import os

import cli

from absl import flags

from clouds_tf import client, files
from clouds_tf.messages import counted
from clouds_tf.prediction.metadata import Metadata
from clouds_tf.serving import outputs

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "url", None, "URL of the model: http://HOST:PORT/v1/models/NAME.", required=True
)
flags.DEFINE_list("images", None, "Image files to send, JPEG or PNG.", required=True)
flags.DEFINE_string("output", None, "Submission to write: CSV, or NAME.parquet.")
flags.DEFINE_integer("batch_size", 8, "Images in a request.", lower_bound=1)


def main() -> None:
    cli.check_inputs("images")
    for path in FLAGS.images:
        files.require_local(path, "images")
    if FLAGS.output:
        outputs.check_submission(FLAGS.output)
    dataset = Metadata.from_json(client.read_metadata(FLAGS.url)).dataset
    rows = []
    answers = client.request_files(FLAGS.url, FLAGS.images, FLAGS.batch_size)
    for path, answer in zip(FLAGS.images, answers):
        name = os.path.basename(path)
        found = zip(dataset.class_names, answer["presence"], answer["area_fraction"])
        print(name, *(f"{c}: {p:.2f} on {a:.0%}" for c, p, a in found), sep="  ")
        rows += [(name, *row) for row in zip(dataset.class_names, answer["encoded_pixels"])]
    if FLAGS.output:
        outputs.write_submission(FLAGS.output, rows, dataset)
    print(
        f"{FLAGS.url} answered for {counted(len(FLAGS.images), 'image')}, with the probability and "
        "area above"
    )


if __name__ == "__main__":
    cli.run(main)
