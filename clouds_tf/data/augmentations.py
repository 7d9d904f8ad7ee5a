"""Augmentations by name: ours, those of keras-cv and those of the user."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from clouds_tf import own
from clouds_tf.data.keras_cv_layers import KERAS_CV, make_augmentation, parse_layers
from clouds_tf.data.mixing import Example, Seed
from clouds_tf.lazy import Registry, unconverted
from clouds_tf.messages import counted

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
# Operations whose random numbers depend on earlier draws.
_UNSEEDED = (
    *("Random", "TruncatedNormal", "ParameterizedTruncatedNormal", "Multinomial"),
    *("StatefulUniform", "StatefulStandard", "StatefulTruncated", "StatefulRandom"),
)


def suits(spec: str, channels: int) -> bool:
    """Whether an augmentation takes images with that many channels; colour changes need RGB."""
    return channels == 3 or not (spec == "robust" or spec.startswith(KERAS_CV))


def check_augmentation(spec: str, channels: int = 3) -> None:
    """Checks the name of an augmentation, without importing keras-cv.

    Args:
        spec: a key of AUGMENTATIONS, layers of keras-cv as `parse_layers` reads them, or
            "module:function" for a function of the user.
        channels: number of channels of the images.

    Raises:
        ValueError: the name is unknown, or the augmentation needs RGB images.
    """
    if not suits(spec, channels):
        found = f"{spec} is for RGB, the images have {counted(channels, 'channel')}"
        raise ValueError(f"augmentation: {found}; take none, flips, baseline, strong or your own")
    if spec in AUGMENTATIONS or own.is_own(spec):
        return
    if not spec.startswith(KERAS_CV):
        names = ", ".join(sorted([*AUGMENTATIONS, KERAS_CV]))
        raise ValueError(
            f"augmentation: got {spec!r}, expected one of {names}, or layers of keras-cv such as "
            f"{KERAS_CV}:rand_augment,grid_mask, or module:function"
        )
    parse_layers(spec)


def find_augmentation(spec: str, channels: int = 3) -> Augmentation:
    """Finds or makes an augmentation.

    Arguments are those of `check_augmentation`.

    Returns:
        A function (example, seed) -> example, see AUGMENTATIONS.

    Raises:
        ValueError: the name is unknown, or keras-cv does not work here. A user's function raises it
            when called if it changes a shape or dtype, or draws numbers that do not follow from
            the seed.
    """
    check_augmentation(spec, channels)
    if own.is_own(spec):
        own.find("augmentation", spec)
        return functools.partial(_apply_own, spec)
    return AUGMENTATIONS.get(spec) or make_augmentation(parse_layers(spec))


@unconverted  # as everything in a pipeline of `Records`
def _apply_own(spec: str, example: Example, seed: Seed) -> Example:
    """Applies a user's augmentation, traced once, and checks what it draws and returns."""
    pair = {name: example[name] for name in ("image", "mask")}
    seed = tf.convert_to_tensor(seed)
    function = own.find_for("augmentation", spec, pair, seed)
    step = tf.function(lambda *args: function(*args)).get_concrete_function(pair, seed)
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    drawn = sorted({node.op for node in nodes if node.op.startswith(_UNSEEDED)})
    if drawn:
        raise ValueError(
            f"augmentation: {spec} draws with {drawn[0]}, which a resumed run would not repeat; "
            "use tf.random.stateless_uniform and similar functions with the seed"
        )
    expected = {name: (x.dtype, x.shape) for name, x in pair.items()}
    found = step.structured_outputs
    if not isinstance(found, dict) or {k: (x.dtype, x.shape) for k, x in found.items()} != expected:
        raise ValueError(f"augmentation: {spec} returned {found}, expected {pair}")
    return {**example, **step(pair, seed)}
