"""The one door to keras-cv, which lane one has; nothing imports it unless an option asks for it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any

import tensorflow as tf


def import_keras_cv(purpose: str, instead: str) -> Any:
    """Imports keras_cv.

    Args:
        purpose: what needs it, such as "encoder: those of keras-cv", for the message.
        instead: the choices that work without it, for the message.

    Returns:
        The module.

    Raises:
        ValueError: keras-cv is missing, or TensorFlow has another Keras than it works with.
    """
    if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 16):
        raise ValueError(
            f"{purpose} need TensorFlow 2.15 (Python 3.9 to 3.11), got {tf.__version__}; {instead} "
            "work with both"
        )
    if importlib.util.find_spec("keras_cv") is None:
        raise ValueError(f"{purpose} need the package keras-cv; run pip install 'keras-cv==0.9.*'")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the name of its backend
        import keras_cv

    return keras_cv
