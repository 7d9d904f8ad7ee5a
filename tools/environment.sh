# Sourced by demo.sh and test.sh: finds a Python, makes the environment, installs clouds_tf into it.
#
# PYTHON=python3.12 chooses the interpreter, VENV=.venv-py312 the folder of the environment.
# Python 3.9 to 3.11 are lane one (TensorFlow 2.15 with tensorflow-addons and keras-cv), 3.12 and
# 3.13 are lane two (a current TensorFlow with tf-keras).
cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV=${VENV:-.venv}

# lane PYTHON: prints one or two; fails if the interpreter is missing, too old or too new.
lane() {
  "$1" -c 'import ensurepip, sys, venv
version = sys.version_info[:2]
assert (3, 9) <= version <= (3, 13)
print("one" if version < (3, 12) else "two")' 2>/dev/null
}

find_python() {
  local python candidates=(python3.11 python3.10 python3.9 python3.13 python3.12 python3)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for python in "${candidates[@]}"; do
    if lane "$python" >/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "clouds_tf needs Python 3.9 to 3.13 with venv${PYTHON:+, got PYTHON=$PYTHON}:" \
    "apt install python3.11 python3.11-venv, or https://www.python.org/downloads" >&2
  return 1
}

# make_environment [--clear]: makes $VENV if there is none, or anew for another PYTHON.
make_environment() {
  local python
  if [ "${1:-}" != --clear ] && [ -x "$VENV/bin/python" ] && [ -z "${PYTHON:-}" ]; then
    return
  fi
  python=$(find_python)
  if [ "${1:-}" != --clear ] && [ -x "$VENV/bin/python" ] &&
    [ "$("$python" --version)" = "$("$VENV/bin/python" --version)" ]; then
    return
  fi
  echo "== Environment: $("$python" --version), lane $(lane "$python") -> $VENV"
  "$python" -m venv --clear "$VENV"
}

# requirements: a checksum of all that decides what is installed; settings of linters do not.
requirements() {
  cat <(sed '/^\[mypy\]/,$d' setup.cfg) setup.py tools/environment.sh | sha256sum
}

# install EXTRA: installs this folder in place with an extra; skipped, and then no network is
# needed, if it was installed before, or the extra test, which has docs and plots in it.
install() {
  local stamp wanted
  wanted=$(requirements)
  for stamp in "$VENV/installed-test" "$VENV/installed-$1"; do
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
  done
  # The pip that comes with Python 3.9 searches for fitting versions without end.
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
  # setuptools warns about every editable installation.
  PYTHONWARNINGS="ignore:Editable installation" \
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
  echo "$wanted" >"$stamp"
}
