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
    assert result.returncode == 0 and "Suites: all, climatology, explore, fuzz" in result.stdout
    text = run_tool("benchmark", "start", "--help").stdout
    assert text.startswith("Suite start: ") and "--saved_model" in text and "--repeats" in text


@pytest.mark.nightly
def test_rle_on_sample_masks(tmp_path):
    result = run_program(BENCHMARK, "rle", "--repeats=1", f"--data_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "64 sample rows" in result.stdout
    table = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    assert {"numpy + OpenCV", "plain TensorFlow", "OpenCV"} <= {row[2].strip() for row in table}
    assert all(_number(row[3]) > 0 and _number(row[4]) > 0 for row in table[2:])


@pytest.mark.nightly
def test_input_on_sample_images(tmp_path):
    flags = ["--repeats=1", "--seconds=0.2", "--num_images=4", "--memory_epochs=3"]
    flags += [f"--data_dir={tmp_path}", "--image_size=32,48"]
    result = run_program(BENCHMARK, "input", *flags)
    assert result.returncode == 0, result.stderr
    assert re.search(r"MB resident after each epoch of 4 images: \d+, \d+, \d+", result.stdout)
    lines = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    parts, table, ratios = ([x for x in lines if len(x) == length] for length in (4, 6, 9))
    has_keras_cv = importlib.util.find_spec("keras_cv") is not None
    assert len(parts) == 10 + has_keras_cv and all(float(row[2]) > 0 for row in parts[2:])
    assert {"ours, native, flips", "Keras Sequence, 1 worker"} <= {row[1].strip() for row in table}
    assert all(_number(cell) > 0 for row in table[2:] for cell in row[2:5])
    of_ours = [row for row in table if row[1].strip().startswith("ours")]
    assert len(ratios) == 2 + 2 * len(of_ours) and all(_number(row[3]) > 0 for row in ratios[2:])


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
    flags = ["--cell=10", "--peer_days=2", "--boxes=none"]
    result = run_program(BENCHMARK, "climatology", *flags)
    assert result.returncode == 0, result.stderr
    (row,) = [line.split("|") for line in result.stdout.splitlines() if "| shapely" in line]
    assert _number(row[6]) > 0


@pytest.mark.nightly
def test_growth_of_a_few_pieces(tmp_path):
    flags = ["--images=10,20,30", "--days=2,4,6", f"--picture={tmp_path}/growth.png"]
    flags += ["--parts=records,training input,climatology of boxes"]
    result = run_program(BENCHMARK, "growth", *flags)
    assert result.returncode == 0, result.stderr
    lines = [line.split("|") for line in result.stdout.splitlines() if line.startswith("|")]
    sizes, ratios = ([x for x in lines if len(x) == length] for length in (7, 9))
    assert [row[2].strip() for row in sizes[2:]] == ["10", "20", "30"] * 2 + ["2", "4", "6"]
    assert all(_number(row[3]) > 0 and _number(row[5]) > 0 for row in sizes[2:])
    assert len(ratios) == 2 + 6
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def _number(cell):
    return float(cell.replace(",", ""))


def test_a_speed_up_is_the_time_of_the_peer_over_ours(monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "measure", lambda *_: {"ours": 0.002, "peer": 0.006})
    benchmarks.compare([("task", {"ours": None, "peer": None}, {"peer": 2})], 1)
    *_, row = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in row.split("|")[3:8]] == ["2", "6", "ms", "3.00", "at least 2"]


@pytest.mark.parametrize(
    "kind, aim, expected",
    [
        ("time", 0.5, ("0.50", "at least 0.5")),
        ("time", 0.6, ("0.50", "at least 0.6, missed")),
        ("rate", 3, ("2.00", "at least 3, missed")),
        ("cost", 2, ("2.00", "at most 2")),
        ("cost", 1.2, ("2.00", "at most 1.2, missed")),
        ("rate", None, ("2.00", "")),
    ],
)
def test_a_ratio_that_misses_its_aim_says_so(kind, aim, expected):
    assert benchmarks.Ratio("t", "p", 4, 2, "s", aim, kind).cells()[-2:] == expected


PROGRAM = """
import json, os, sys
suite, flag = sys.argv[1:]
with open(os.environ["CLOUDS_TF_RATIOS"], "a") as file:
    for _ in range(flag.count("r")):
        row = {"task": suite, "peer": "a peer", "ours": 2, "theirs": 6, "unit": "s", "aim": 2}
        file.write(json.dumps(row) + "\\n")
sys.exit("the disk is full" if suite == "bad" else 0)
"""


def test_all_keeps_the_rows_of_suites_that_fail_and_names_them(tmp_path, monkeypatch):
    program, output = tmp_path / "program.py", tmp_path / "page.md"
    program.write_text(PROGRAM)
    monkeypatch.setattr(sys, "argv", [str(program)])
    with flagsaver.flagsaver():
        suite = importlib.import_module("benchmarks.all")
        names = {"output": str(output), "suites": [], "minutes": 1}
        monkeypatch.setattr(suite, "FLAGS", types.SimpleNamespace(**names))
        monkeypatch.setattr(suite, "RUNS", [("bad", "rr"), ("good", "r"), ("silent", "-")])
        with pytest.raises(SystemExit, match="bad rr: .*; silent -: it gave no row"):
            suite.main()
        suite.FLAGS.suites = ["good", "god"]
        with pytest.raises(ValueError, match="suites: got god, expected some of bad, good, silent"):
            suite.main()
    del sys.modules["benchmarks.all"]
    text = output.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    found = [row for row in rows if "a peer" in row]
    cells = ["a peer", "2", "6", "s", "3.00", "at least 2"]
    assert found == [["bad", "bad", *cells]] * 2 + [["good", "good", *cells]]
    assert "- bad rr: exit status 1: the disk is full\n" in text


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
