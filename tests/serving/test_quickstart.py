"""tools/quickstart.sh, with an environment that is there already and a tiny model."""

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from programs import TOOLS
from shared_fixtures import ENVIRONMENT, REPOSITORY

from clouds_tf.dataset import CLOUDS
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights

pytestmark = pytest.mark.slow

MODEL = {"num_classes": 4, "width": 0.125, "encoder": "tiny"}
# Runs a tool, which knows that encoder.
PROGRAM = f"""
import runpy, sys
sys.argv[:], sys.path[0] = sys.argv[1:], '{TOOLS}'
runpy.run_path('{REPOSITORY}/tests/tiny.py')
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables for the script: a finished environment with this Python, and tiny weights."""
    folder = tmp_path_factory.mktemp("quickstart")
    python = folder / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{PROGRAM}" "$@"\n')
    python.chmod(0o755)
    command = "source tools/environment.sh; requirements"
    stamp = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, stdout=subprocess.PIPE)
    (folder / "venv" / "installed-plots,serve").write_bytes(stamp.stdout)
    metadata = {"model": MODEL, "dataset": CLOUDS.to_json(), "image_size": [32, 48]}
    save_model_weights(unet(**MODEL), str(folder / "w.safetensors"), metadata)
    found = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHON"}
    weights = str(folder / "w.safetensors")
    return {**found, "VENV": str(folder / "venv"), "WEIGHTS": weights, "POSTPROCESSING": ""}


def _quickstart(environment, *arguments, cwd=REPOSITORY):
    return subprocess.run(
        ["bash", str(REPOSITORY / "tools" / "quickstart.sh"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_from_a_folder_of_images_to_masks_table_and_pictures(environment, data_dir, tmp_path):
    images = shutil.copytree(data_dir / "test_images", tmp_path / "my images")
    (images / "a.jpg").write_text("<html>")
    found = _quickstart(environment, "my images", "out", cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    assert "unreadable, its rows are blank: a.jpg: HTML or XML" in found.stderr
    assert "Exception ignored" not in found.stderr  # compiled functions end before TensorFlow
    output = tmp_path / "out"
    assert sorted(os.listdir(output)) == sorted(
        ["masks", "model", "overview.png", "pictures", "predictions.csv", "table.csv"]
    )
    assert len((output / "table.csv").read_text().splitlines()) == 1 + 4 * 4
    assert len(os.listdir(output / "masks")) == 12 and len(os.listdir(output / "pictures")) == 3
    lines = found.stdout.strip().splitlines()
    assert lines[-6] == f"Masks as RLE:        {output}/predictions.csv"
    assert lines[-2] == f"SavedModel:          {output}/model/1"
    command = shlex.split(lines[-1].removeprefix("Next, in a browser:"))
    flags = [f"--saved_model={output}/model", f"--images_dir={images}"]
    tool = str(REPOSITORY / "tools" / "serve.py")
    assert command == [f"{environment['VENV']}/bin/python", tool, *flags]


def test_what_is_wrong_is_one_line(environment, data_dir, tmp_path):
    bad = tmp_path / "bad.safetensors"
    content = bytearray(open(environment["WEIGHTS"], "rb").read())
    content[-9] ^= 1
    bad.write_bytes(content)
    images = str(data_dir / "test_images")
    for arguments, change, message in (
        ([], {}, "usage: bash tools/quickstart.sh IMAGES_DIR"),
        (["nowhere"], {}, "nowhere: no such folder"),
        ([images, str(tmp_path / "o")], {"WEIGHTS": "w"}, "w: no such file; a git clone"),
        ([images, str(tmp_path / "o")], {"WEIGHTS": str(bad)}, "does not match its checksum"),
    ):
        found = _quickstart({**environment, **change}, *arguments)
        assert found.returncode == 1
        (line,) = found.stderr.strip().splitlines()
        assert message in line
