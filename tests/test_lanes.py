"""What one lane writes, the other reads; both compute the same.

Runs where .venv (lane one) and .venv-lane2 (lane two) stand beside each other, as .ci/run makes
them.
"""

import pathlib
import subprocess

import numpy as np
import pytest
from lane_program import EPOCHS
from shared_fixtures import ENVIRONMENT, REPOSITORY

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


@pytest.fixture(scope="module")
def folders(data_dir, once):
    """The folder of each lane, after both did all, then each went on from the other."""

    def write(folder):
        programs = {}
        for lane, python in PYTHONS.items():
            arguments = data_dir, f"{folder}/{lane}", f"{folder}/{OTHER[lane]}"
            programs[lane] = subprocess.Popen(
                [python, PROGRAM, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
            )
        errors = {lane: program.communicate()[1] for lane, program in programs.items()}
        failed = {lane: errors[lane][-3000:] for lane in OTHER if programs[lane].returncode}
        assert not failed, "\n".join(f"lane {lane}: {text}" for lane, text in failed.items())

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
    assert len(one) == EPOCHS and one[-1] < one[0]
    np.testing.assert_allclose(one, two, atol=1e-4)


@BOTH
def test_a_run_of_the_other_lane_is_resumed(folders, numbers, lane):
    found, expected = numbers[lane, "second"], numbers[OTHER[lane], "first"]
    half = (folders[OTHER[lane]] / "half" / "history.csv").read_text()
    assert len(half.splitlines()) == 1 + EPOCHS // 2 and len(found["losses"]) == EPOCHS
    for name in ("losses", "dice"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


@BOTH
def test_rules_of_the_other_lane_are_read(numbers, lane):
    expected = numbers[OTHER[lane], "first"]["rules"]
    np.testing.assert_array_equal(numbers[lane, "second"]["rules"], expected)
    # Those found in this lane are the same ones too.
    np.testing.assert_array_equal(numbers[lane, "first"]["rules"], expected)


@BOTH
def test_a_saved_model_of_the_other_lane_gives_the_same_rle(folders, lane):
    expected = (folders[OTHER[lane]] / "own.csv").read_text()
    assert (folders[lane] / "other.csv").read_text() == expected
    cells = [line.split(",")[1] for line in expected.splitlines()[1:]]
    assert any(cells)
