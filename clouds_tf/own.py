"""The user's own functions, by names "module:function" with which every process can import them.

A name may have keyword arguments that are Python literals: "module:function(gamma=2)".
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_PATH = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_NAME = re.compile(rf"({_PATH}):({_PATH})(\(.*\))?", re.DOTALL)
# Prefixes that are not modules: addons:NovoGrad, keras_cv:rand_augment.
_TAKEN = ("addons", "keras_cv")
# Packages whose code follows from their versions.
_LIBRARIES = ("clouds_tf", "keras", "tensorflow", "tf_keras")
_EXPECTED = "define it at the top level of a module, or use 'module:function'"


def is_own(name: str) -> bool:
    """Whether a text is the name of a user's function, such as "mine:soft_loss".

    >>> is_own("mine:soft_loss(gamma=2)"), is_own("addons:Yogi"), is_own("bce")
    (True, False, False)
    """
    match = _NAME.fullmatch(name)
    return match is not None and match[1] not in _TAKEN


def names_in(setting: str | Sequence[str]) -> list[str]:
    """Finds the names in a setting such as "0.5*bce+mine:soft_loss", without their arguments.

    >>> names_in(["mine:soft_loss(reduction='a:b')", "bce"])
    ['mine:soft_loss']
    """
    text = setting if isinstance(setting, str) else " ".join(setting)
    unquoted = re.sub(r"'[^']*'" r'|"[^"]*"', "", text)  # arguments may contain colons
    return [name for name in re.findall(rf"{_PATH}:{_PATH}", unquoted) if is_own(name)]


def title(name: str) -> str:
    """Last part of a name: "soft_loss" for "mine:soft_loss(gamma=2)"."""
    return name.split("(")[0].split(":")[1].split(".")[-1]


def find(setting: str, name: str) -> Any:
    """Imports the object of a name, from installed modules or the working folder.

    Args:
        setting: the setting or flag with the name, for errors.
        name: "module:attribute", with optional keyword arguments.

    Returns:
        The object; with arguments, a functools.partial of it.

    Raises:
        ValueError: there is no such module or attribute; the message says what to do.
    """
    match = _NAME.fullmatch(name)
    if not match or not is_own(name):
        raise ValueError(f"{setting}: got {name!r}, expected module:function")
    module, path, arguments = match.groups()
    imported = _import(setting, name, module)
    try:
        found = operator.attrgetter(path)(imported)
    except AttributeError:
        raise ValueError(f"{setting}: {name}: {_lacks(module, path)}") from None
    return functools.partial(found, **_parse(setting, name, arguments)) if arguments else found


def _lacks(module: str, path: str) -> str:
    """Says that a module lacks an attribute."""
    if module == "__main__":
        return (
            f"this program has no {path}, which was defined in the program or notebook of the "
            "training; move it to a module that other programs can import"
        )
    return f"{getattr(sys.modules[module], '__file__', module)} has no {path}"


def _import(setting: str, name: str, module: str) -> Any:
    """Imports a module, also from the working folder, which Python skips for scripts elsewhere."""
    while True:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if module != missing and not module.startswith(f"{missing}."):
                raise ValueError(f"{setting}: {name}: importing {module} failed: {error}") from None
            if os.getcwd() in sys.path:
                top = module.split(".")[0]
                raise ValueError(
                    f"{setting}: {name}: no module {missing!r}; run the command in the folder of "
                    f"{top}.py, or add that folder to the environment variable PYTHONPATH"
                ) from None
            sys.path.append(os.getcwd())
            importlib.invalidate_caches()
        except Exception as error:
            raise ValueError(f"{setting}: {name}: importing {module} failed: {error!r}") from error


def _parse(setting: str, name: str, arguments: str) -> dict[str, Any]:
    """Reads "(gamma=2, smooth=True)"."""
    try:
        call = ast.parse(f"f{arguments}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        return {str(word.arg): ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except (SyntaxError, ValueError):
        raise ValueError(
            f"{setting}: got {name!r}, expected keyword arguments with literals, such as (gamma=2)"
        ) from None


def call(setting: str, name: str, *args: object, **kwargs: object) -> Any:
    """Calls the function of a name; raises ValueError like `find_for`."""
    return find_for(setting, name, *args, **kwargs)(*args, **kwargs)


def find_for(setting: str, name: str, *args: object, **kwargs: object) -> Any:
    """Finds the function of a name, and checks that it takes the arguments.

    Raises:
        ValueError: see `find`; or the function takes other arguments.
    """
    function = find(setting, name)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(f"{setting}: {name} does not take its arguments: {error}") from None
    except ValueError:  # a function in C
        pass
    return function


def name_of(setting: str, value: Callable[..., Any], known: Mapping[str, Any]) -> str:
    """The name by which other processes can import a callable.

    Args:
        setting: the setting that it is for, for errors.
        value: a function, class or other callable at the top level of a module, or a
            functools.partial of one with literals as keyword arguments.
        known: functions of the library, by name.

    Returns:
        Its key in `known`, or "module:function".

    Raises:
        ValueError: it has no such name, like lambdas and nested functions.

    >>> name_of("metrics", functools.partial(os.path.join), {})
    'posixpath:join'
    """
    for name, other in known.items():
        if other is value:
            return name
    if isinstance(value, functools.partial):
        return name_of(setting, value.func, {}) + _written(setting, value)
    home = getattr(value, "__module__", None) or ""
    module = sys.modules.get(home)
    inside = vars(module) if module else {}
    paths = [getattr(value, "__qualname__", ""), *(k for k, v in inside.items() if v is value)]
    for path in paths:
        name = f"{home}:{path}"
        with contextlib.suppress(AttributeError):
            if is_own(name) and operator.attrgetter(path)(module) is value:
                return name
    shown = getattr(value, "__qualname__", None) or repr(value)
    raise ValueError(f"{setting}: other processes cannot import {shown}; {_EXPECTED}")


def _written(setting: str, value: functools.partial) -> str:
    """The arguments of a partial as text that `find` reads."""
    words = [f"{key}={argument!r}" for key, argument in value.keywords.items()]
    try:
        literal = all(ast.literal_eval(repr(x)) == x for x in value.keywords.values())
    except (SyntaxError, ValueError):
        literal = False
    if value.args or not literal:
        raise ValueError(
            f"{setting}: got {value!r}, expected functools.partial with literals by keyword"
        )
    return f"({', '.join(words)})" if words else ""


def fingerprint(setting: str, name: str) -> str:
    """Checksum of the source code of a function; "" if it is unknown, or that of a library."""
    found = find(setting, name)
    if name.split(".")[0].split(":")[0] in _LIBRARIES:
        return ""
    try:
        source = inspect.getsource(inspect.unwrap(getattr(found, "python_function", found)))
    except (OSError, TypeError):
        return ""
    return hashlib.sha256(source.encode()).hexdigest()[:12]
