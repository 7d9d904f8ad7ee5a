"""Lazy imports, with which programs can answer before TensorFlow is imported.

Importing TensorFlow takes seconds, but `--help`, a misspelled flag or a missing file do not need
it. Our modules import TensorFlow at the top like any other package; in the programs of `tools/`,
`postpone` delays that import until a name is used. Modules that define layers use TensorFlow at
import time, and modules that define settings or flags must not. So a package imports its public
names through `face`, and tables of choices are a `Registry`.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import functools
import gc
import importlib
import importlib.util
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])

_LOADING = threading.RLock()


class _Postponed(types.ModuleType):
    """A module that is executed when one of its names is first used.

    Unlike with importlib.util.LazyLoader, a second import statement does not execute it.
    """

    def __getattr__(self, name: str) -> Any:
        module: Any = self
        with _LOADING:  # other threads wait until all names exist
            around = module.__dict__.pop("_around", None)
            if around:
                module.__path__ = module.__spec__.submodule_search_locations
                with around(), uncollected():
                    module.__spec__.loader.exec_module(module)
                    gc.freeze()  # spares later collections thousands of objects that stay
                module.__class__ = types.ModuleType
        return types.ModuleType.__getattribute__(self, name)


def postpone(
    package: str, around: Callable[[], contextlib.AbstractContextManager[Any]] | None = None
) -> None:
    """Delays every later import of a package until one of its names or submodules is used.

    It has no effect on a package that is already imported or not installed.

    Args:
        package: name of a top-level package.
        around: makes a context for the import.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is not None:
        module = importlib.util.module_from_spec(spec)
        module.__dict__.pop("__path__", None)  # importing a submodule asks for it
        module.__dict__["_around"] = around or contextlib.nullcontext
        module.__class__ = _Postponed
        sys.modules[package] = module


def is_postponed(package: str) -> bool:
    """Whether a package is still waiting to be imported."""
    return "_around" in getattr(sys.modules.get(package), "__dict__", {})


def face(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Makes the `__getattr__` of a package, which imports its public names when they are used.

    Args:
        package: name of the package.
        homes: module of the package, or full name of another module -> its public names.
    """
    places = {name: home for home, names in homes.items() for name in names}
    if places.keys() & homes.keys():  # an imported module would replace the name
        raise ValueError(f"{package}: got names of modules, {sorted(places.keys() & homes.keys())}")

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = places[name] if "." in places[name] else f"{package}.{places[name]}"
        found = getattr(importlib.import_module(home), name)
        setattr(sys.modules[package], name, found)  # so that this is called only once
        return found

    return find


def unconverted(function: _Function) -> _Function:
    """Keeps AutoGraph from converting a function and the functions that it calls.

    This is TensorFlow's do_not_convert for modules that must not use TensorFlow at import time.
    """

    @functools.wraps(function)
    def call(*args: object, **kwargs: object) -> Any:
        import tensorflow as tf

        return tf.autograph.experimental.do_not_convert(function)(*args, **kwargs)

    return typing.cast(_Function, call)


def traced(function: _Function) -> _Function:
    """Turns a function into a tf.function without AutoGraph when it is first called."""

    @functools.lru_cache(maxsize=None)
    def make() -> Any:
        import tensorflow as tf

        atexit.register(make.cache_clear)  # it must be deleted before TensorFlow's own modules
        return tf.function(function, autograph=False)

    @functools.wraps(function)
    def call(*args: object) -> Any:
        return make()(*args)

    return typing.cast(_Function, call)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Context, and decorator, without garbage collection.

    Otherwise a quarter of `import tensorflow` and of loading a SavedModel is spent on useless
    garbage collection, and up to a tenth of building and tracing a network.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Registry(collections.UserDict):
    """A dict whose values are imported when they are looked up.

    It is made from a dict of key -> "module:attribute" of the value. If the attribute is a dict,
    the value is its item with the same key.

    >>> Registry({"dumps": "json:dumps"})["dumps"]([1])
    '[1]'
    """

    def __getitem__(self, key: str) -> Any:
        place = super().__getitem__(key)
        if not isinstance(place, str):
            return place
        module, _, attribute = place.partition(":")
        found = getattr(importlib.import_module(module), attribute)
        return found[key] if isinstance(found, dict) else found
