"""The programs of tools/, run as a user runs them."""

import csv
import dataclasses
import functools
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import venv
import zipfile
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pages import blocks
from programs import TOOLS, run_program, start_program
from shared_fixtures import ENVIRONMENT, REPOSITORY, run_tool

from clouds_tf import evaluation, serving, training
from clouds_tf.data import annotations, input_pipeline, sample_data, shards
from clouds_tf.data.records import Records
from clouds_tf.dataset import CLOUDS, Dataset
from clouds_tf.evaluation import score
from clouds_tf.prediction import Predictor, Rule, read_postprocessing
from clouds_tf.prediction.postprocessing import write_postprocessing
from clouds_tf.training import Recipe, train
from clouds_tf.training.workdir import Run


def _run(tool, *arguments, **flags):
    """Runs a tool from another folder; gives its exit status, output and errors."""
    found = run_tool(tool, *arguments, *(f"--{name}={value}" for name, value in flags.items()))
    return found.returncode, found.stdout, found.stderr


def _fails(tool, message, *arguments, **flags):
    """A tool fails with exit status 1 and one line that says why, without a traceback."""
    status, _, errors = _run(tool, *arguments, **flags)
    assert status == 1, errors
    # libjpeg may add a line of its own on what it cannot read.
    lines = [line for line in errors.strip().splitlines() if "JPEG library" not in line]
    assert len(lines) == 1 and lines[0].startswith(f"{tool}.py: error: "), errors
    assert re.search(message, lines[0]), lines[0]


@pytest.fixture(scope="module")
def wheel(once):
    """A wheel, built from the source archive."""

    def write(folder):
        source = f"{folder}/source"  # a build leaves files behind, and finds those of earlier ones
        ignored = (".*", "build", "*.egg-info", "__pycache__", "demo", "site")
        shutil.copytree(REPOSITORY, source, ignore=shutil.ignore_patterns(*ignored))
        build = ["build", "--no-isolation", "--skip-dependency-check", "--outdir", folder, source]
        subprocess.run([sys.executable, "-m", *build], check=True, stdout=subprocess.DEVNULL)

    (path,) = pathlib.Path(once("wheel", write)).glob("*.whl")
    return path


