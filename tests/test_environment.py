"""The shell functions that make the environment of demo.sh and test.sh."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from shared_fixtures import REPOSITORY

SCRIPT = REPOSITORY / "tools" / "environment.sh"


def _bash(code, **variables):
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; source {SCRIPT}; {code}"],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def fake_python(tmp_path):
    """A function that writes a program that says it is a Python, and notes what it is asked."""

    def make(name, lane):
        path = tmp_path / name / "bin" / "python"
        path.parent.mkdir(parents=True)
        path.write_text(
            f'#!/bin/sh\necho "$@" >>{tmp_path}/{name}/calls\n'
            f'case "$1" in -c) {f"echo {lane}" if lane else "exit 1"};;'
            f' --version) echo "Python {name}";; esac\n'
        )
        path.chmod(0o755)
        return path

    return make


def test_no_fitting_python_is_one_line_and_status_1(fake_python, tmp_path):
    python = str(fake_python("3.14.0", lane=None))
    found = _bash("make_environment; echo made", PYTHON=python, VENV=str(tmp_path / "venv"))
    assert (found.returncode, found.stdout) == (1, "")
    assert len(found.stderr.splitlines()) == 1
    assert f"needs Python 3.9 to 3.13 with venv, got PYTHON={python}" in found.stderr


def test_the_lane_follows_the_version():
    lane = "one" if sys.version_info < (3, 12) else "two"
    assert _bash(f"lane {sys.executable}").stdout == f"{lane}\n"


def test_an_environment_of_another_python_is_made_anew(fake_python, tmp_path):
    new, old = fake_python("3.12.1", lane="two"), fake_python("3.11.7", lane="one")
    venv = str(old.parent.parent)
    kept = _bash("make_environment", VENV=venv)
    assert (kept.returncode, kept.stdout) == (0, "")
    made = _bash("make_environment", VENV=venv, PYTHON=str(new))
    assert made.stdout == f"== Environment: Python 3.12.1, lane two -> {venv}\n"
    assert (tmp_path / "3.12.1" / "calls").read_text().endswith(f"-m venv --clear {venv}\n")


def test_a_ready_environment_needs_no_package_index(fake_python, tmp_path):
    venv = fake_python("3.11.7", lane="one").parent.parent
    for extra in ("plots", "plots", "docs", "test", "test", "plots", "docs"):
        assert _bash(f"install {extra}", VENV=str(venv)).returncode == 0
    installed = re.findall(r"--editable \.\[(\w+)\]", (venv / "calls").read_text())
    assert installed == ["plots", "docs", "test"]  # test has the others in it


@pytest.mark.parametrize(
    "file, line, changes",
    [("setup.cfg", "[mypy]", False), ("setup.cfg", "pandas", True), ("setup.py", "setup", True)],
)
def test_settings_of_linters_do_not_install_anew(tmp_path, file, line, changes):
    (tmp_path / "tools").mkdir()
    for name in ("setup.cfg", "setup.py", "tools/environment.sh"):
        shutil.copy(REPOSITORY / name, tmp_path / name)

    def requirements():
        command = f"source {tmp_path}/tools/environment.sh; requirements"
        return subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE).stdout

    before = requirements()
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text.replace(line, f"{line}\n# changed", 1))
    assert (requirements() != before) == changes


def test_fast_leaves_out_the_slow_tests(fake_python):
    venv = fake_python("3.11.7", lane="one").parent.parent
    environment = {"PATH": os.environ["PATH"], "VENV": str(venv)}
    command = ["bash", REPOSITORY / "tools" / "test.sh"]
    for arguments, expected in (
        (["--fast", "-x"], ["-m", "not slow and not nightly", "-x"]),
        (["-x"], ["-x"]),
    ):
        subprocess.run([*command, *arguments], env=environment, check=True, capture_output=True)
        last = (venv / "calls").read_text().splitlines()[-1]
        assert last == " ".join(["-m pytest -n 2 --dist worksteal", *expected])
