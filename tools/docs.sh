#!/usr/bin/env bash
# Builds the documentation site into site/, in .venv (created if missing). Warnings are errors.
# Arguments go to mkdocs: bash tools/docs.sh --site-dir=/tmp/site
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment
install docs
# The theme advertises its successor on every build.
NO_MKDOCS_2_WARNING=1 "$VENV/bin/python" -m mkdocs build --strict --quiet "$@"
echo "Wrote the site; open site/index.html"
