#!/usr/bin/env bash
# Lint, types and tests, in .venv (made if there is none). --fast leaves out the tests marked slow.
# Other arguments go to pytest: bash tools/test.sh tests/rle -x
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ "${1:-}" != --fast ] || set -- -m "not slow" "${@:2}"
make_environment
install test
echo "== Lane $(lane "$VENV/bin/python"): $("$VENV/bin/python" --version)"
"$VENV/bin/python" -m flake8
"$VENV/bin/python" -m isort --check-only --quiet .
"$VENV/bin/python" -m mypy
"$VENV/bin/python" -m pytest -n 2 --dist worksteal "$@"
