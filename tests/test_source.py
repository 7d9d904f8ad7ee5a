"""The source stays readable: short files and functions, types, docstrings of public names."""

import ast
import pathlib

import pytest
from shared_fixtures import REPOSITORY

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_UNTYPED = 120  # parameters of the type Any, in all files together
# Methods that Keras and its like call, or that training.callbacks.Callback documents.
OVERRIDES = {"build", "call", "from_config", "get_config", "reset_state", "result", "update_state"}
OVERRIDES |= {"on_start", "on_step", "on_epoch_end", "on_picture", "on_end"}

_read = pathlib.Path.read_text
PACKAGE = REPOSITORY / "clouds_tf"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))
}


def _definitions(node, prefix="", is_public=True):
    """(qualified name, node, whether it is public) of all functions and classes below a node."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            yield from _definitions(child, prefix, is_public)
            continue
        public = is_public and not child.name.startswith("_")
        yield prefix + child.name, child, public
        # What is defined inside a function is nobody's business outside.
        inside = public and isinstance(child, ast.ClassDef)
        yield from _definitions(child, f"{prefix}{child.name}.", inside)


def _functions(text):
    return [
        (name, node)
        for name, node, _ in _definitions(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    ]


def _num_lines(node):
    """Lines of a function without its docstring, which is as long as its arguments need."""
    first = node.body[0]
    documented = ast.get_docstring(node) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


def _too_long(text):
    return {name for name, node in _functions(text) if _num_lines(node) > MAX_FUNCTION_LINES}


def _untyped(text):
    def is_typed(node):
        args = node.args
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        named = [arg for arg in named if arg and arg.arg not in ("self", "cls")]
        returns = node.returns is not None or node.name == "__init__"
        return returns and all(arg.annotation for arg in named)

    return {name for name, node in _functions(text) if not is_typed(node)}


def _of_any_type(text):
    """Parameters whose type is Any and nothing more."""
    return {
        f"{name}.{arg.arg}"
        for name, node in _functions(text)
        for arg in ast.walk(node.args)
        if isinstance(arg, ast.arg) and getattr(arg.annotation, "id", "") == "Any"
    }


def _undocumented(text):
    tree = ast.parse(text)
    names = {
        name
        for name, node, is_public in _definitions(tree)
        if is_public and node.name not in OVERRIDES and not ast.get_docstring(node)
    }
    return names if ast.get_docstring(tree) else names | {"module"}


def _found(check):
    """What a check finds in each source, without those in which it finds nothing."""
    found = {name: check(text) for name, text in SOURCES.items()}
    return {name: breaches for name, breaches in found.items() if breaches}


def test_files_are_short():
    lengths = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert not {name: n for name, n in lengths.items() if n > MAX_FILE_LINES}


@pytest.mark.parametrize("check", [_too_long, _untyped, _undocumented])
def test_functions_are_short_annotated_and_documented(check):
    assert len(SOURCES) > 50 and not _found(check)


def test_few_parameters_are_of_any_type():
    found = _found(_of_any_type)
    assert sum(map(len, found.values())) <= MAX_UNTYPED, found


def test_what_is_missing_is_found():
    text = '"""Module."""\ndef f(x: int, *args): pass\nclass A:\n def g(self) -> int:\n  """D."""\n'
    assert _untyped(text) == {"f"} and _undocumented(text) == {"f", "A"}
    assert _of_any_type("def f(x: Any, y: list[Any], *z: Any): pass") == {"f.x", "f.z"}
    assert _undocumented("class _A:\n def g(self): pass") == {"module"}
    body = "    x = 1\n" * (MAX_FUNCTION_LINES - 1)
    assert not _too_long(f"def f():\n{body}")
    assert _too_long(f"class A:\n  def f(self):\n{body}    x = 1\n") == {"A.f"}


def test_every_room_has_tests_for_lane_two():
    rooms = [path for path in (REPOSITORY / "tests").iterdir() if [*path.rglob("test_*.py")]]
    marked = {room for room in rooms if "mark.lanes" in "".join(map(_read, room.rglob("*.py")))}
    assert len(rooms) > 9 and marked == set(rooms)


def test_files_of_tests_have_names_of_their_own():
    """Pytest imports them by name, from folders that are no packages."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("*.py")]
    assert len(names) == len(set(names))
