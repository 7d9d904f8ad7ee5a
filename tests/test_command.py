"""The console command `clouds-tf`, and what a wheel holds."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ENVIRONMENT, REPOSITORY


def _run(*arguments, cwd):
    # In an installed copy the module is clouds_tf.tools.command.
    return subprocess.run(
        [sys.executable, "-c", "from tools.command import main; main()", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def test_it_runs_a_tool_from_another_folder(tmp_path):
    done = _run("make_sample_data", "--output_dir=D", "--num_train=1", "--num_test=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "D" / "train.csv").exists()


@pytest.mark.parametrize("arguments, status", [((), 0), (("--help",), 0), (("trein",), 1)])
def test_it_lists_the_tools(arguments, status, tmp_path):
    done = _run(*arguments, cwd=tmp_path)
    assert done.returncode == status
    tools = done.stdout.split("tools: ")[1].strip().split(", ")
    assert {"make_tfrecords", "train", "climatology"} <= set(tools)
    assert not {"cli", "command", "__init__"} & set(tools)
    assert ("no tool 'trein'" in done.stdout) == (status == 1)


def test_a_wheel_holds_package_programs_and_data(tmp_path):
    source = tmp_path / "source"  # a build leaves files behind, and finds those of earlier ones
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__", "tests", "demo")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("clouds_tf/rle/masks.py", "clouds_tf/tools/train.py", "clouds_tf/tools/cli.py"):
        assert name in names
    assert not [name for name in names if name.startswith(("tests", "tools"))]
    sources = {p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob("clouds_tf/**/*.py")}
    assert sources <= names
