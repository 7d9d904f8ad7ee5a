"""Finds thresholds and least areas on held-out images, and says how good they are.

python tools/evaluate.py --records_dir=R --workdirs=W0,W1 --output=postprocessing.json
"""

import functools

from absl import flags
from tqdm import tqdm

import cli
from clouds_tf.evaluation import held_out, score
from clouds_tf.evaluation.search import search
from clouds_tf.serving import ensemble, postprocessing

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of shards, of make_tfrecords.", required=True)
flags.DEFINE_list("workdirs", None, "Of train; those of one fold are averaged.", required=True)
flags.DEFINE_string("output", None, "The JSON file for the settings found.", required=True)
flags.DEFINE_integer("batch_size", 16, "Images in a batch.", lower_bound=1)
flags.DEFINE_enum(
    "test_time_augmentation", "none", sorted(ensemble.FLIPS), "Mirror images to average over."
)
flags.DEFINE_integer("seed", 0, "Seed of the halves of a single fold.", lower_bound=0)


def main():
    counts = held_out.collect(
        FLAGS.records_dir,
        FLAGS.workdirs,
        batch_size=FLAGS.batch_size,
        test_time_augmentation=FLAGS.test_time_augmentation,
        progress=functools.partial(tqdm, unit="batch", disable=None),
    )
    found = search(counts, seed=FLAGS.seed)
    means = {name: round(float(values.mean()), 4) for name, values in found["scores"].items()}
    postprocessing.write_rules(
        FLAGS.output,
        found["rules"],
        metric="competition Dice, mean over images and classes",
        scores=means,
        num_images=len(counts.folds),
        folds=sorted(set(counts.folds.tolist())),
        workdirs=FLAGS.workdirs,
        test_time_augmentation=FLAGS.test_time_augmentation,
    )
    print(score.table(found["scores"]))
    print(
        f"Held-out Dice over {len(counts.folds)} images: {means['plain']:.4f} plain, "
        f"{means['cross_fitted']:.4f} with post-processing (cross-fitted); wrote {FLAGS.output}"
    )


if __name__ == "__main__":
    cli.run(main)
