#!/usr/bin/env bash
# Lint and tests, in .venv (made if there is none). Arguments go to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
install test
.venv/bin/python -m flake8
.venv/bin/python -m isort --check-only --quiet .
.venv/bin/python -m pytest -n 2 --dist worksteal "$@"
