"""Access to the packages of lane one, tensorflow-addons and keras-cv.

They work with TensorFlow 2.15, and are imported only if an option needs them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from typing import Any

from clouds_tf.keras import is_lane_one


def import_addons(purpose: str, instead: str) -> Any:
    """Imports tensorflow_addons.

    Args:
        purpose: the option that needs it, for the message.
        instead: the choices that work without it, for the message.

    Raises:
        ValueError: the package is missing, or this TensorFlow is too new for it.
    """
    _require("tensorflow_addons", "tensorflow-addons==0.23.*", purpose, instead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the end of its development, on each import
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

    if not is_lane_one():
        raise ValueError(
            f"{purpose} needs TensorFlow 2.15 (Python 3.9 to 3.11), got {tf.__version__}; "
            f"{instead} work with both"
        )
    if importlib.util.find_spec(module) is None:
        name = package.partition("==")[0]
        raise ValueError(f"{purpose} needs the package {name}; run pip install '{package}'")
