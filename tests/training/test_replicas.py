"""The same global batch gives the same numbers on 1, 2 and 4 replicas, and on two workers."""

import json
import pathlib

import numpy as np
import pytest
from program import free_ports
from programs import ENVIRONMENT, start_program

pytestmark = [pytest.mark.slow, pytest.mark.lanes]

PROGRAM = pathlib.Path(__file__).with_name("program.py")


def _start(*arguments, **environment):
    return start_program(PROGRAM, *arguments, env={**ENVIRONMENT, **environment}, merge=True)


def _finish(program):
    output, _ = program.communicate()
    assert program.returncode == 0, output


def _run(output, *arguments):
    _finish(_start(f"--output={output}", *arguments))
    return dict(np.load(output))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def one(folder):
    return _run(folder / "one.npz")


@pytest.fixture(scope="module")
def four(folder, one):
    arguments = ("--distribute=mirrored", "--num_devices=4", f"--restore={folder / 'one'}")
    return _run(folder / "four.npz", *arguments)


def _assert_same(found, expected):
    """Gradients are compared as the first steps of SGD; metrics and averages are among these."""
    common = sorted(name for name in set(found) & set(expected) if not name.startswith("few"))
    assert {
        "step_loss2",
        "step2_weight0",
        "loss",
        "val_loss",
        "val_dice",
        "average_weight0",
    } <= set(common)
    for name in common:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_replicas_are_as_one(folder, one):
    _assert_same(_run(folder / "two.npz", "--distribute=mirrored", "--num_devices=2"), one)


def test_four_replicas_are_as_one_also_where_three_images_are_validated(four, one):
    _assert_same(four, one)


def test_four_replicas_learn_from_three_images_as_one_does(four, one):
    few = [name for name in one if name.startswith("few")]
    assert len(few) > 5
    for name in few:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_checkpoints_of_one_and_four_replicas_are_for_either(folder, four):
    # Four went on from one's checkpoint; now one goes on from four's, which is the same state.
    again = _run(folder / "again.npz", f"--restore={folder / 'four'}")
    names = [name for name in again if name.startswith("restored")]
    assert len(names) > 5
    for name in names:
        np.testing.assert_allclose(again[name], four[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_two_workers_are_as_one(folder, one):
    workers = [f"localhost:{port}" for port in free_ports(2)]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        output = f"--output={folder / f'worker{index}.npz'}"
        processes.append(_start("--distribute=multi_worker", output, TF_CONFIG=json.dumps(cluster)))
    for process in processes:
        _finish(process)
    for index in range(2):
        _assert_same(dict(np.load(folder / f"worker{index}.npz")), one)
