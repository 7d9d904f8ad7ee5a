#!/usr/bin/env bash
# Lint, types and tests, in .venv (made if there is none). Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

make_environment
install test
echo "== Lane $(lane "$VENV/bin/python"): $("$VENV/bin/python" --version)"
"$VENV/bin/python" -m flake8
"$VENV/bin/python" -m isort --check-only --quiet .
"$VENV/bin/python" -m mypy
"$VENV/bin/python" -m pytest -n 2 --dist worksteal "$@"
