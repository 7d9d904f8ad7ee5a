"""Programs answer before TensorFlow is imported, and nothing of what waits is lost."""

import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
import threading

import pytest
from programs import ENVIRONMENT, TOOLS
from shared_fixtures import REPOSITORY

from clouds_tf import lazy
from clouds_tf.data.augmentations import AUGMENTATIONS
from clouds_tf.models.encoders import ENCODERS
from clouds_tf.models.encoders.keras_cv_backbones import BACKBONES
from clouds_tf.training import optimizers
from clouds_tf.training.choices import KERAS_OPTIMIZERS, SCHEDULES

# Modules that take more than a tenth of a second.
HEAVY = (
    *("tensorflow.python", "keras.src", "tf_keras.src", "pandas.core", "scipy.ndimage", "sklearn"),
    *("matplotlib.figure", "xarray.core", "h5py._hl", "jinja2.environment", "openvino"),
)
# Command lines of every program that ask for what is not there, and what the answer names.
MISSING = {
    "climatology": ("--boxes=/x/b.csv --output=c.nc", "--boxes: /x/b.csv"),
    "draw_network": ("--output=/dev/null/n.png", "/dev/null/n.png"),
    "evaluate": ("--records_dir=/x --workdirs=/y --output=p.json", "--records_dir: /x"),
    "explore": ("--data_dir=/x --output_dir=O", "--data_dir: /x"),
    "export": ("--weights=/x.safetensors --export_dir=E", "--weights: /x.safetensors"),
    "find_learning_rate": ("--records_dir=/x", "--records_dir: /x"),
    "make_land": ("--topojson=/x --output=l.npz", "--topojson: /x"),
    "make_soft_targets": ("--boxes=/x --records_dir=R --output_dir=S", "--boxes: /x"),
    "make_tfrecords": ("--data_dir=/x --output_dir=R", "--data_dir: /x"),
    "pack_weights": ("--workdir=/x --output=w.safetensors", "--workdir: /x"),
    "predict": ("--saved_model=/x --images_dir=/y --output=s.csv", "--saved_model: /x"),
    "predict_scenes": ("--saved_model=/x --scenes=/y --output_dir=S", "--saved_model: /x"),
    "request": ("--url=http://h --images=/x.jpg", "--images: /x.jpg"),
    "score": ("--submission=/x.csv --annotations=/y.csv", "--submission: /x.csv"),
    "serve": ("--saved_model=/x", "--saved_model: /x"),
    "show_augmentation": ("--records_dir=/x", "--records_dir: /x"),
    "train": ("--records_dir=/x --workdir=W", "--records_dir: /x"),
    "validate": ("--days_dir=/x --reference=/y --output=v.csv", "--days_dir: /x"),
}
# Runs every program in one process; prints, for each, what it said and the modules it imported.
PROGRAM = """
import contextlib, io, json, runpy, sys
def run(line):
    tool, *arguments = line.split()
    sys.argv[:] = [f"{tools}/{tool}.py", *arguments]
    texts, before = io.StringIO(), set(flags.FLAGS)
    with contextlib.redirect_stdout(texts), contextlib.redirect_stderr(texts):
        with contextlib.suppress(SystemExit):
            runpy.run_path(sys.argv[0], run_name="__main__")
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    print(json.dumps([line, texts.getvalue(), [name for name in heavy if name in sys.modules]]))
tools, heavy, lines = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
sys.path.insert(0, tools)
import cli
from absl import app, flags
app.define_help_flags()
for line in lines:
    run(line)
"""


@pytest.mark.lanes
def test_programs_answer_without_what_takes_long_to_import():
    tools = {name[:-3] for name in os.listdir(TOOLS) if name.endswith(".py")}
    tools -= {"__init__", "cli", "command"}
    assert {*MISSING} == tools - {"benchmark", "data_service", "make_sample_data"}
    helps = [f"{tool} --help" for tool in sorted(tools)]
    wrong = [f"{tool} --nope" for tool in sorted(tools - {"benchmark"})]
    missing = {f"{tool} {line}": named for tool, (line, named) in MISSING.items()}
    lines = json.dumps([*helps, *wrong, *missing])
    found = subprocess.check_output(
        [sys.executable, "-c", PROGRAM, TOOLS, json.dumps(HEAVY), lines],
        env=ENVIRONMENT,
        cwd=REPOSITORY.parent,
        text=True,
    )
    answers = [json.loads(answer) for answer in found.splitlines()]
    assert not [line for line, _, heavy in answers if heavy]
    texts = {line: text for line, text, _ in answers}
    assert not [line for line in helps if "--help" not in texts[line]]
    assert not [line for line in wrong if "Unknown command line flag 'nope'" not in texts[line]]
    assert {line: text for line, text in texts.items() if missing.get(line, "") not in text} == {}


def test_every_name_leads_to_something():
    for registry in (ENCODERS, AUGMENTATIONS, SCHEDULES):
        assert all(map(callable, (getattr(x, "apply", x) for x in registry.values())))
    assert {*BACKBONES} <= {*ENCODERS}
    assert {*KERAS_OPTIMIZERS} == {*optimizers._KERAS}
    rooms = [path.parent.name for path in (REPOSITORY / "clouds_tf").glob("*/__init__.py")]
    faces = {room: importlib.import_module(f"clouds_tf.{room}") for room in rooms}
    public = {room: getattr(face, "__all__", []) for room, face in faces.items()}
    assert sum(map(len, public.values())) > 60
    assert all(getattr(faces[room], name) for room, names in public.items() for name in names)
    with pytest.raises(AttributeError, match="clouds_tf.serving.*'nope'"):
        faces["serving"].nope


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package `slow_to_import` that counts its imports in sys.imports_of_it."""
    (tmp_path / "slow_to_import").mkdir()
    (tmp_path / "slow_to_import" / "__init__.py").write_text(
        "import sys, time\ntime.sleep(0.1)\nsys.imports_of_it += 1\nfrom . import part\nvalue = 7"
    )
    (tmp_path / "slow_to_import" / "part.py").write_text("import slow_to_import\ninner = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "imports_of_it", 0, raising=False)
    lazy.postpone("slow_to_import")
    yield "slow_to_import"
    for name in ("slow_to_import", "slow_to_import.part"):
        sys.modules.pop(name, None)


def test_a_package_is_imported_once_when_it_is_used(package):
    module = importlib.import_module(package)
    assert importlib.import_module(package) is module and lazy.is_postponed(package)
    assert importlib.util.find_spec(package) is not None and sys.imports_of_it == 0
    values = []
    threads = [threading.Thread(target=lambda: values.append(module.value)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert values == [7] * 8 and sys.imports_of_it == 1 and not lazy.is_postponed(package)
    with pytest.raises(AttributeError, match="nope"):
        module.nope


def test_a_submodule_brings_its_package(package):
    part = importlib.import_module(f"{package}.part")
    assert part.inner == 8 and sys.modules[package].value == 7 and sys.imports_of_it == 1


def test_a_package_that_is_missing_stays_missing():
    lazy.postpone("no_such_package")
    assert "no_such_package" not in sys.modules
    lazy.postpone("json")
    assert sys.modules["json"] is json


def test_garbage_is_collected_again_after_what_went_without():
    @lazy.uncollected()
    def work(fails):
        assert not gc.isenabled()
        with lazy.uncollected():
            pass
        assert not gc.isenabled()  # the inner one leaves that to the outer one
        if fails:
            raise ValueError("mine")

    assert gc.isenabled()
    for fails in (False, True):
        with contextlib.suppress(ValueError):
            work(fails)
        assert gc.isenabled()
