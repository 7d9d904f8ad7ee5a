"""The source keeps to the floors: who may import whom, and what stands in one place only."""

import ast
import collections
import graphlib
import re

from shared_fixtures import REPOSITORY

# A module imports from floors below its own, or from its own room.
FLOORS = (
    {"own", "lazy", "gfile"},
    {"settings", "messages", "progress"},
    {"files", "client"},
    {"dataset", "keras"},
    {"rle", "geo", "figures", "locks", "lane_one"},
    {"manifest"},
    {"data", "models"},
    {"prediction"},
    {"training"},
    {"serving", "exploration"},
    {"evaluation", "scenes", "server"},
    {"climatology"},
    {"tools"},
)
# Modules or attributes that only these places may name.
DOORS = {
    r"import pandas|from pandas": (
        "data/annotations.py",
        "data/csv_tables.py",
        "data/sources.py",
        "exploration/",
        "evaluation/",
        "climatology/",
        "tools/benchmarks/",  # where peers are
    ),
    r"import (rasterio|xarray)|from (rasterio|xarray)": (
        "scenes/",
        "climatology/",
        "tools/benchmarks/",
    ),
    r"absl import .*flags": ("tools/",),
    r"import keras_cv\b|from keras_cv\b": ("lane_one.py",),
    r"import jinja2|from jinja2": ("figures/page.py",),
    r"import matplotlib|from matplotlib": ("figures/",),
    r"import safetensors|from safetensors": ("models/weights.py", "models/encoders/interface.py"),
    r"import tensorflow_addons|from tensorflow_addons": ("lane_one.py",),
    r"\btf\.keras": ("keras.py", "tools/benchmarks/"),
    r"import (starlette|uvicorn|prometheus_client)|from (starlette|uvicorn|prometheus_client)": (
        "server/",
        "tools/benchmarks/",
    ),
    r"tf\.py_function|tf\.numpy_function": (),
}


def _sources():
    package = sorted((REPOSITORY / "clouds_tf").rglob("*.py"))
    tools = sorted((REPOSITORY / "tools").rglob("*.py"))
    paths = {path.relative_to(REPOSITORY / "clouds_tf").as_posix(): path for path in package}
    paths.update({path.relative_to(REPOSITORY).as_posix(): path for path in tools})
    return {name: path.read_text() for name, path in paths.items()}


SOURCES = _sources()


def _room(name):
    return name.split("/")[0].removesuffix(".py")


def _floor(room):
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def _imported_rooms(text):
    """The rooms of clouds_tf that a source imports from."""
    rooms = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "clouds_tf":
            rooms |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clouds_tf."):
            rooms.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            rooms |= {parts[1] for parts in names if parts[0] == "clouds_tf" and len(parts) > 1}
    return rooms


def _breaches(name, text):
    room = _room(name)
    if room == "__init__":
        return _imported_rooms(text)
    return {
        other
        for other in _imported_rooms(text) - {room}
        if room != "tools" and _floor(other) >= _floor(room)
    }


def _misplaced(name, text):
    return [
        pattern
        for pattern, places in DOORS.items()
        if re.search(pattern, text) and not name.startswith(places)
    ]


def _found(check):
    """What a check finds in each source, without those in which it finds nothing."""
    found = {name: check(name, text) for name, text in SOURCES.items()}
    return {name: breaches for name, breaches in found.items() if breaches}


def _relative(_, text):
    return [
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def test_imports_only_from_floors_below():
    assert len(SOURCES) > 50 and not _found(_breaches)


def test_libraries_stay_behind_their_doors():
    assert not _found(_misplaced)


def test_relative_imports_do_not_hide_a_breach():
    assert not _found(_relative)


def _circle(sources):
    """A circle of modules that import one another, from a dict of names and texts; [] if none."""
    imports = {}
    for name, text in sources.items():
        found = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name if name in sources else node.module for name in full}
        imports[name] = found & set(sources) - {name}
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def test_no_modules_of_a_room_import_one_another_in_a_circle():
    rooms = collections.defaultdict(dict)
    for name, text in SOURCES.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        rooms[_room(name)][f"clouds_tf.{module}"] = text
    circles = {room: _circle(sources) for room, sources in rooms.items()}
    assert not {room: circle for room, circle in circles.items() if circle}


def test_a_circle_is_found():
    assert not _circle({"a.b": "from a import c", "a.c": "import os"})
    assert _circle({"a.b": "from a import c", "a.c": "def f():\n    from a.b import x"})


def test_a_breach_is_found():
    assert _breaches("data/x.py", "from clouds_tf.models import unet") == {"models"}
    assert _breaches("rle/x.py", "import clouds_tf.data.examples") == {"data"}
    assert _breaches("serving/x.py", "from clouds_tf import evaluation, rle") == {"evaluation"}
    assert not _breaches("evaluation/x.py", "from clouds_tf.serving import export")
    assert _misplaced("data/x.py", "import pandas as pd")
    assert _misplaced("serving/x.py", "from matplotlib import pyplot")
    assert not _misplaced("figures/x.py", "from matplotlib.figure import Figure")


def test_every_room_has_a_floor():
    rooms = {_room(name) for name in SOURCES} - {"__init__"}
    assert rooms <= set.union(*FLOORS)
