"""The one door to the packages of lane one, tensorflow-addons and keras-cv.

They work with TensorFlow 2.15, and nothing imports them unless an option asks for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from typing import Any


def import_addons(purpose: str, instead: str) -> Any:
    """Imports tensorflow_addons.

    Args:
        purpose: what needs it, for the message.
        instead: the choices that work without it, for the message.

    Raises:
        ValueError: the package is missing, or this TensorFlow is newer than it works with.
    """
    _require("tensorflow_addons", "tensorflow-addons==0.23.*", purpose, instead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on each import that it is no longer developed
        import tensorflow_addons

    return tensorflow_addons


def import_keras_cv(purpose: str, instead: str) -> Any:
    """Imports keras_cv; arguments and errors are those of `import_addons`."""
    _require("keras_cv", "keras-cv==0.9.*", purpose, instead)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the name of its backend
        import keras_cv

    return keras_cv


def _require(module: str, package: str, purpose: str, instead: str) -> None:
    import tensorflow as tf

    if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 16):
        raise ValueError(
            f"{purpose} needs TensorFlow 2.15 (Python 3.9 to 3.11), got {tf.__version__}; "
            f"{instead} work with both"
        )
    if importlib.util.find_spec(module) is None:
        name = package.partition("==")[0]
        raise ValueError(f"{purpose} needs the package {name}; run pip install '{package}'")
