"""Settings, each defined once: a field of a frozen dataclass with its default, bounds and help.

The flags of a program are made from the same fields, by `cli.DEFINE_dataclass`.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

from clouds_tf import own

if typing.TYPE_CHECKING:
    Name = Any  # a name, or the callable that `CheckedSettings` turns into its name
else:
    Name = str

_SIZE = "(height, width) in pixels"


def setting(default: Any, help: str, **bounds: Any) -> Any:
    """A field of `CheckedSettings`.

    Args:
        default: default value.
        help: help text of the flag.
        **bounds: "min" and "max", if there are limits; "choices", all allowed values, of which a
            tuple must have at least one; "own", a dict of the library's callables by name, if the
            user's callables, or their names "module:function", are allowed as well; "parse", a
            function from the text of the flag to a value, whose type is not checked.
    """
    return dataclasses.field(default=default, metadata={"help": help, **bounds})


def fields(cls: type) -> list[Any]:
    """Fields of a dataclass that were made by `setting`, and so become flags."""
    return [field for field in dataclasses.fields(cls) if "help" in field.metadata]


@dataclasses.dataclass(frozen=True, repr=False)
class CheckedSettings:
    """Base class of settings with fields made by `setting`; its repr is the call that makes it.

    Fields are bool, int, float, str, tuple[int, int] (a size), tuples of any number of str, float
    or Any, or Optional of these; or Name or tuple[Name, ...], which take callables as well.

    Raises:
        ValueError: a value has the wrong type, is out of bounds or is not among the choices.

    >>> @dataclasses.dataclass(frozen=True, repr=False)
    ... class Example(CheckedSettings):
    ...     epochs: int = setting(25, "Number of epochs.", min=1)
    ...     seed: int = setting(0, "Seed.")
    >>> Example(epochs=3)
    Example(epochs=3)
    >>> Example(epochs=0)
    Traceback (most recent call last):
    ValueError: epochs: got 0, expected at least 1
    """

    def __post_init__(self) -> None:
        _validate(self)

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def _validate(settings: Any) -> None:
    """Checks every field against its type and metadata; lists become tuples, 1 becomes 1.0."""
    types = typing.get_type_hints(type(settings))
    for field in fields(type(settings)):
        kind, value = types[field.name], getattr(settings, field.name)
        if "parse" in field.metadata:
            continue
        if typing.get_origin(kind) is typing.Union:  # Optional
            if value is None:
                continue
            kind = typing.get_args(kind)[0]
        if "own" in field.metadata:
            value = _named(field.name, value, field.metadata["own"])
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)):
            value = tuple(value)
        if kind == tuple[float, ...] and isinstance(value, tuple):
            value = tuple(float(part) if type(part) is int else part for part in value)
        object.__setattr__(settings, field.name, value)
        fault = _fault(kind, value, field.metadata)
        if fault:
            got = repr(value)
            if isinstance(value, tuple) and "choices" in field.metadata:
                got = ", ".join(map(str, value)) or "none"  # as in the flag
            raise ValueError(f"{field.name}: got {got}, expected {fault}")


def _named(field: str, value: Any, known: Mapping[str, Any]) -> Any:
    """Replaces callables by their names."""
    if isinstance(value, (list, tuple)):
        return tuple(_named(field, part, known) for part in value)
    return own.name_of(field, value, known) if callable(value) else value


def _fault(kind: Any, value: Any, metadata: Mapping[str, Any]) -> str | None:
    """Describes what was expected if the value is invalid; otherwise None."""
    if typing.get_origin(kind) is tuple and typing.get_args(kind)[0] is int:
        return None if _is_size(value) else _SIZE
    if typing.get_origin(kind) is tuple:
        part_kind = typing.get_args(kind)[0]
        is_right = isinstance(value, tuple) and all(
            part_kind is Any or type(part) is part_kind for part in value
        )
        if not is_right:
            return f"a list of {'numbers' if part_kind is float else 'texts'}"
        choices = metadata.get("choices")
        if choices is not None and (not value or set(value) - set(choices)):
            return f"some of {', '.join(choices)}"
        return None
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        words = {int: "a whole number", float: "a finite number", str: "text"}
        return words.get(kind, "True or False")
    if "choices" in metadata and value not in metadata["choices"]:
        if "own" not in metadata:
            return f"one of {', '.join(metadata['choices'])}"
        if not own.is_own(value):
            return f"one of {', '.join(metadata['choices'])}, or module:function"
    lower, upper = metadata.get("min"), metadata.get("max")
    if (lower is not None and value < lower) or (upper is not None and value > upper):
        return f"at least {lower}" if upper is None else f"{lower} to {upper}"
    return None


def check_size(name: str, value: Any) -> None:
    """Raises ValueError unless a value is (height, width): two whole numbers above 0."""
    if not _is_size(value):
        raise ValueError(f"{name}: got {value}, expected {_SIZE}")


def _is_size(value: Any) -> bool:
    is_pair = isinstance(value, (tuple, list)) and len(value) == 2
    return is_pair and all(type(side) is int and side > 0 for side in value)


def parse_shard(text: str) -> tuple[int, int]:
    """Reads "i/n", the i-th of n shards from 0 on, as (i, n); ValueError for anything else."""
    parts = text.split("/")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts) or int(parts[0]) >= int(parts[1]):
        raise ValueError(f"shard: got {text!r}, expected i/n with i from 0 to n - 1, such as 0/3")
    return int(parts[0]), int(parts[1])
