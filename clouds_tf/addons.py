"""The one door to tensorflow-addons, which lane one has; nothing imports it before it is needed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

import tensorflow as tf


def import_addons(purpose: str, instead: str) -> Any:
    """Imports tensorflow_addons.

    Args:
        purpose: what needs it, such as "optimizer: radam", for the message.
        instead: the choices that work without it, for the message.

    Returns:
        The module.

    Raises:
        ValueError: the package is missing, or this TensorFlow is newer than it works with.
    """
    if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 16):
        raise ValueError(
            f"{purpose} needs TensorFlow 2.15 (Python 3.9 to 3.11), got {tf.__version__}; "
            f"{instead} work with both"
        )
    if importlib.util.find_spec("tensorflow_addons") is None:
        raise ValueError(
            f"{purpose} needs the package tensorflow-addons; run "
            "pip install 'tensorflow-addons==0.23.*'"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on each import that it is no longer developed
        import tensorflow_addons

    return tensorflow_addons
