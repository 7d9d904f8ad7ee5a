"""Random layers of keras-cv as stateless augmentations, (example, seed) -> example.

The layers draw from stateful generators. Here all their draws follow from the seed instead, so that
an image looks the same in a resumed run, in any order, and on any number of workers. For this, each
image is augmented separately, on all cores, not in batches; layers such as RandAugment and GridMask
process a batch image by image anyway.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

import tensorflow as tf

from clouds_tf.data.mixing import Seed
from clouds_tf.keras import keras, policy_kept
from clouds_tf.lane_one import import_keras_cv

_Shape = Union["tf.Tensor", Sequence[int]]

KERAS_CV = "keras_cv"
_DEFAULT = ("random_flip", "rand_augment")
_RANGE = {"value_range": (0, 255)}
_BLACK = {"fill_mode": "constant"}  # pixels from outside the image, as in our own augmentations

# Arguments of each available layer. Layers that combine several images are not: see MIXES.
_LAYERS: dict[str, dict[str, Any]] = {
    "auto_contrast": _RANGE,
    "equalization": _RANGE,
    "grid_mask": {},
    "rand_augment": _RANGE,
    "random_brightness": {"factor": 0.15},
    "random_contrast": {"factor": 0.2, **_RANGE},
    "random_cutout": {"height_factor": 0.35, "width_factor": 0.35},
    "random_flip": {"mode": "horizontal_and_vertical"},
    "random_gaussian_blur": {"kernel_size": 5, "factor": 2.0},
    "random_hue": {"factor": 0.05, **_RANGE},
    "random_rotation": {"factor": 0.125, **_BLACK},  # of a whole turn, so 45 degrees
    "random_saturation": {"factor": (0.4, 0.6)},  # 0.5 keeps the image
    "random_sharpness": {"factor": 0.5, **_RANGE},
    "random_shear": {"x_factor": 0.15, "y_factor": 0.15, **_BLACK},
    "random_translation": {"height_factor": 0.15, "width_factor": 0.15, **_BLACK},
    "random_zoom": {"height_factor": 0.15, **_BLACK},
}


def parse_layers(spec: str) -> tuple[str, ...]:
    """Parses the layers of an augmentation, without importing keras-cv.

    Args:
        spec: "keras_cv", which is short for keras_cv:random_flip,rand_augment; or "keras_cv:" and
            comma-separated keys of _LAYERS.

    Raises:
        ValueError: it has another form.

    >>> parse_layers("keras_cv:rand_augment,grid_mask")
    ('rand_augment', 'grid_mask')
    """
    prefix, colon, names = spec.partition(":")
    layers = tuple(names.split(",")) if colon else _DEFAULT
    unknown = [name for name in layers if name not in _LAYERS]
    if prefix != KERAS_CV or unknown:
        raise ValueError(
            f"augmentation: got {spec!r}, expected {KERAS_CV}, or {KERAS_CV}: and comma-separated "
            f"layers of {', '.join(_LAYERS)}"
        )
    return layers


class _Draws:
    """Replaces the tf.random.Generator of layers; its draws follow from a seed."""

    def __init__(self) -> None:
        self._seed: Any = (0, 0)
        self._count = 0

    def restart(self, seed: Seed) -> None:
        """Begins the sequence of a seed, int [2]."""
        self._seed, self._count = seed, 0

    def _next(self) -> tf.Tensor:
        self._count += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._count)

    def uniform(
        self,
        shape: _Shape,
        minval: float = 0,
        maxval: float | None = None,
        dtype: tf.DType | str = "float32",
    ) -> tf.Tensor:
        """Draws as tf.random.Generator.uniform does."""
        return tf.random.stateless_uniform(shape, self._next(), minval, maxval, dtype)

    def uniform_factor(self, factor: Any, shape: _Shape = (), dtype: str = "float32") -> tf.Tensor:
        """Draws as a keras_cv.core.UniformFactorSampler does."""
        return self.uniform(shape, factor.lower, factor.upper, dtype)

    def normal_factor(self, factor: Any, shape: _Shape = (), dtype: str = "float32") -> tf.Tensor:
        """Draws as a keras_cv.core.NormalFactorSampler does."""
        drawn = tf.random.stateless_normal(shape, self._next(), factor.mean, factor.stddev, dtype)
        return tf.clip_by_value(drawn, factor.min_value, factor.max_value)


def _build(name: str, draws: _Draws) -> Any:
    """Makes a layer that draws, with the layers inside it, from `draws`."""
    layers = import_keras_cv(
        f"augmentation: {KERAS_CV}:{name}", "none, flips, baseline and strong"
    ).layers
    class_name = "".join(word.title() for word in name.split("_"))
    layer = getattr(layers, class_name)(**_LAYERS[name])
    samplers = {
        "UniformFactorSampler": draws.uniform_factor,
        "NormalFactorSampler": draws.normal_factor,
    }
    for part in (layer, *layer.submodules):
        part._random_generator = draws
        for attribute, value in list(vars(part).items()):
            sampler = samplers.get(type(value).__name__)
            if sampler:
                setattr(part, attribute, functools.partial(sampler, value))
    return layer


@contextlib.contextmanager
def _building() -> Iterator[None]:
    """Context in which layers can be built, and compute in float32 whatever the precision."""
    try:
        tf.random.get_global_generator()
    except RuntimeError:
        # Layers need a global generator, which --deterministic forbids unless it is set. Nothing
        # is drawn from it.
        tf.random.set_global_generator(tf.random.Generator.from_seed(0))
    with policy_kept():
        keras.mixed_precision.set_global_policy("float32")
        yield


def make_augmentation(names: Sequence[str]) -> Callable[[dict[str, tf.Tensor], Any], Any]:
    """Makes an augmentation that applies layers, keys of _LAYERS, one after the other.

    Geometric layers transform the mask as well; those that erase pixels, grid_mask and
    random_cutout, leave it unchanged. Raises ValueError if keras-cv is missing or does not work
    with this TensorFlow.
    """
    draws = _Draws()
    with _building():
        layers = [_build(name, draws) for name in names]

    def augment(example: dict[str, tf.Tensor], seed: Seed) -> dict[str, tf.Tensor]:
        draws.restart(seed)
        pair = {
            "images": tf.cast(example["image"], tf.float32),
            "segmentation_masks": tf.cast(example["mask"], tf.float32),
        }
        for layer in layers:
            pair = layer(pair)
        image = tf.saturate_cast(tf.round(pair["images"]), tf.uint8)
        mask = tf.cast(tf.round(pair["segmentation_masks"]), tf.uint8)
        return {**example, "image": image, "mask": mask}

    return augment
