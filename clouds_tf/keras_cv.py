"""The one door to keras-cv, which lane one has; nothing imports it unless an option asks for it."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from clouds_tf.files import require_lane_one


def import_keras_cv(purpose: str, instead: str) -> Any:
    """Imports keras_cv; arguments and errors are those of `require_lane_one`."""
    require_lane_one("keras_cv", "keras-cv==0.9.*", purpose, instead)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints the name of its backend
        import keras_cv

    return keras_cv
