"""Finds the post-processing on held-out images, and says how good it is.

python tools/evaluate.py --records_dir=R --workdirs=W0,W1 --output=postprocessing.json
"""

import functools

import cli

from absl import flags
from tqdm import tqdm

from clouds_tf.data import annotations, shards
from clouds_tf.evaluation import held_out, ladder, pictures, score
from clouds_tf.evaluation.search import GRIDS, search
from clouds_tf.inference import ensemble, postprocessing
from clouds_tf.inference.postprocessing import Postprocessing
from clouds_tf.schema import CLASS_NAMES, CLOUDS
from clouds_tf.training import distribution

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of shards, of make_tfrecords.", required=True)
flags.DEFINE_list("workdirs", None, "Of train; those of one fold are averaged.", required=True)
flags.DEFINE_string("output", None, "The JSON file for the settings found.", required=True)
flags.DEFINE_integer("batch_size", 16, "Images in a batch.", lower_bound=1)
flags.DEFINE_enum(
    "test_time_augmentation", "none", sorted(ensemble.FLIPS), "Mirror images to average over."
)
flags.DEFINE_enum("search", "area", list(GRIDS), "What to tune beside the threshold.")
flags.DEFINE_string("ladder", None, "CSV to write: every search, without flips and with them.")
flags.DEFINE_string("pictures_dir", None, "Folder for pictures of the scores and of examples.")
flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16", "float16"], "Of computations.")
flags.DEFINE_integer("seed", 0, "Seed of the halves of a single fold.", lower_bound=0)


def main():
    distribution.set_precision(FLAGS.precision)
    members = held_out.load_members(FLAGS.records_dir, FLAGS.workdirs)
    grid = GRIDS[FLAGS.search]
    refinements = (GRIDS["all"] if FLAGS.ladder else grid).refinements

    def collect(test_time_augmentation):
        return held_out.collect(
            FLAGS.records_dir,
            members,
            FLAGS.batch_size,
            test_time_augmentation,
            refinements,
            functools.partial(tqdm, unit="batch", disable=None),
        )

    ways = list(ensemble.FLIPS) if FLAGS.ladder else [FLAGS.test_time_augmentation]
    counts = {name: collect(name) for name in ways}
    chosen = ladder.select(counts[FLAGS.test_time_augmentation], refinements, grid)
    found = search(chosen, grid, FLAGS.seed)
    scores = found["scores"]
    ends = score.intervals(scores["cross_fitted"])
    report = {
        "metric": "competition Dice",
        "scores": {n: _named((*dice.mean(axis=0), dice.mean())) for n, dice in scores.items()},
        "interval_of_cross_fitted": [_named(end) for end in ends],
        "num_images": len(chosen.folds),
        "folds": list(members),
        "search": FLAGS.search,
    }
    rules = Postprocessing(
        found["rules"],
        FLAGS.test_time_augmentation,
        tuple(FLAGS.workdirs),
        shards.fingerprint(FLAGS.records_dir),
        report=report,
    )
    postprocessing.write_postprocessing(FLAGS.output, rules, CLOUDS)
    print(score.table(scores, interval_of="cross_fitted"))
    if FLAGS.ladder:
        rows = ladder.ladder(counts, refinements, list(GRIDS), FLAGS.seed)
        annotations.write_table(FLAGS.ladder, ladder.COLUMNS, rows)
        print(ladder.as_text(rows))
    if FLAGS.pictures_dir:
        pictures.write(
            FLAGS.pictures_dir,
            FLAGS.records_dir,
            members,
            chosen,
            found,
            FLAGS.test_time_augmentation,
        )
    print(
        f"Held-out Dice over {len(chosen.folds)} images: {scores['plain'].mean():.4f} plain, "
        f"{scores['cross_fitted'].mean():.4f} with post-processing (cross-fitted); "
        f"wrote {FLAGS.output}"
    )


def _named(numbers):
    return {name: round(float(x), 4) for name, x in zip((*CLASS_NAMES, "mean"), numbers)}


if __name__ == "__main__":
    cli.run(main)
