"""Tunes post-processing and calibration on held-out images, and scores them.

python tools/evaluate.py --records_dir=R --workdirs="W/fold_*" --output=postprocessing.json
python tools/evaluate.py --records_dir=R --weights=FILE.safetensors --output=postprocessing.json
"""

import cli

from absl import flags

from clouds_tf import evaluation, files
from clouds_tf.evaluation import Settings
from clouds_tf.messages import counted

FLAGS = flags.FLAGS
flags.DEFINE_string("records_dir", None, "Folder of records from make_tfrecords.", required=True)
flags.DEFINE_list(
    "workdirs", [], "Workdirs of train, or patterns; models of the same fold are averaged."
)
flags.DEFINE_list("weights", [], "Files (.safetensors) of models to average, instead of workdirs.")
flags.DEFINE_multi_string(
    "folds", [], "Folds to predict with --weights, such as 0,2; default: all."
)
flags.DEFINE_string("output", None, "JSON file for rules, calibration and scores.", required=True)
flags.DEFINE_string(
    "ladder",
    None,
    "Output CSV with the scores of a threshold of 0.5 and of tuned rules, without and with flips.",
)
flags.DEFINE_string("pictures_dir", None, "Folder for pictures of scores, areas and examples.")
flags.DEFINE_string(
    "member_weights",
    None,
    "Weight of each model, or pattern of models, in the average, such as 0.7,0.3; default: equal "
    "weights.",
)
flags.DEFINE_string(
    "out_of_fold",
    None,
    "Output Parquet file with a row for each image and class: truth, prediction, Dice and RLE.",
)
flags.DEFINE_string(
    "out_of_fold_maps",
    None,
    "New folder for the probabilities as 8-bit PNG files, at a quarter of the size.",
)
cli.DEFINE_dataclass(Settings)


def main() -> None:
    cli.refuse_unused(("precision", "--engine=tensorflow", FLAGS.engine == "tensorflow"))
    cli.check_inputs("records_dir workdirs weights")
    with cli.progress_bar("image") as progress:
        result = evaluation.evaluate(
            FLAGS.records_dir,
            files.expand(FLAGS.workdirs),
            FLAGS.output,
            weights=files.expand(FLAGS.weights),
            folds=cli.numbers("folds", ",".join(FLAGS.folds)) if FLAGS.folds else None,
            member_weights=cli.member_weights(FLAGS.workdirs or FLAGS.weights),
            settings=cli.dataclass_from_flags(Settings),
            ladder_csv=FLAGS.ladder,
            pictures_dir=FLAGS.pictures_dir,
            out_of_fold_table=FLAGS.out_of_fold,
            out_of_fold_maps=FLAGS.out_of_fold_maps,
            progress=progress,
        )
    print(result)
    found = result.search
    print(
        f"Held-out Dice over {counted(result.num_images, 'image')}: "
        f"{found.plain.mean():.4f} plain, {found.cross_fitted.mean():.4f} with "
        f"post-processing (cross-fitted), {found.all_blank.mean():.4f} all blank; "
        f"wrote {FLAGS.output}"
    )


if __name__ == "__main__":
    cli.run(main)
