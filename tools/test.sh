#!/usr/bin/env bash
# Lint, types and tests, in .venv (created if missing). --fast leaves out the tests marked slow,
# other arguments go to pytest: bash tools/test.sh tests/rle -x. The last line is the test time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ "${1:-}" != --fast ] || set -- -m "not slow and not nightly" "${@:2}"
make_environment
install test
lane=$(lane "$VENV/bin/python")
echo "== Lane $lane: $("$VENV/bin/python" --version)"
"$VENV/bin/python" -m flake8
"$VENV/bin/python" -m isort --check-only --quiet .
"$VENV/bin/python" -m mypy
TIMEFORMAT="== Tests of lane $lane: %1U + %1S s of CPU in %1R s"
time "$VENV/bin/python" -m pytest -n 2 --dist worksteal "$@"
