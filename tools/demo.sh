#!/usr/bin/env bash
# The whole pipeline on synthetic data: a fresh .venv, then from train.csv to submission and score.
# Everything is written to demo/, which is deleted first.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment --clear
install plots
rm -rf demo

run() {
  echo "== tools/$1.py"
  "$VENV/bin/python" "tools/$1.py" "${@:2}"
}
run make_sample_data --output_dir=demo/data --num_train=160 --num_test=40 --image_size=350,525
run make_tfrecords --data_dir=demo/data --output_dir=demo/records --num_shards=10
run train --flagfile=recipes/demo.txt --records_dir=demo/records --workdir=demo/workdir
run evaluate --records_dir=demo/records --workdirs=demo/workdir --output=demo/postprocessing.json
run export --workdirs=demo/workdir --postprocessing=demo/postprocessing.json \
  --export_dir=demo/export
run predict --saved_model=demo/export/1 --images_dir=demo/data/test_images \
  --sample_submission=demo/data/sample_submission.csv --output=demo/submission.csv \
  --picture=demo/predictions.png
run score --submission=demo/submission.csv --annotations=demo/data/test.csv | tee demo/score.txt

echo
echo "Submission: $PWD/demo/submission.csv"
echo "Picture:    $PWD/demo/predictions.png"
echo "Score:      $(tail -n 1 demo/score.txt)"
echo "Next:       source $VENV/bin/activate, then python tools/train.py --help"
