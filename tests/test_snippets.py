"""Every command and snippet of README and docs is run, or says in a comment what it needs."""

import contextlib
import functools
import gzip
import os
import pathlib
import re
import runpy
import shutil
import sys
from unittest import mock

import pytest
from absl import flags
from pages import PAGES, blocks
from shared_fixtures import REPOSITORY

from clouds_tf import figures
from clouds_tf.dataset import CLOUDS
from clouds_tf.models.unet import unet
from clouds_tf.models.weights import save_model_weights

sys.path.insert(0, str(REPOSITORY / "tools"))  # where the programs find cli

# test_end_to_end.py runs the commands and the script of README.md, test_docs.py the lines on RLE.
RUN_ELSEWHERE = {"README.md", "docs/rle.md"}
# Tools whose commands are only parsed here, as they take long: test_report.py runs the first,
# test_benchmark.py some suites of the second, test_rates.py the third, test_showcase.py the last.
PARSED_ONLY = {"explore", "benchmark", "find_learning_rate", "show_augmentation"}
# Commands that are only parsed here, since other tests run the same ones with other file names:
# test_end_to_end.py trains on a data set of other classes and exports runs. For pseudo-labels,
# only the folds of the records differ, which test_sources.py checks.
TESTED_ELSEWHERE = re.compile(r"=(STEEL_W|STEEL\.json|STEEL_E/1|PSEUDO_W|W0,W1 --export_dir=E)\b")
# What makes commands short. It is appended; the last one of equal flags counts.
TINY = {
    "train": "--image_size=32,48 --width=0.125 --epochs=1 --batch_size=5 --encoder=tiny",
    "evaluate": "--ladder= --pictures_dir=",  # evaluation/test_pipeline.py has both
    "make_tfrecords": "--num_workers=1 --num_folds=2",
    "make_sample_data": "--num_train=4 --num_test=1",
    "export": "--check_images=2",
    "climatology": "--num_resamples=5",
}
# The same for a snippet of Python.
TINY_SETTINGS = {
    "epochs=20, image_size=(192, 288)": 'epochs=1, image_size=(32, 48), encoder="tiny", width=0.1',
    '"resnet34", 1.0, (192, 288), 20': '"tiny", 0.125, (32, 48), 1',
    # test_exporting.py exports files of weights; here its arguments are looked at.
    "export(weights": "__import__('inspect').signature(export).bind(weights",
}
# Flags that name what a command writes.
OUTPUTS = {"output", "output_dir", "workdir", "export_dir"}
BOXES = "date,label,lon1,lon2,lat1,lat2\n2017-03-04,Fish,-60,-50,10,20\n2017-07-01,Sugar,3,9,0,5\n"
IMAGE = "Aqua_CorrectedReflectance20110115_-61--40_10-24.jpeg"
LABELS = f"0,{IMAGE},0,0,900,700,Fish\n1,{IMAGE},300,0,900,900,Fish\n2,{IMAGE},9,9,9,90,Fish\n"


@contextlib.contextmanager
def _program(tool, arguments):
    """The names in a program, with its flags parsed."""
    folder = REPOSITORY / "tools"
    if tool == "benchmark":
        folder, (tool, *arguments) = folder / "benchmarks", arguments
    name = f"flags_of_{tool}"
    try:
        module = runpy.run_path(str(folder / f"{tool}.py"), run_name=name)
        assert flags.FLAGS([tool, *arguments]) == [tool]
        yield module
    finally:
        for flag in list(flags.FLAGS.flags_by_module_dict().get(name, [])):
            delattr(flags.FLAGS, flag.name)


def test_every_block_is_run_or_says_what_it_needs():
    for page in PAGES:
        for block in blocks(page):
            kinds = ("bash", "python", "js", "json", "yaml", "text")
            assert block.kind in kinds, f"{page}: {block}"
            assert block.kind != "yaml" or block.is_marked, f"{page}: {block}"
            assert block.kind != "text" or "python tools/" not in block.text, f"{page}: {block}"
            if block.kind == "bash" and not block.is_marked:
                assert len(block.commands) == len(block.lines), f"{page}: {block}"


