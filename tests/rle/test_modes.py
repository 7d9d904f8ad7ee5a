"""All functions give the same eagerly, in a graph of unknown sizes, in tf.data and when served."""

import functools
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from programs import run_program

from clouds_tf import rle

pytestmark = pytest.mark.slow

SIZE, TARGET = np.array([7, 5]), np.array([4, 9])
STRINGS = np.array([["1 3 9 20", " "], ["35 1", "2 1 4 2 8 7 22 5"]])
MASKS = np.random.default_rng(0).random((2, 2, 7, 5)) < 0.5
COUNTS = np.array([[[2, 30, 3], [0, 35, 0]]])
RUNS = np.array([[0, 0, 3], [0, 8, 20], [2, 34, 1], [3, 1, 1], [3, 3, 2], [3, 7, 7]])
COCO = rle.to_coco_string(STRINGS, SIZE).numpy().astype("S")

CALLS = {
    "area": (rle.area, [STRINGS]),
    "component_areas": (rle.component_areas, [STRINGS, SIZE]),
    "components": (rle.components, [MASKS]),
    "coverage": (rle.coverage, [STRINGS, SIZE, TARGET]),
    "decode": (rle.decode, [STRINGS, SIZE, TARGET]),
    "dice": (rle.dice, [STRINGS, STRINGS[::-1]]),
    "draw": (rle.draw, [RUNS, np.array(4), SIZE, TARGET]),
    "encode": (rle.encode, [MASKS]),
    "faults": (rle.faults, [np.char.add(STRINGS, " 1"), SIZE]),
    "fill_boxes": (rle.fill_boxes, [MASKS]),
    "fill_holes": (rle.fill_holes, [MASKS]),
    "from_coco_counts": (rle.from_coco_counts, [COUNTS, SIZE]),
    "from_coco_string": (rle.from_coco_string, [COCO, SIZE]),
    "intersection": (rle.intersection, [STRINGS, STRINGS[::-1]]),
    "parse": (rle.parse, [STRINGS, SIZE]),
    "remove_small": (rle.remove_small, [MASKS, np.array(3)]),
    "resize": (rle.resize, [STRINGS, SIZE, TARGET]),
    "to_coco_counts": (rle.to_coco_counts, [STRINGS, SIZE]),
    "to_coco_string": (rle.to_coco_string, [STRINGS, SIZE]),
}
ALL_CALLS = pytest.mark.parametrize("name", CALLS)


def as_list(x):
    return x.to_list() if isinstance(x, tf.RaggedTensor) else x.numpy().tolist()


@functools.lru_cache(maxsize=None)
def in_graph(name):
    """A function traced for tensors of which only the rank is known."""
    function, args = CALLS[name]
    args = [tf.constant(x) for x in args]
    signature = [tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in args]
    return tf.function(function, input_signature=signature)


@functools.lru_cache(maxsize=None)
def result(name):
    """What a function gives eagerly."""
    function, args = CALLS[name]
    return as_list(function(*args))


def test_every_function_is_here():
    assert set(CALLS) == set(rle.__all__)


@ALL_CALLS
def test_in_a_graph_of_unknown_sizes(name):
    args = [tf.constant(x) for x in CALLS[name][1]]
    assert as_list(in_graph(name)(*args)) == result(name)
    graph = in_graph(name).get_concrete_function().graph.as_graph_def()
    names = {node.op for node in graph.node}
    names |= {node.op for part in graph.library.function for node in part.node_def}
    assert not {name for name in names if "PyFunc" in name or ">" in name}  # no Python is called


@pytest.mark.parametrize("known", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_in_a_dataset(known):
    """Also where all sizes are known when the graph is traced."""
    arguments = {name: tuple(args) for name, (_, args) in CALLS.items()}
    dataset = tf.data.Dataset.from_tensors(arguments).repeat(3)
    call = {name: CALLS[name][0] if known else in_graph(name) for name in CALLS}
    dataset = dataset.map(lambda given: {name: call[name](*given[name]) for name in CALLS}, 2)
    shown = list(dataset)
    assert len(shown) == 3
    for name in CALLS:
        assert [as_list(found[name]) for found in shown] == [result(name)] * 3, name


def test_served_by_plain_tensorflow(tmp_path):
    """A SavedModel of all functions, called by a process that has never seen this package."""
    module = tf.Module()
    for name in CALLS:
        setattr(module, name, in_graph(name))
    tf.saved_model.save(module, str(tmp_path / "model"))
    program = """
import json, sys
import tensorflow as tf
module = tf.saved_model.load("model")
results = {}
for name, args in json.load(open("args.json")).items():
    function = getattr(module, name)
    specs = function.concrete_functions[0].structured_input_signature[0]
    got = function(*[tf.constant(x, spec.dtype) for x, spec in zip(args, specs)])
    got = got.to_list() if isinstance(got, tf.RaggedTensor) else got.numpy().tolist()
    results[name] = got
assert "clouds_tf" not in sys.modules
json.dump(results, open("results.json", "w"), default=bytes.decode)
"""
    plain = {
        name: [x.astype("U").tolist() if x.dtype.kind == "S" else x.tolist() for x in args]
        for name, (_, args) in CALLS.items()
    }
    (tmp_path / "args.json").write_text(json.dumps(plain))
    found = run_program("-c", program, cwd=tmp_path, env=os.environ)
    assert found.returncode == 0, found.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    for name in CALLS:
        expected = json.loads(json.dumps(result(name), default=bytes.decode))
        assert results[name] == expected, name


@pytest.mark.parametrize("size", [(4, 9), [4, 9], np.array([4, 9], np.int32), tf.constant([4, 9])])
def test_sizes_of_any_kind(size):
    expected = rle.decode(STRINGS, (7, 5), (4, 9)).numpy()
    np.testing.assert_array_equal(rle.decode(STRINGS, (7, 5), size), expected)
    scalars = (tf.constant(4, tf.int64), tf.constant(9, tf.int64))
    np.testing.assert_array_equal(rle.decode(STRINGS, (7, 5), scalars), expected)


def test_an_error_in_a_dataset_names_the_string():
    dataset = tf.data.Dataset.from_tensors(["1 1", "1 2 3"])
    dataset = dataset.map(lambda strings: rle.decode(strings, (3, 3), (3, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"rle\[1\]: odd count of numbers"):
        list(dataset)
