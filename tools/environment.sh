# Sourced by demo.sh and test.sh: finds a Python and installs clouds_tf into .venv.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local python
  for python in python3.11 python3.10 python3.9 python3; do
    if "$python" -c 'import ensurepip, sys, venv
assert (3, 9) <= sys.version_info[:2] <= (3, 11)' 2>/dev/null; then
      echo "$python"
      return
    fi
  done
  echo "clouds_tf needs Python 3.9, 3.10 or 3.11 with venv: apt install python3.11 python3.11-venv," \
    "or https://www.python.org/downloads" >&2
  return 1
}

# install EXTRAS: installs this folder in place, with the extras named.
install() {
  # The pip that comes with Python 3.9 searches for fitting versions without end.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$1]"
}
