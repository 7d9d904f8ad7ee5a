#!/usr/bin/env bash
# usage: bash tools/quickstart.sh IMAGES_DIR [OUTPUT_DIR]
# Predicts masks of your images with the shipped model, without training: creates the environment if
# it is missing, exports a SavedModel of the shipped weights, and predicts all JPEGs and PNGs of the
# folder. At the end, it prints the command that shows them in a browser.
# Everything is written to OUTPUT_DIR (quickstart by default). Set WEIGHTS and POSTPROCESSING to use
# other files than the shipped ones.
set -euo pipefail

fail() {
  echo "quickstart.sh: error: $1" >&2
  exit 1
}
[ $# -ge 1 ] && [ $# -le 2 ] || fail "usage: bash tools/quickstart.sh IMAGES_DIR [OUTPUT_DIR]"
[ -d "$1" ] || fail "$1: no such folder; expected a folder of JPEGs and PNGs"
IMAGES=$(cd "$1" && pwd)
OUTPUT=${2:-quickstart}
mkdir -p "$OUTPUT" 2>/dev/null || fail "$OUTPUT: cannot be created"
OUTPUT=$(cd "$OUTPUT" && pwd)
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
WEIGHTS=${WEIGHTS:-models/clouds_unet.safetensors}
POSTPROCESSING=${POSTPROCESSING-models/postprocessing.json}
for file in "$WEIGHTS" ${POSTPROCESSING:+"$POSTPROCESSING"}; do
  [ -f "$file" ] || fail "$file: no such file; a git clone contains the shipped model"
done

make_environment
install plots,serve

run() {
  echo "== tools/$1.py"
  "$VENV/bin/python" "tools/$1.py" "${@:2}"
}
stamp="$OUTPUT/model/made_of"
wanted=$(cat "$WEIGHTS" ${POSTPROCESSING:+"$POSTPROCESSING"} | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
  rm -rf "$OUTPUT/model"
  run export --weights="$WEIGHTS" ${POSTPROCESSING:+--postprocessing="$POSTPROCESSING"} \
    --export_dir="$OUTPUT/model" --check_images=2
  echo "$wanted" >"$stamp"
fi
status=0
run predict --saved_model="$OUTPUT/model/1" --images_dir="$IMAGES" \
  --output="$OUTPUT/predictions.csv" --table="$OUTPUT/table.csv" --masks_dir="$OUTPUT/masks" \
  --overlay_dir="$OUTPUT/pictures" --picture="$OUTPUT/overview.png" || status=$?
[ $status = 0 ] || [ $status = 2 ] || exit $status # 2: some images were unreadable and are named

echo
echo "Masks as RLE:        $OUTPUT/predictions.csv"
echo "Presence and areas:  $OUTPUT/table.csv"
echo "Masks as PNG:        $OUTPUT/masks"
echo "Pictures:            $OUTPUT/pictures and $OUTPUT/overview.png"
echo "SavedModel:          $OUTPUT/model/1"
echo "Next, in a browser:  $(printf '%q ' "$(cd "$VENV" && pwd)/bin/python" \
  "$PWD/tools/serve.py" "--saved_model=$OUTPUT/model" "--images_dir=$IMAGES")"
exit $status
