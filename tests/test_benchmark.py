import ast
import importlib.util
import re
import sys
import types

import numpy as np
import pytest
from absl.testing import flagsaver
from programs import TOOLS, run_program, run_tool

from clouds_tf.keras import keras

BENCHMARK = f"{TOOLS}/benchmark.py"
sys.path.append(TOOLS)
benchmarks = importlib.import_module("benchmarks")


@pytest.mark.parametrize("args", [[], ["nothing"], ["--repeats=1"]])
def test_without_a_suite_it_names_them(args):
    result = run_tool("benchmark", *args)
    assert result.returncode == 1
    assert result.stderr.startswith("benchmark.py: error: the first argument names a suite: ")
    assert "rle" in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_names_the_suites():
    result = run_tool("benchmark", "--help")
    assert result.returncode == 0 and "Suites: climatology, explore, fuzz" in result.stdout


@pytest.mark.nightly
def test_rle_on_sample_masks(tmp_path):
    result = run_program(BENCHMARK, "rle", "--repeats=1", f"--data_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "64 sample rows" in result.stdout
    table = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    assert {"numpy + OpenCV", "plain TensorFlow", "OpenCV"} <= {row[2].strip() for row in table}
    assert all(float(row[3]) > 0 and float(row[4]) > 0 for row in table[2:])


@pytest.mark.nightly
def test_input_on_sample_images(tmp_path):
    flags = ["--repeats=1", "--seconds=0.2", "--num_images=4", "--memory_epochs=3"]
    flags += [f"--data_dir={tmp_path}", "--image_size=32,48"]
    result = run_program(BENCHMARK, "input", *flags)
    assert result.returncode == 0, result.stderr
    assert re.search(r"MB resident after each epoch of 4 images: \d+, \d+, \d+", result.stdout)
    lines = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    parts, table = ([line for line in lines if len(line) == length] for length in (4, 8))
    has_keras_cv = importlib.util.find_spec("keras_cv") is not None
    assert len(parts) == 10 + has_keras_cv and all(float(row[2]) > 0 for row in parts[2:])
    assert {"ours, native, flips", "Keras Sequence, 1 worker"} <= {row[1].strip() for row in table}
    assert all(float(row[2]) > 0 and float(row[5]) > 0 for row in table[2:])


@pytest.mark.nightly
def test_model_compares_encoders():
    flags = ["--encoders=resnet34", "--image_size=32,64", "--batch_sizes=2", "--repeats=1"]
    result = run_program(BENCHMARK, "model", *flags)
    assert result.returncode == 0, result.stderr
    table = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    assert [row[4].strip() for row in table[2:]] == ["forward", "training"]
    assert {row[2].strip() for row in table[2:]} == {"24,455,812"}
    assert all(float(row[5]) > 0 and float(row[6]) > 0 for row in table[2:])


@pytest.mark.nightly
def test_fuzz_lives_on():
    result = run_program(BENCHMARK, "fuzz", "--num_inputs=150")
    assert result.returncode == 0, result.stderr
    table = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    counts = {row[1].strip(): int(row[2]) for row in table[2:]}
    assert set(counts) == {"refused", "answered"} and sum(counts.values()) == 150
    assert "still answers as before" in result.stdout


@pytest.mark.nightly
def test_serve_under_load_and_faults():
    flags = ["--parts=memory,hostile,drain", "--num_small=400", "--num_hostile=60"]
    result = run_program(BENCHMARK, "serve", *flags)
    assert result.returncode == 0, result.stderr
    assert "400 requests of a small image" in result.stdout
    good, right = re.search(r"of ([\d,]+) good ones among them\n([\d,]+) ", result.stdout).groups()
    assert good == right != "0"
    (counts,) = re.findall(r"SIGTERM under 8 clients: status (\{.*\}) ", result.stdout)
    assert ast.literal_eval(counts).keys() <= {200, 503, 0} and "exit status 0" in result.stdout


@pytest.mark.nightly
def test_climatology_of_a_few_days():
    flags = ["--num_days=3", "--num_days=6", "--cell=10", "--peer_days=2", "--boxes=none"]
    result = run_program(BENCHMARK, "climatology", *flags)
    assert result.returncode == 0, result.stderr
    lines = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    runs, peers = ([line for line in lines if len(line) == length] for length in (7, 8))
    assert [row[2].strip() for row in runs[2:]] == ["3", "6"]
    assert all(float(row[3]) > 0 and float(row[5]) >= 0 for row in runs[2:])
    assert float(peers[2][5]) > 0


def test_a_speed_up_is_the_time_of_the_peer_over_ours(monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "measure", lambda *_: {"ours": 0.002, "peer": 0.006})
    benchmarks.compare([("task", {"ours": None, "peer": None}, {"peer": 2})], 1)
    *_, row = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in row.split("|")[3:7]] == ["2.00", "6.00", "3.00", "2"]


def test_the_time_of_a_function_is_the_median_of_all_but_its_first_call():
    ticks = iter(np.cumsum([0, 5, 0, 1, 0, 9]))
    calls = []
    seconds = benchmarks.measure({"f": lambda: calls.append(1)}, 3, lambda: next(ticks))
    assert seconds == {"f": 5} and len(calls) == 4


@pytest.fixture
def suite():
    """The module of the suite `model`; its flags are gone afterwards."""
    with flagsaver.flagsaver():
        found = importlib.import_module("benchmarks.model")
        yield found
    del sys.modules["benchmarks.model"]


def test_operations_are_counted_over_all_pixels(suite, monkeypatch):
    monkeypatch.setattr(suite, "FLAGS", types.SimpleNamespace(image_size=(4, 10)))
    image = keras.Input([None, None, 3])
    wide = keras.layers.Conv2D(5, 3, padding="same")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 1, strides=2)(wide))
    assert suite.operations(model) == [2 * 4 * 10 * 9 * 3 * 5, 2 * 2 * 5 * 5 * 2]