def test_all_commands_have_flags_that_exist_and_values_that_they_take(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(REPOSITORY / "recipes", "recipes")
    for page in PAGES:
        for block in blocks(page):
            if block.kind == "json":  # read while --dataset is parsed
                pathlib.Path("steel.json").write_text(block.text)
            for tool, arguments in block.commands:
                if "SUITE" not in arguments:  # a placeholder for any suite
                    with _program(tool, arguments):
                        pass


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("recipes/*.txt")), ids=lambda p: p.name)
def test_a_recipe_opens_with_its_command_time_and_score(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    text = path.read_text()
    assert "\n# Time: " in text and "\n# Score: " in text
    (command,) = re.findall(r"^# python tools/train\.py (.*)", text, re.MULTILINE)
    arguments = command.split()
    assert f"--flagfile=recipes/{path.name}" in arguments
    given = re.findall(r"^--(\w+)(?:=(.*))?$", text, re.MULTILINE)
    with _program("train", arguments) as program:
        recipe = program["cli"].dataclass_from_flags(program["Recipe"])
        assert flags.FLAGS.records_dir.endswith(("R", "records"))
    written = recipe.to_json()
    for name, value in given:
        assert name in written and written[name] != getattr(type(recipe)(), name), name


def _write_weights(folder):
    os.mkdir(folder)
    for name in ("postprocessing.json", "postprocessing_small.json"):
        shutil.copy(REPOSITORY / "models" / name, folder)
    model = {"num_classes": 4, "width": 0.125, "encoder": "tiny", "classification_head": True}
    metadata = {"model": model, "dataset": CLOUDS.to_json(), "image_size": [32, 48]}
    for name in ("clouds_unet", "clouds_unet_small"):
        save_model_weights(unet(**model), f"{folder}/{name}.safetensors", metadata)


def _write_scenes(image, folder):
    os.mkdir(folder)
    shutil.copy(image, f"{folder}/Aqua_20200101_-61--40_10-24.jpg")


def _predict_scenes(sample, folder):
    for name in ("E", "FOLDER"):
        sample(name)
    _run("predict_scenes", ["--saved_model=E/1", "--scenes=FOLDER", f"--output_dir={folder}"])


def _write_zipped(text, path):
    pathlib.Path(path).write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def sample(data_dir, records_dir, trained, make_workdir, exported, tmp_path, monkeypatch):
    """A function that makes what the pages call D, R, W0 and so on in a new working folder."""
    monkeypatch.chdir(tmp_path)
    image = next((data_dir / "test_images").iterdir())
    copies = {
        "D": data_dir,
        "R": records_dir,
        "W0": trained,
        "W1": make_workdir(fold=1),
        "V0": make_workdir(seed=1),
        "E": os.path.dirname(exported),
        "T": data_dir / "test_images",
        "S.csv": data_dir / "sample_submission.csv",
        "train.csv": data_dir / "test.csv",
        "image.jpg": image,
        "recipes": REPOSITORY / "recipes",
        "postprocessing.json": REPOSITORY / "models" / "postprocessing.json",
    }
    makers = {
        "models": _write_weights,
        "docs": os.mkdir,
        "FOLDER": functools.partial(_write_scenes, image),
        "S": lambda name: _predict_scenes(make, name),
        "B.csv.gz": functools.partial(_write_zipped, BOXES),
        "retinanet-world-2017.csv.gz": functools.partial(_write_zipped, BOXES),
        "zooniverse_boxes.csv.gz": functools.partial(_write_zipped, LABELS),
        "steel.csv": lambda name: shutil.copy("STEEL/test.csv", name),
    }

    def make(name):
        if os.path.exists(name):
            return
        if name in copies:
            copy = shutil.copytree if os.path.isdir(copies[name]) else shutil.copy
            copy(copies[name], name)
        elif name in makers:
            makers[name](name)

    return make


def _inputs(arguments):
    """First parts of the paths that a command may read, or write into."""
    for argument in arguments:
        flag, _, value = argument[2:].partition("=")
        if flag not in OUTPUTS or "/" in value:
            yield from (part.split("/")[0] for part in value.split(","))


def _run(tool, arguments):
    pictures = tool != "train"  # test_fit.py has those
    tiny = TINY.get(tool, "").split()
    if tool == "climatology" and "--pictures_dir=P" in arguments:
        tiny += ["--max_pictures=1", "--coastlines=none"]
    with _program(tool, [*arguments, *tiny]) as program:
        with mock.patch.object(figures, "AVAILABLE", figures.AVAILABLE and pictures):
            program["main"]()


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(set(PAGES) - RUN_ELSEWHERE))
def test_a_page_runs_from_top_to_bottom(page, sample):
    earlier = [block for name in PAGES[: PAGES.index(page)] for block in blocks(name)]
    known = [command for block in earlier if not block.is_marked for command in block.commands]
    names = {}  # those of its Python, which is one program
    for block in blocks(page):
        if block.kind == "json":
            pathlib.Path("steel.json").write_text(block.text)
        if block.is_marked:
            continue
        for tool, arguments in block.commands:
            # What a command writes that an earlier page has run is a sample here.
            if TESTED_ELSEWHERE.search(" ".join(arguments)):
                continue
            if tool not in PARSED_ONLY and (tool, arguments) not in known:
                for name in _inputs(arguments):
                    sample(name)
                _run(tool, arguments)
        if module := re.match(r"# (\w+\.py)\n", block.text):
            pathlib.Path(module[1]).write_text(block.text)
        elif block.kind == "python":
            for name in re.findall(r'"([\w.]+)', block.text):
                sample(name)
            code = block.text
            for settings in TINY_SETTINGS.items():
                code = code.replace(*settings)
            exec(code, names)
