"""Sends images to a running server and writes what it answers, as rows of a submission.

python tools/request.py --url=http://localhost:8501/v1/models/clouds --images=a.jpg,b.png \
    --output=answers.csv
"""

import os

import cli

from absl import flags

from clouds_tf.schema import CLASS_NAMES
from clouds_tf.serving import server, submission

FLAGS = flags.FLAGS
flags.DEFINE_string("url", None, "Of the model: http://HOST:PORT/v1/models/NAME.", required=True)
flags.DEFINE_list("images", None, "Files to send, JPEGs or PNGs.", required=True)
flags.DEFINE_string("output", None, "CSV for the masks, or NAME.parquet.")
flags.DEFINE_integer("batch_size", 8, "Images in a request.", lower_bound=1)


def main():
    rows = []
    for start in range(0, len(FLAGS.images), FLAGS.batch_size):
        paths = FLAGS.images[start : start + FLAGS.batch_size]
        contents = []
        for path in paths:
            with open(path, "rb") as file:
                contents.append(file.read())
        for path, answer in zip(paths, server.request(FLAGS.url, contents)):
            name = os.path.basename(path)
            found = zip(CLASS_NAMES, answer["presence"], answer["area_fraction"])
            print(name, *(f"{c}: {p:.2f} on {a:.0%}" for c, p, a in found), sep="  ")
            rows += [(name, c, r) for c, r in zip(CLASS_NAMES, answer["encoded_pixels"])]
    if FLAGS.output:
        submission.write(FLAGS.output, rows)
    print(
        f"{FLAGS.url} answered for {len(FLAGS.images)} images, with the probability and area above"
    )


if __name__ == "__main__":
    cli.run(main)
