"""Common code of the programs in this folder: flags, progress bars, and one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import logging as stdlib_logging
import os
import signal
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def _fail(message: object) -> typing.NoReturn:
    print(f"{os.path.basename(sys.argv[0])}: error: {message}", file=sys.stderr)
    sys.exit(1)


# The programs import this module first, so that a wrong interpreter gets a line, not a traceback.
_MISSING = [
    package
    for package in ("absl", "tensorflow", "pandas", "tqdm", "clouds_tf")
    if importlib.util.find_spec(package) is None
]
if _MISSING:
    _fail(
        f"{sys.executable} lacks {', '.join(_MISSING)}; run `source .venv/bin/activate` in the "
        "folder of clouds_tf (tools/demo.sh makes .venv), or install with `pip install -e .`"
    )


@contextlib.contextmanager
def _without_native_lines() -> Iterator[None]:
    """Hides the lines that TensorFlow 2.20 and later always write on import, unless it fails."""
    from clouds_tf.messages import native_lines

    lines: list[str] = []
    try:
        with native_lines() as lines:
            yield
    except BaseException:
        print(*lines, sep="\n", file=sys.stderr)
        raise


# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
if os.path.basename(sys.argv[0]) in ("predict.py", "predict_scenes.py", "evaluate.py", "serve.py"):
    # Their weights never change, so oneDNN can convert them to its layout once.
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
_is_quiet = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"

from clouds_tf.lazy import postpone  # noqa: E402

postpone("tensorflow", _without_native_lines if _is_quiet else contextlib.nullcontext)
for _package in ("tf_keras", "pandas", "scipy", "xarray", "h5py", "jinja2", "matplotlib"):
    postpone(_package)

from absl import app, flags, logging  # noqa: E402

if typing.TYPE_CHECKING:
    from clouds_tf.dataset import Dataset

# Flags belong to the program that defines them, so that its --help shows them.
flags.disclaim_key_flags()


class _Parser(flags.ArgumentParser):
    """Parses a flag with a function of its text; absl also passes values, such as defaults."""

    def __init__(self, kind: str, read: Callable[[str], Any]) -> None:
        self._kind, self._read = kind, read

    def parse(self, argument: Any) -> Any:
        return self._read(argument) if isinstance(argument, str) else argument

    def flag_type(self) -> str:
        return self._kind


class _Serializer(flags.ArgumentSerializer):
    def __init__(self, write: Callable[[Any], str]) -> None:
        self._write = write

    def serialize(self, value: Any) -> str:
        return self._write(value)


def _write(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _define(
    name: str,
    default: Any,
    help: str,
    kind: str,
    read: Callable[[str], Any],
    write: Callable[[Any], str] = _write,
) -> Any:
    """Defines a flag whose values `read` parses from text, and `write` converts to text."""
    return flags.DEFINE(_Parser(kind, read), name, default, help, serializer=_Serializer(write))


def _read_size(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(p.strip().isdecimal() and int(p) > 0 for p in parts):
        raise ValueError(f"got {text!r}, expected height,width such as 320,480")
    return int(parts[0]), int(parts[1])


def DEFINE_size(name: str, default: Any, help: str) -> Any:  # noqa: N802 (absl's spelling)
    """Defines a flag `--name=height,width` whose value is a tuple, or None."""
    return _define(name, default, help, "height,width", _read_size)


def _read_numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(","))) if text else ()
    except ValueError:
        raise ValueError(f"got {text!r}, expected comma-separated numbers") from None


def numbers(name: str, text: str | None, kind: Callable[[str], Any] = int) -> Any:
    """Parses comma-separated numbers to a tuple, empty for None; a ValueError names the flag."""
    try:
        return tuple(map(kind, [] if text is None else text.split(",")))
    except ValueError:
        raise ValueError(f"--{name}: got {text}, expected comma-separated numbers") from None


def member_weights(patterns: Sequence[str]) -> tuple[float, ...]:
    """Reads --member_weights: one for each model, or one for all models of a pattern.

    Args:
        patterns: values of --workdirs or --weights.
    """
    from clouds_tf import files

    weights: tuple[float, ...] = numbers("member_weights", flags.FLAGS.member_weights, float)
    if len(weights) != len(patterns):
        return weights
    return tuple(w for w, pattern in zip(weights, patterns) for _ in files.expand([pattern]))


_BESIDE_TOOLS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_DATASETS = os.path.join(_BESIDE_TOOLS, "recipes", "datasets")


def dataset_names() -> list[str]:
    """Names for --dataset: those of the JSON files in recipes/datasets."""
    return sorted(name[: -len(".json")] for name in os.listdir(_DATASETS))


def read_dataset(text: str) -> Dataset:
    """Reads a Dataset by its name, from a JSON file, or from JSON text, as in flag files."""
    from clouds_tf import files
    from clouds_tf.dataset import Dataset

    path = os.path.join(_DATASETS, f"{text}.json") if text in dataset_names() else text
    try:
        content = path if path.startswith("{") else files.read_text(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{error}; expected a JSON file, or one of {', '.join(dataset_names())}"
        ) from None
    try:
        return Dataset.from_json(files.parse_json(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def DEFINE_dataset() -> Any:  # noqa: N802 (absl's spelling)
    """Defines `--dataset=NAME` or `--dataset=FILE.json`, whose value is a Dataset."""
    from clouds_tf.dataset import CLOUDS

    help = f"Data set: {', '.join(dataset_names())}, or a JSON file like those in recipes/datasets."

    def write(dataset: Dataset) -> str:
        return json.dumps(dataset.to_json())

    return _define("dataset", CLOUDS, help, "data set", read_dataset, write)


def DEFINE_dataset_of_a_folder() -> None:  # noqa: N802 (absl's spelling)
    """Defines `--dataset` and `--mask_size`; `dataset_of_a_folder` reads both."""
    DEFINE_dataset()
    help = "Size of the masks that the RLE encodes; default: the data set's mask_size."
    DEFINE_size("mask_size", None, help)


def dataset_of_a_folder() -> Dataset:
    """The Dataset of `--dataset` or `--coco`, with the size of `--mask_size`."""
    from clouds_tf.data import coco

    dataset, size = flags.FLAGS.dataset, flags.FLAGS.mask_size
    if flags.FLAGS.coco and flags.FLAGS["dataset"].using_default_value:
        dataset = coco.describe(flags.FLAGS.coco)
    return dataclasses.replace(dataset, mask_size=size) if size else dataset


def DEFINE_dataclass(cls: type) -> None:  # noqa: N802 (absl's spelling)
    """Defines a flag for every setting of a dataclass, from its type, default and metadata.

    Args:
        cls: a subclass of `clouds_tf.settings.CheckedSettings`.
    """
    from clouds_tf import settings

    types = typing.get_type_hints(cls)
    for field in settings.fields(cls):
        kind: Any = types[field.name]
        if typing.get_origin(kind) is typing.Union:  # Optional
            kind = typing.get_args(kind)[0]
        name, meta = field.name, field.metadata
        default: Any = field.default
        bounds: Any = {"lower_bound": meta.get("min"), "upper_bound": meta.get("max")}
        if "parse" in meta:
            _define(name, default, meta["help"], "text", meta["parse"])
        elif kind is bool:
            flags.DEFINE_boolean(name, default, meta["help"])
        elif kind is int:
            flags.DEFINE_integer(name, default, meta["help"], **bounds)
        elif kind is float:
            flags.DEFINE_float(name, default, meta["help"], **bounds)
        elif kind is str and "choices" in meta and "own" not in meta:
            flags.DEFINE_enum(name, default, list(meta["choices"]), meta["help"])
        elif kind is str:
            names = ", ".join([*meta["choices"], "or module:function"]) if "choices" in meta else ""
            help = f"{meta['help']} One of {names}." if names else meta["help"]
            flags.DEFINE_string(name, default, help)
        elif typing.get_args(kind)[0] is float:
            _define(name, default, meta["help"], "numbers", _read_numbers)
        elif typing.get_args(kind)[0] in (str, Any):
            flags.DEFINE_list(name, list(default), meta["help"])
        else:
            DEFINE_size(name, default, meta["help"])


def dataclass_from_flags(cls: type, **others: Any) -> Any:
    """Makes an instance of a dataclass from its flags, and other values without flags."""
    from clouds_tf import settings

    values = {field.name: flags.FLAGS[field.name].value for field in settings.fields(cls)}
    return cls(**values, **others)


def refuse_unused(*rules: tuple[str, str, Any]) -> None:
    """Refuses flags without effect, unless they have their defaults, as in a flag file.

    Args:
        rules: (space-separated names of flags, description of their condition, whether it holds).

    Raises:
        ValueError: a flag has no effect; the message names it.
    """
    for names, need, is_so in rules:
        for name in names.split():
            if flags.FLAGS[name].value != flags.FLAGS[name].default and not is_so:
                raise ValueError(f"--{name}: has no effect here, it needs {need}")


def check_inputs(names: str) -> None:
    """Checks that the files and folders of flags exist, before any slow import.

    Patterns and remote paths are checked where they are used.

    Args:
        names: space-separated names of flags with one or several paths.

    Raises:
        FileNotFoundError: a path does not exist; the message names it and its flag.
    """
    from clouds_tf import gfile

    for name in names.split():
        value = flags.FLAGS[name].value or []
        for path in [value] if isinstance(value, str) else value:
            is_checked_later = gfile.is_remote(path) or gfile.is_pattern(path)
            if not is_checked_later and not os.path.exists(path):
                raise FileNotFoundError(f"--{name}: {path}: no such file or folder")


def progress_bar(unit: str) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
    """Context with a function (done, total): a bar in a terminal, otherwise a line per minute.

    Args:
        unit: name of the counted things, such as "image".
    """
    from clouds_tf.progress import Bar, Lines

    return contextlib.closing(Bar(unit) if sys.stderr.isatty() else Lines(unit))


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, FileNotFoundError) as error:
        _fail(" ".join(str(error).split("\n")))


def run(main: Callable[[], None]) -> None:
    """Runs `main()`; bad input ends the program with one line and exit status 1.

    --verbosity=1 also shows the traceback.
    """

    def guarded(argv: list[str]) -> None:
        logger = stdlib_logging.getLogger("tensorflow")
        logger.propagate = not logger.handlers  # or absl would print a second line
        debugging = logging.get_verbosity() >= logging.DEBUG
        if not debugging:
            logger.setLevel("WARNING")
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise ValueError(f"unexpected argument {argv[1]!r}, expected only --flag=value")
            main()
        except (ValueError, OSError) as error:
            if debugging:
                raise
            _fail(error)
        except Exception as error:
            import tensorflow as tf

            from clouds_tf.messages import about_the_data

            if debugging or not isinstance(error, tf.errors.OpError):
                raise
            _fail(about_the_data(error.message) or type(error).__name__)
        except KeyboardInterrupt:
            print(f"{os.path.basename(sys.argv[0])}: interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    app.run(guarded, flags_parser=_parse_flags)
