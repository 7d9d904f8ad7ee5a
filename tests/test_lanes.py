"""What one lane writes, the other reads; both compute the same.

Runs where .venv (lane one) and .venv-lane2 (lane two) stand beside each other, as .ci/run makes
them.
"""

import pathlib
import subprocess

import numpy as np
import pytest
from conftest import ENVIRONMENT, REPOSITORY
from lane_program import RESUMED, STEPS

PROGRAM = pathlib.Path(__file__).with_name("lane_program.py")
PYTHONS = {"one": REPOSITORY / ".venv" / "bin" / "python"}
PYTHONS["two"] = REPOSITORY / ".venv-lane2" / "bin" / "python"
OTHER = {"one": "two", "two": "one"}
BOTH = pytest.mark.parametrize("lane", ["one", "two"])

pytestmark = [
    pytest.mark.skipif(
        not all(python.exists() for python in PYTHONS.values()),
        reason="needs both environments: .venv of lane one and .venv-lane2 of lane two",
    ),
    pytest.mark.slow,
    pytest.mark.lanes,
]


def _run(lane, *arguments):
    found = subprocess.run(
        [PYTHONS[lane], PROGRAM, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.fixture(scope="module")
def folders(data_dir, once):
    """The folder of each lane, after both did all, then each went on from the other."""

    def write(folder):
        for lane in PYTHONS:
            _run(lane, "first", data_dir, f"{folder}/{lane}")
        for lane, other in OTHER.items():
            _run(lane, "second", data_dir, f"{folder}/{lane}", f"{folder}/{other}")

    folder = pathlib.Path(once("lanes", write))
    return {lane: folder / lane for lane in PYTHONS}


@pytest.fixture(scope="module")
def numbers(folders):
    """(lane, "first" or "second") -> numbers of that run."""
    return {
        (lane, run): dict(np.load(folder / f"{run}.npz"))
        for lane, folder in folders.items()
        for run in ("first", "second")
    }


def test_the_lanes_differ(numbers):
    major_one, major_two = (
        tuple(map(int, str(numbers[lane, "first"]["version"]).split(".")[:2])) for lane in OTHER
    )
    assert major_one < (2, 16) <= major_two


def test_records_are_the_same_bytes(folders):
    one, two = (
        {path.name: path.read_bytes() for path in (folder / "records").iterdir() if path.is_file()}
        for folder in folders.values()
    )
    assert len(one) > 4 and one == two


def test_the_loss_falls_alike(numbers):
    one, two = (numbers[lane, "first"]["losses"] for lane in OTHER)
    assert len(one) == STEPS and one[-1] < one[0]
    np.testing.assert_allclose(one, two, atol=1e-4)


@BOTH
def test_a_checkpoint_of_the_other_lane_goes_on(numbers, lane):
    found = numbers[lane, "second"]["losses"]
    expected = numbers[OTHER[lane], "first"]["losses"][RESUMED:]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@BOTH
def test_a_run_of_the_other_lane_is_resumed(numbers, lane):
    found, expected = numbers[lane, "second"], numbers[OTHER[lane], "first"]
    for name in ("history", "dice"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


@BOTH
def test_a_saved_model_of_the_other_lane_gives_the_same_rle(folders, lane):
    expected = (folders[OTHER[lane]] / "own.csv").read_text()
    assert (folders[lane] / "other.csv").read_text() == expected
    cells = [line.split(",")[1] for line in expected.splitlines()[1:]]
    assert any(cells)