@pytest.fixture(scope="module")
def clouds_tf(wheel, once):
    """The console command of the wheel, in an environment of its own."""

    def write(folder):
        venv.create(folder, symlinks=True)
        (packages,) = pathlib.Path(folder).glob("lib/python*/site-packages")
        # Finds what clouds_tf requires, but not this source: its own .pth file is not read there.
        (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
        pip = [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install"]
        options = ["--quiet", "--no-deps", "--no-index", "--ignore-installed", "--no-compile"]
        subprocess.run([*pip, *options, wheel], check=True)

    return pathlib.Path(once("wheel_environment", write)) / "bin" / "clouds-tf"


@pytest.mark.slow
def test_a_wheel_holds_package_programs_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("rle/masks.py", "tools/train.py", "tools/cli.py", "trained/postprocessing.json"):
        assert f"clouds_tf/{name}" in names
    assert "clouds_tf/recipes/datasets/severstal.json" in names
    assert not [name for name in names if name.startswith(("tests", "tools"))]
    sources = {p.relative_to(REPOSITORY).as_posix() for p in REPOSITORY.glob("clouds_tf/**/*.py")}
    assert sources <= names


@pytest.mark.slow
def test_the_installed_command_runs(clouds_tf, tmp_path):
    environment = {key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"}
    run = functools.partial(
        subprocess.run, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    sizes = "--num_train=2", "--num_test=1", "--image_size=28,42"
    done = run([clouds_tf, "make_sample_data", "--output_dir=D", *sizes])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Wrote 2 training and 1 test image of 28x42 to D\n"
    done = run([clouds_tf, "make_sample_data", "--output_dir=D"])
    assert (done.returncode, done.stdout) == (1, "") and "D: already exists" in done.stderr


# Runs commands one after the other, as the console script does with each.
COMMANDS = """
import contextlib, io, json, runpy, sys
import programs
for command in json.load(open(sys.argv[1])):
    sys.argv, output = command, io.StringIO()
    with programs.left_as_it_was(), contextlib.redirect_stdout(output):
        status = programs.exit_status(lambda: runpy.run_path(command[0], run_name="__main__"))
    if status:
        sys.exit(f"{command}: exit status {status}")
    print(output.getvalue().strip().splitlines()[-1])
"""


@pytest.mark.slow
def test_from_train_csv_to_the_score(clouds_tf, tmp_path):
    """The installed command goes the whole way in a folder of the user's, as the README does."""
    readme = dict(command for block in blocks("README.md") for command in block.commands)
    assert list(readme) == ["make_tfrecords", "train", "evaluate", "export", "predict"]
    small = {"image_size": "32,48", "width": 0.125, "encoder": "tiny", "batch_size": 5}
    answers = {"submission": "submission.csv", "annotations": "D/test.csv"}
    sizes = {"num_train": 8, "num_test": 3, "image_size": "70,105"}
    commands = [
        ("make_sample_data", [], {"output_dir": "D", **sizes}),
        ("make_tfrecords", readme["make_tfrecords"], {"num_shards": 3, "num_folds": 2}),
        ("train", readme["train"], {**small, "fold": 1, "epochs": 1}),
        ("train", ["--flagfile=W/flags.txt"], {}),  # which is finished
        ("evaluate", readme["evaluate"], {}),
        ("export", readme["export"], {"check_images": 2}),
        ("predict", readme["predict"], {"picture": "predictions.png"}),
        ("score", [], {**answers, "per_image": "worst.csv"}),
    ]
    lines = [
        [str(clouds_tf), tool, *arguments, *(f"--{name}={value}" for name, value in flags.items())]
        for tool, arguments, flags in commands
    ]
    (packages,) = clouds_tf.parent.parent.glob("lib/python*/site-packages")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(packages)}
    (tmp_path / "commands.json").write_text(json.dumps(lines))
    work = tmp_path / "work"
    work.mkdir()
    arguments = "-c", COMMANDS, tmp_path / "commands.json"
    done = run_program(*arguments, env=environment, cwd=work, tiny=True)
    assert done.returncode == 0, done.stderr
    made, converted, trained, again, evaluated, exported, predicted, scored = (
        done.stdout.strip().splitlines()
    )
    assert made == "Wrote 8 training and 3 test images of 70x105 to D"
    assert converted == "Wrote 8 images in 3 shards and 2 folds to R"
    assert trained.startswith("Trained 1 epoch; best held-out Dice")
    assert again == trained and again.endswith("workdir W")
    assert {p.name for p in (work / "W").iterdir()} >= {"curves.png", "history.csv"}
    history = (work / "W" / "history.csv").read_text()
    assert len(history.splitlines()) == 2 and "nan" not in history
    assert re.match(r"Held-out Dice over \d images: 0\.\d+ plain, .*cross-fitted", evaluated)
    assert exported.endswith("to E/1")
    assert predicted.startswith("Wrote 3 images (0 unreadable) to submission.csv in ")
    assert (work / "predictions.png").read_bytes().startswith(b"\x89PNG")
    sample, found = (
        [row[:2] for row in annotations.iterate_rows(str(work / path), CLOUDS)]
        for path in ("D/sample_submission.csv", "submission.csv")
    )
    assert found == sample
    pattern = r"Dice [01]\.\d{4} over 3 images \(all blank: [01]\.\d{4}\); wrote"
    assert re.match(pattern, scored)
    header = (work / "worst.csv").read_text().splitlines()[0]
    assert header == "filename,dice,Fish,Flower,Gravel,Sugar,faults"
    written = ["postprocessing.json", "submission.csv", "predictions.png", "worst.csv"]
    assert {path.name for path in work.iterdir()} == {"D", "R", "W", "E", *written}


def _mask_along_rows(encoded, size):
    """A mask of RLE along rows, by hand: bool of that size."""
    pixels = np.zeros(size[0] * size[1], bool)
    numbers = [int(number) for number in encoded.split()]
    for start, length in zip(numbers[::2], numbers[1::2]):
        pixels[start - 1 : start - 1 + length] = True
    return pixels.reshape(size)


def _masks_by_label(path):
    with open(path) as file:
        header, *rows = csv.reader(file)
    masks = {(name, c): _mask_along_rows(encoded, STEEL.mask_size) for name, c, encoded in rows}
    return header, masks


STEEL = Dataset(
    class_names=("scratch", "pit", "patch"),
    mask_size=(128, 800),
    submission_size=(128, 800),
    label_columns=("ImageId", "ClassId"),
    rle_column="Defects",
    rle_order="rows",
    channels=5,
    exclusive=True,
)
# Masks by this rule would overlap everywhere, were the classes not exclusive.
LOW = Rule(threshold=0.05, relative_threshold=0.3, min_top_mean=0.1)


def _check_table(path):
    """Masks of a table of held-out images do not overlap, and its Dice is theirs."""
    for _, rows in pd.read_parquet(path).groupby("filename"):
        masks, truth = (
            np.stack([_mask_along_rows(x, STEEL.mask_size) for x in rows[column]])
            for column in ("encoded_pixels", "true_pixels")
        )
        assert masks.sum(axis=0).max() <= 1 and truth.sum(axis=0).max() == 1
        total, shared = (masks.sum((1, 2)) + truth.sum((1, 2))), (masks & truth).sum((1, 2))
        expected = np.where(total == 0, 1, 2 * shared / np.maximum(total, 1))
        np.testing.assert_allclose(rows["dice"], expected, atol=1e-6)


def _expected_masks(saved_model, contents):
    """Masks by the rule LOW from the probabilities of a SavedModel: bool [N, h, w, C]."""
    predictor = Predictor.open(saved_model)
    found = predictor.run("probabilities", image_bytes=tf.constant(contents))["probabilities"]
    highest = found.numpy() * (np.arange(3) == found.numpy().argmax(axis=-1)[..., np.newaxis])
    flat = np.sort(highest.reshape(len(contents), -1, 3), axis=1)
    mean = flat[:, -round(0.005 * flat.shape[1]) :].mean(axis=1)
    limit = np.maximum(LOW.threshold, np.round(100 * LOW.relative_threshold * mean) / 100)
    limit = np.where(mean >= LOW.min_top_mean, limit, 1).astype(np.float32)
    return highest > limit[:, np.newaxis, np.newaxis]


@pytest.mark.slow
@pytest.mark.lanes
def test_a_data_set_of_rows_five_channels_and_three_classes_that_exclude_each_other(
    tmp_path, monkeypatch
):
    data, records, workdir = (str(tmp_path / name) for name in "DRW")
    sample_data.write_sample_data(
        data, num_train=6, num_test=2, image_size=(64, 400), dataset=STEEL
    )
    shards.write_records(data, records, STEEL, num_shards=2, num_folds=2, num_workers=1)

    # The records hold the masks of the CSV, decoded by hand; the others are held out.
    header, truth = _masks_by_label(f"{data}/train.csv")
    assert header == ["ImageId", "ClassId", "Defects"]
    names = {name for name, _ in truth}
    expected = {np.stack([truth[n, c] for c in STEEL.class_names], axis=2).tobytes() for n in names}
    batches = Records.open(records).held_out_batches([0, 1], (32, 192), 4)
    masks = np.concatenate([masks for _, masks in batches.as_numpy_iterator()]).astype(bool)
    found = [mask.tobytes() for mask in masks]
    assert set(found) == expected and len(found) == 6

    small = {"image_size": (32, 192), "width": 0.125, "encoder": "tiny", "batch_size": 3}
    assert train(records, workdir, Recipe(epochs=1, loss="cce+dice", **small)).run.dataset == STEEL
    rules, out_of_fold = (str(tmp_path / name) for name in ("p.json", "table.parquet"))
    evaluation.evaluate(records, [workdir], rules, out_of_fold_table=out_of_fold)
    _check_table(out_of_fold)
    tuned = dataclasses.replace(read_postprocessing(rules, STEEL), rules=(LOW,) * 3, report={})
    write_postprocessing(rules, tuned, STEEL)
    monkeypatch.setattr("clouds_tf.serving.exporting._BATCH_SIZE", 1)
    exported = serving.export(
        [workdir], str(tmp_path / "E"), postprocessing=rules, records_dir=records, check_images=2
    )
    assert exported.difference.num_images == 2
    assert serving.read_metadata(exported.path).dataset == STEEL
    output, table = str(tmp_path / "s.csv"), str(tmp_path / "t.csv")
    serving.predict(
        exported.path, f"{data}/test_images", output, f"{data}/sample_submission.csv", table=table
    )

    header, predicted = _masks_by_label(output)
    assert header == ["ImageId", "ClassId", "Defects"]
    _, truth = _masks_by_label(f"{data}/test.csv")
    assert list(predicted) == list(truth)
    images = [f"{data}/test_images/{name}" for name, _ in truth][::3]
    expected = _expected_masks(exported.path, [pathlib.Path(name).read_bytes() for name in images])
    assert expected.any() and expected.sum(axis=-1).max() == 1
    for mask, of_class in zip(predicted.values(), np.moveaxis(expected, -1, 1).reshape(6, 128, -1)):
        np.testing.assert_array_equal(mask, of_class)
    with open(table) as file:
        areas = {(row["filename"], row["class"]): row for row in csv.DictReader(file)}
    for label, mask in predicted.items():
        assert float(areas[label]["area_fraction"]) == pytest.approx(mask.mean(), abs=1e-5)
    pairs = [(mask, predicted[label]) for label, mask in truth.items()]
    totals = [a.sum() + b.sum() for a, b in pairs]
    scores = [2 * (a & b).sum() / n if n else 1.0 for (a, b), n in zip(pairs, totals)]
    comparison = score.compare(output, f"{data}/test.csv", STEEL)
    assert np.mean(comparison.dice) == pytest.approx(np.mean(scores), abs=1e-5)


@pytest.mark.slow
def test_a_script_of_fifteen_lines_goes_the_whole_way(
    trained, evaluated, exported, tmp_path, monkeypatch, capsys
):
    """The tests above train, evaluate and export; here arguments are looked at, results copied."""

    def copy_run(records, workdir, recipe):
        assert Records.open(records).info.num_examples == 10 and recipe.image_size == (128, 192)
        shutil.copytree(trained, workdir)

    def copy_rules(records, workdirs, output):
        assert [Run.open(workdir).fold for workdir in workdirs] == [0] and records == "R"
        shutil.copy(evaluated, output)

    def copy_export(workdirs, export_dir, postprocessing):
        assert workdirs == ["W"] and read_postprocessing(postprocessing, CLOUDS).rules
        path = shutil.copytree(exported, f"{export_dir}/1")
        return serving.ExportResult(path, 1, "none", None, False)

    (script,) = [block.text for block in blocks("README.md") if block.kind == "python"]
    assert len(script.splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    for long, short in (
        ("num_train=48, num_test=12", "num_train=10, num_test=2"),
        ("image_size=(350, 525)", "image_size=(70, 105)"),
    ):
        assert long in script
        script = script.replace(long, short)
    for home, name, copy in (
        (training, "train", copy_run),
        (evaluation, "evaluate", copy_rules),
        (serving, "export", copy_export),
    ):
        stand_in = mock.create_autospec(getattr(home, name), side_effect=copy)
        monkeypatch.setattr(home, name, stand_in)
    exec(script, {})
    assert re.search(r"Comparison\(2 images, Dice 0\.\d{4}", capsys.readouterr().out)
    assert (tmp_path / "predictions.png").exists()


@pytest.mark.slow
def test_a_data_service_feeds_training(records_dir):
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    flags = f"--port={port}", f"--dispatcher=localhost:{port}"
    servers = [start_program(f"{TOOLS}/data_service.py", flag) for flag in flags]
    try:
        lines = [server.stdout.readline() for server in servers]
        address = f"grpc://localhost:{port}"
        assert lines == [f"Dispatcher: --data_service={address}\n", f"Worker of localhost:{port}\n"]
        batches = input_pipeline.training_batches(
            records_dir, [0, 1, 2], (32, 48), 4, 1, augmentation="strong", data_service=address
        )
        assert sum(len(images) for images, _ in batches) == 12
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def test_the_sample_data_tool_refuses_a_folder_that_is_in_use(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    _fails("make_sample_data", f"{tmp_path}: already exists", output_dir=tmp_path)


@pytest.fixture
def broken_dir(data_dir, tmp_path):
    """A copy of the data, to break."""
    return shutil.copytree(data_dir, tmp_path / "data")


def test_a_malformed_rle_is_named(broken_dir, tmp_path):
    path = broken_dir / "train.csv"
    lines = path.read_text().splitlines()
    label = lines[6].split(",")[0]
    path.write_text("\n".join([*lines[:6], f"{label},10 0", *lines[7:]]))
    filename, class_name = label.rsplit("_", 1)
    _fails(
        "make_tfrecords",
        f"train.csv, line 7: {filename}, {class_name}: .*length 0",
        data_dir=broken_dir,
        output_dir=tmp_path / "R",
        num_workers=1,
    )
    assert not (tmp_path / "R").exists()


def test_an_empty_folder_is_named(tmp_path):
    _fails(
        "make_tfrecords", "train.csv: no such file", data_dir=tmp_path, output_dir=tmp_path / "R"
    )


def test_a_corrupt_image_is_named(broken_dir, tmp_path):
    image = sorted((broken_dir / "train_images").iterdir())[3]
    image.write_bytes(image.read_bytes()[:500])
    _fails(
        "make_tfrecords",
        f"{image.name}: not a whole, readable JPEG",
        data_dir=broken_dir,
        output_dir=tmp_path / "R",
        num_shards=2,
        num_workers=1,
    )
    assert not (tmp_path / "R" / "dataset_info.json").exists()


def test_a_workdir_of_another_run_is_named(make_workdir, records_dir):
    _fails(
        "train", "workdir: .* holds a run with ", records_dir=records_dir, workdir=make_workdir()
    )


# Values out of their bounds are in test_cli.py.
@pytest.mark.parametrize(
    "flags, message",
    [
        ({"epocs": 3}, "Unknown command line flag 'epocs'.*epochs"),
        ({"fold": 9}, "fold: got 9, expected 0 to 2"),
        ({"loss": "bce+hinge"}, "loss: got 'hinge' in .*, expected a sum of bce"),
    ],
)
def test_a_wrong_flag_is_named(records_dir, tmp_path, flags, message):
    flags = {"records_dir": records_dir, "workdir": tmp_path / "W", **flags}
    _fails("train", message, **flags)
    assert not (tmp_path / "W").exists()


def test_a_required_flag_is_named():
    _fails("score", "submission", annotations="t.csv")
