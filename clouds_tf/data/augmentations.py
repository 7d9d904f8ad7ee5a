"""Augmentations by name: ours, those of keras-cv and those of the user."""

from __future__ import annotations

import functools
from collections.abc import Callable

from clouds_tf import own
from clouds_tf.data.keras_cv_layers import KERAS_CV, make_augmentation, parse_layers
from clouds_tf.data.mixing import Example, Seed
from clouds_tf.lazy import Registry

Augmentation = Callable[[Example, Seed], Example]

AUGMENTATIONS = Registry(
    {
        "none": "clouds_tf.data.augmentation:unchanged",
        "flips": "clouds_tf.data.augmentation:flips",
        "baseline": "clouds_tf.data.augmentation:baseline",
        "strong": "clouds_tf.data.augmentation:strong",
        "robust": "clouds_tf.data.augmentation:robust",
    }
)


def check_augmentation(spec: str) -> None:
    """Checks the name of an augmentation, without importing keras-cv.

    Args:
        spec: a key of AUGMENTATIONS, layers of keras-cv as `parse_layers` reads them, or
            "module:function" for a function of the user's.

    Raises:
        ValueError: it is something else.
    """
    if spec in AUGMENTATIONS or own.is_own(spec):
        return
    if not spec.startswith(KERAS_CV):
        names = ", ".join(sorted([*AUGMENTATIONS, KERAS_CV]))
        raise ValueError(
            f"augmentation: got {spec!r}, expected one of {names}, or layers of keras-cv such as "
            f"{KERAS_CV}:rand_augment,grid_mask, or module:function"
        )
    parse_layers(spec)


def find_augmentation(spec: str) -> Augmentation:
    """Finds or makes an augmentation.

    Args:
        spec: as `check_augmentation` has it.

    Returns:
        A function (example, seed) -> example, see AUGMENTATIONS.

    Raises:
        ValueError: there is none of that name, or keras-cv does not work here. A user's function
            raises it when it returns other shapes or dtypes than it got, or draws numbers that do
            not follow from the seed.
    """
    check_augmentation(spec)
    if own.is_own(spec):
        from clouds_tf.data.own_augmentation import apply_own

        own.find("augmentation", spec)
        return functools.partial(apply_own, spec)
    return AUGMENTATIONS.get(spec) or make_augmentation(parse_layers(spec))
