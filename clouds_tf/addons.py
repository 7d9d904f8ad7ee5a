"""The one door to tensorflow-addons, which lane one has; nothing imports it before it is needed."""

from __future__ import annotations

import warnings
from typing import Any

from clouds_tf.files import require_lane_one


def import_addons(purpose: str, instead: str) -> Any:
    """Imports tensorflow_addons; arguments and errors are those of `require_lane_one`."""
    require_lane_one("tensorflow_addons", "tensorflow-addons==0.23.*", purpose, instead)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says on each import that it is no longer developed
        import tensorflow_addons

    return tensorflow_addons
